"""The tests stand where the path of their module says."""

from pathlib import Path

import pytest

from tests.documentation import ROOT

_MIRRORED = ("graph", "models", "services")
_TESTS = [
    path.relative_to(ROOT / "tests")
    for package in _MIRRORED
    for path in sorted((ROOT / "tests" / package).rglob("test_*.py"))
]


@pytest.mark.parametrize("test", _TESTS, ids=str)
def test_a_test_file_is_named_after_a_module_of_its_folder(test: Path) -> None:
    # test_queue.py and test_queue_parse_once.py both test queue.py.
    words = test.stem.removeprefix("test_").split("_")
    names = ["_".join(words[:end]) for end in range(1, len(words) + 1)]
    assert any(is_module(test.parent / name) for name in names)


def is_module(path: Path) -> bool:
    """Tell whether a path without its ending is a module or a package; `import_.py` is `import`."""
    source = ROOT / path
    return any(
        candidate.exists()
        for candidate in (
            source.with_suffix(".py"),
            source.with_name(f"{source.name}_.py"),
            source / "__init__.py",
        )
    )
