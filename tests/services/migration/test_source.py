"""What is said of an old database that can't be read."""

from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest
from pymongo.errors import ServerSelectionTimeoutError

from services.errors import DatabaseUnavailable
from services.migration import source


async def test_an_old_database_that_is_away_is_told_from_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = AsyncMock()
    client.__aenter__.return_value = client
    client.get_default_database = lambda: None
    client.admin = SimpleNamespace(command=AsyncMock(side_effect=ServerSelectionTimeoutError))
    monkeypatch.setattr(source, "AsyncMongoClient", lambda *_, **__: client)
    with pytest.raises(DatabaseUnavailable, match="--source"):
        async with source.open_source("mongodb://host/old"):
            pass
