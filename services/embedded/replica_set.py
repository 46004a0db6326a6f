"""A replica set of one: initiated, moved to another port, with one user."""

import asyncio
from collections.abc import Mapping
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import ConnectionFailure, OperationFailure

from services.embedded.failures import StartFailed
from services.embedded.ports import LOOPBACK

REPLICA_SET = "embedded"
USERNAME = "orthanc-graphql"

_POLL_SECONDS = 0.02
_AUTHENTICATION_FAILED = 18
"""MongoDB's error code AuthenticationFailed."""
_UNAUTHORIZED = 13
"""Unauthorized: there are users already, so this is not the first start."""
_STARTING_UP = frozenset({23, 94})
"""AlreadyInitialized and NotYetInitialized."""


async def become_primary(port: int, password: str) -> None:
    """Wait for a mongod that has just been started and make it a writable primary with our user.

    Every step looks first what is there, so that what was cut off is completed by the next try:
    mongod closes its connections when it finds itself removed from its replica set, and when it
    was given another port.

    Args:
        port: On the loopback interface; may differ from the one of the last start.
        password: Of the user `USERNAME`, created the first time.

    Raises:
        StartFailed: The password is not the one that the data were made with.
    """
    async with _client(port) as stranger, _client(port, password) as owner:
        while True:
            try:
                await _join_replica_set(stranger, owner, port)
                await _until_writable(stranger)
                await _ensure_user(stranger, owner, password)
            except ConnectionFailure:
                await asyncio.sleep(_POLL_SECONDS)
            else:
                return


async def _join_replica_set(
    stranger: AsyncMongoClient[dict[str, Any]], owner: AsyncMongoClient[dict[str, Any]], port: int
) -> None:
    """Initiate the replica set, or set the new port of its only member.

    A mongod that has just begun to listen may not have read its configuration yet; then every
    way fails with NotYetInitialized or AlreadyInitialized, and is tried again.
    """
    member = f"{LOOPBACK}:{port}"
    while not await _is_member(stranger):
        try:
            # Allowed without a user from this machine while there is none (localhost exception).
            await stranger.admin.command(
                "replSetInitiate", {"_id": REPLICA_SET, "members": [{"_id": 0, "host": member}]}
            )
        except OperationFailure as exc:
            if exc.code == _UNAUTHORIZED:
                await _move(owner, member)
            elif exc.code not in _STARTING_UP:
                raise
            await asyncio.sleep(_POLL_SECONDS)


async def _is_member(client: AsyncMongoClient[dict[str, Any]]) -> bool:
    return "setName" in await client.admin.command("hello")


async def _move(owner: AsyncMongoClient[dict[str, Any]], member: str) -> None:
    configuration = await _stored_configuration(owner)
    if configuration is None or configuration["members"][0]["host"] == member:
        return
    moved = moved_configuration(configuration, member)
    try:
        await owner.admin.command("replSetReconfig", moved, force=True)
    except OperationFailure as exc:
        if exc.code not in _STARTING_UP:
            raise


async def _stored_configuration(
    owner: AsyncMongoClient[dict[str, Any]],
) -> Mapping[str, Any] | None:
    try:
        return await owner.local.get_collection("system.replset").find_one()
    except OperationFailure as exc:
        raise _wrong_password(exc) from exc


def moved_configuration(configuration: Mapping[str, Any], member: str) -> dict[str, Any]:
    """Derive the configuration of a replica set of one whose member has a new `host:port`."""
    [only] = configuration["members"]
    version = configuration["version"] + 1
    return {**configuration, "version": version, "members": [{**only, "host": member}]}


async def _until_writable(client: AsyncMongoClient[dict[str, Any]]) -> None:
    while True:
        hello = await client.admin.command("hello")
        if hello["isWritablePrimary"]:
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _ensure_user(
    stranger: AsyncMongoClient[dict[str, Any]],
    owner: AsyncMongoClient[dict[str, Any]],
    password: str,
) -> None:
    try:
        if not await _is_accepted(owner):
            await stranger.admin.command("createUser", USERNAME, pwd=password, roles=["root"])
    except OperationFailure as exc:
        raise _wrong_password(exc) from exc


async def _is_accepted(owner: AsyncMongoClient[dict[str, Any]]) -> bool:
    try:
        await owner.admin.command("ping")
    except OperationFailure as exc:
        if exc.code != _AUTHENTICATION_FAILED:
            raise
        return False
    return True


def _wrong_password(exc: OperationFailure) -> StartFailed:
    return StartFailed(
        "The embedded MongoDB does not accept the password in its folder. Restore the file "
        "`password` from a backup, or move the folder away to begin with an empty store.",
        detail=str(exc),
    )


def _client(port: int, password: str | None = None) -> AsyncMongoClient[dict[str, Any]]:
    user: dict[str, Any] = {}
    if password is not None:
        user = {"username": USERNAME, "password": password}
    return AsyncMongoClient(
        LOOPBACK, port, directConnection=True, serverSelectionTimeoutMS=200, **user
    )
