"""What all tests of the outside share."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Undo what `configure_logging` does to the loggers of the process."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    named = [one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    levels = [(logger, logger.level) for logger in [root, *named]]
    yield
    root.handlers[:] = handlers
    for logger, level in levels:
        logger.setLevel(level)
