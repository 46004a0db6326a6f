"""Databases of the tests' MongoDB: emptied and lent again, for their indexes take long to make."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pymongo import AsyncMongoClient

from models import DOCUMENTS
from services.database import open_database
from services.embedded.mongod import EmbeddedMongod

_Client = AsyncMongoClient[dict[str, Any]]
_Shape = Mapping[str, object]
_NEW_COLLECTION: object = ("collection", {}, ["{'v': 2, 'key': {'_id': 1}, 'name': '_id_'}"])


class _Databases:
    """The databases of one MongoDB.

    Args:
        client: For as long as they are lent.
        shape: Of a database that no test had; collections without indexes are missing.
    """

    def __init__(self, client: _Client, shape: _Shape) -> None:
        self._client = client
        self._shape = {
            document.Settings.name: shape.get(document.Settings.name, _NEW_COLLECTION)
            for document in DOCUMENTS
        }
        self._empty: list[str] = []

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[str]:
        """Lend an empty database; nobody may write into it when the context ends."""
        name = self._empty.pop() if self._empty else _new_name()
        yield name
        shape = await _shape_of(self._client, name)
        if shape.items() <= self._shape.items():
            for collection in shape:
                await self._client[name][collection].delete_many({})
            self._empty.append(name)
        else:
            # The test changed indexes or rules, and not only documents.
            await self._client.drop_database(name)


async def _shape_of(client: _Client, name: str) -> _Shape:
    """Return everything about the collections of a database but their documents."""
    catalog = await client.admin.aggregate([{"$listCatalog": {}}, {"$match": {"db": name}}])
    found = {}
    async for one in catalog:
        options = {key: value for key, value in one["md"]["options"].items() if key != "uuid"}
        indexes = sorted(str(index["spec"]) for index in one["md"]["indexes"])
        found[one["name"]] = (one["type"], options, indexes)
    return found


_shared: dict[str, _Databases] = {}


@asynccontextmanager
async def sharing_databases(mongodb: EmbeddedMongod) -> AsyncIterator[None]:
    """Lend the databases of this MongoDB again and again while inside."""
    client: _Client = AsyncMongoClient(mongodb.url)
    name = _new_name()
    async with client:
        async with open_database(mongodb.url, name):
            _shared[mongodb.url] = _Databases(client, await _shape_of(client, name))
        yield
        del _shared[mongodb.url]


@asynccontextmanager
async def lent_database(mongodb: EmbeddedMongod) -> AsyncIterator[str]:
    """Lend an empty database; of a MongoDB that is soon gone, just a new name."""
    databases = _shared.get(mongodb.url)
    if databases is None:
        yield _new_name()
    else:
        async with databases.lent() as name:
            yield name


def _new_name() -> str:
    return f"test_{secrets.token_hex(6)}"
