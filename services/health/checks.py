"""Health of what the server depends on, one by one, and of its own background tasks."""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pymongo import ReadPreference
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from services.database import describe_clock_difference
from services.errors import Error, OrthancError
from services.health.descriptors import DescriptorWatch
from services.orthanc.client import OrthancClient
from services.tasks import Supervisor

_ANSWER_SECONDS = 3
"""A part that takes longer counts as away: load balancers ask every few seconds."""


@dataclass(frozen=True, slots=True)
class PartHealth:
    """One dependency.

    Attributes:
        is_ready: It answers and can be used.
        version: Its release, None when it did not answer or is off.
        message: What is wrong and what to do, None when all is well.
        warning: What should be repaired although the part can be used, None when all is well.
    """

    is_ready: bool
    version: str | None = None
    message: str | None = None
    warning: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the part as `/api/status` shows it, without what is absent."""
        facts = {"version": self.version, "message": self.message, "warning": self.warning}
        status = "ok" if self.is_ready else "unavailable"
        return {"status": status} | {name: fact for name, fact in facts.items() if fact}


@dataclass(frozen=True, slots=True)
class Health:
    """All dependencies by name.

    Attributes:
        failing_tasks: Why each background task that is not well failed last, by name.
    """

    parts: dict[str, PartHealth]
    failing_tasks: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        """Whether everything that is needed answers."""
        return all(part.is_ready for part in self.parts.values())

    @property
    def status(self) -> str:
        """`ok`, `degraded` when something needs a person, or `unavailable`.

        A degraded server stays in service: its background tasks are started again by themselves,
        and another clock may be the wrong one.
        """
        if not self.is_ready:
            return "unavailable"
        has_warnings = any(part.warning for part in self.parts.values())
        return "degraded" if has_warnings or self.failing_tasks else "ok"

    def to_json(self) -> dict[str, Any]:
        """Return what `/api/status` shows."""
        tasks = {"backgroundTasks": dict(self.failing_tasks)} if self.failing_tasks else {}
        parts = {name: part.to_json() for name, part in self.parts.items()}
        return {"status": self.status} | parts | tasks


async def check_health(
    database: AsyncDatabase[Any],
    orthanc: OrthancClient | None,
    descriptors: DescriptorWatch,
    supervisor: Supervisor,
) -> Health:
    """Ask MongoDB and Orthanc at once; never raises.

    Args:
        database: Of the index.
        orthanc: None while PACS integration is off.
        descriptors: Knows whether file descriptors are running out.
        supervisor: Knows which background tasks fail.
    """
    mongodb_health, orthanc_health = await asyncio.gather(
        _within_limit("MongoDB", check_mongodb(database)),
        _within_limit("Orthanc", check_orthanc(orthanc)),
    )
    parts = {"mongodb": mongodb_health, "orthanc": orthanc_health}
    if (warning := descriptors.warning) is not None:
        parts["server"] = PartHealth(is_ready=True, warning=warning)
    return Health(parts, supervisor.failing)


async def check_mongodb(database: AsyncDatabase[Any]) -> PartHealth:
    """Ask MongoDB for its version, and whether it takes writes."""
    # Not only the primary: a secondary answers at once that there is none.
    anyone = ReadPreference.PRIMARY_PREFERRED
    try:
        hello = await database.command("hello", read_preference=anyone)
        build = await database.client.admin.command("buildInfo", read_preference=anyone)
    except PyMongoError as exc:
        reason = "MongoDB does not answer. Check MONGODB_URL and that MongoDB runs."
        return PartHealth(is_ready=False, message=f"{reason} ({type(exc).__name__})")
    if not hello.get("isWritablePrimary"):
        return PartHealth(is_ready=False, message="MongoDB has no primary that takes writes.")
    warning = describe_clock_difference(hello["localTime"], datetime.now(UTC))
    return PartHealth(is_ready=True, version=str(build["version"]), warning=warning)


async def check_orthanc(orthanc: OrthancClient | None) -> PartHealth:
    """Ask Orthanc for its version; off counts as ready."""
    if orthanc is None:
        return PartHealth(is_ready=True, message="off (ENABLE_PACS_INTEGRATION=false)")
    try:
        system = await orthanc.system()
    except OrthancError as exc:
        return PartHealth(is_ready=False, message=exc.message)
    return PartHealth(is_ready=True, version=system.version)


async def _within_limit(name: str, check: Awaitable[PartHealth]) -> PartHealth:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await check
    except TimeoutError:
        message = f"{name} did not answer within {_ANSWER_SECONDS} seconds."
        return PartHealth(is_ready=False, message=message)
    except Error as exc:
        return PartHealth(is_ready=False, message=exc.message)
