"""Options of the whole test run."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--mutations",
        type=int,
        default=200,
        help="damaged files of each kind that the hostile tests make",
    )
    parser.addoption(
        "--fuzz-cases",
        type=int,
        default=10,
        help="cases that schemathesis makes for each operation",
    )
