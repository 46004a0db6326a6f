"""MongoDB: whether it answers, is new enough, has change streams and takes writes."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from beanie import init_beanie
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ConfigurationError, InvalidURI, OperationFailure, PyMongoError

from models.token import TokenDocument
from services.auth.tokens import TokenStore
from services.database import describe_clock_difference, translated_database_faults
from services.doctor.findings import Finding, ok, problem, warning
from services.errors import DatabaseUnavailable

_PART = "MongoDB"
_ANSWER_MS = 3_000
_LEAST_MAJOR = 5
_AUTHENTICATION_FAILED = (18, 8000)
"""Codes of MongoDB and of its hosted service."""
_UNAUTHORIZED = 13
_PROBE = "doctor_probe"

_SET = "Replica set"
_LEAST_VOTERS = 3
_ELECTION_MS = 2_000
"""Requests wait 3 s for a primary: with this election none failed when a primary was killed."""


async def examine_mongodb(url: str, database: str) -> list[Finding]:
    """Check the MongoDB that a connection string names.

    Args:
        url: Connection string.
        database: Name of the server's database, in which a probe is written and dropped.
    """
    try:
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            url, serverSelectionTimeoutMS=_ANSWER_MS, connectTimeoutMS=_ANSWER_MS
        )
    except (InvalidURI, ConfigurationError, ValueError):
        message = "MONGODB_URL is no connection string, as mongodb://user:password@host:27017."
        return [problem(_PART, message)]
    async with client:
        try:
            return await _examine(client[database])
        except OperationFailure as exc:
            return [problem(_PART, explain_refusal(exc.code))]
        except PyMongoError as exc:
            advice = "does not answer. Check MONGODB_URL and that MongoDB runs"
            return [problem(_PART, f"{advice} ({type(exc).__name__}).")]


async def read_tokens(url: str, database: str) -> Sequence[TokenDocument]:
    """Read the tokens without creating anything in the database.

    Args:
        url: Connection string.
        database: Name of the server's database.

    Raises:
        DatabaseUnavailable: MongoDB does not answer.
    """
    with translated_database_faults():
        try:
            client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
                url,
                tz_aware=True,
                serverSelectionTimeoutMS=_ANSWER_MS,
                connectTimeoutMS=_ANSWER_MS,
            )
        except (InvalidURI, ConfigurationError, ValueError) as exc:
            raise DatabaseUnavailable from exc
        async with client:
            # Beanie makes no documents of a class that it has not initialized.
            await init_beanie(
                database=client[database], document_models=[TokenDocument], skip_indexes=True
            )
            return await TokenStore(client[database]).read_all()


def explain_refusal(code: int | None) -> str:
    """Say what a refusal means.

    Args:
        code: MongoDB's number of the error.
    """
    if code in _AUTHENTICATION_FAILED:
        return "MongoDB authentication failed. Check the user and the password in MONGODB_URL."
    if code == _UNAUTHORIZED:
        return (
            "MongoDB's user may not read and write the database. Give it the role readWrite on "
            "the database that MONGODB_DATABASE names."
        )
    return f"refuses commands (error {code}). Look at MongoDB's log."


def judge(hello: Mapping[str, Any], version: str) -> list[Finding]:
    """Judge what MongoDB says about itself.

    Args:
        hello: Its answer to `hello`.
        version: Its release.
    """
    findings = []
    if int(version.split(".", maxsplit=1)[0]) < _LEAST_MAJOR:
        message = f"{version} is too old. Use MongoDB {_LEAST_MAJOR}.0 or newer."
        findings.append(problem(_PART, message))
    if not hello.get("setName") and hello.get("msg") != "isdbgrid":
        message = (
            f"{version} is not a replica set, so there are no change streams: subscriptions would "
            "not work. Start it with --replSet and run rs.initiate() once."
        )
        findings.append(problem(_PART, message))
    elif not hello.get("isWritablePrimary"):
        findings.append(problem(_PART, "has no primary that takes writes. Look at rs.status()."))
    return findings


def judge_replica_set(hello: Mapping[str, Any], configuration: Mapping[str, Any] | None) -> Finding:
    """Judge how a replica set goes on without its primary.

    Args:
        hello: MongoDB's answer to `hello`.
        configuration: Of the set, as `rs.conf()` shows it; None: MongoDB's user may not read it.
    """
    if hello.get("msg") == "isdbgrid":
        return ok(_SET, "a sharded cluster; its shards are not examined")
    members = len(hello.get("hosts", ())) + len(hello.get("passives", ()))
    voters = members + len(hello.get("arbiters", ()))
    if voters < _LEAST_VOTERS:
        number = "one member" if members == 1 else f"{members} members"
        consequence = "away" if members == 1 else "away, because the other elects no primary"
        message = f"{number}: nothing is written while one is {consequence}"
        advice = f'For fail-over add members until there are {_LEAST_VOTERS}: rs.add("host:27017").'
        finding = ok if members == 1 else warning
        return finding(_SET, f"{message}. {advice}")
    if configuration is None:
        return ok(_SET, f"{members} members; MongoDB's user may not read rs.conf()")
    milliseconds = int(configuration.get("settings", {}).get("electionTimeoutMillis", 10_000))
    if milliseconds > _ELECTION_MS:
        seconds = f"{milliseconds / 1000:g} s"
        return warning(
            _SET,
            f"{members} members, which notice the loss of the primary after {seconds}; until then "
            f"writes fail. With {_ELECTION_MS / 1000:g} s they wait. In mongosh: cfg = rs.conf(); "
            f"cfg.settings.electionTimeoutMillis = {_ELECTION_MS}; rs.reconfig(cfg)",
        )
    return ok(_SET, f"{members} members, election after {milliseconds / 1000:g} s")


async def _configuration(database: AsyncDatabase[dict[str, Any]]) -> Mapping[str, Any] | None:
    try:
        found: Mapping[str, Any] = await database.client.admin.command("replSetGetConfig")
    except OperationFailure:
        # It needs the role clusterMonitor, which the server itself does not need.
        return None
    config: Mapping[str, Any] = found["config"]
    return config


async def _examine(database: AsyncDatabase[dict[str, Any]]) -> list[Finding]:
    hello = await database.command("hello")
    version = str((await database.client.admin.command("buildInfo"))["version"])
    findings = judge(hello, version)
    if findings:
        return findings
    await database[_PROBE].insert_one({})
    await database.drop_collection(_PROBE)
    findings = [
        ok(_PART, f"{version}, takes writes, has change streams"),
        judge_replica_set(hello, await _configuration(database)),
    ]
    difference = describe_clock_difference(hello["localTime"], datetime.now(UTC))
    return findings if difference is None else [*findings, warning("Clock", difference)]
