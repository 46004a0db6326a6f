"""The server itself."""

from contextlib import suppress
from enum import Enum
from importlib.metadata import version
from typing import Self

import strawberry

from graph.context import Info
from services.errors import OrthancError
from services.health.checks import Health
from services.orthanc.answers import Capability, SystemInfo
from services.runtime import Runtime
from services.sync.status import FeedStatus

DISTRIBUTION = "orthanc-graphql"


@strawberry.type(description="The position in Orthanc's change feed.")
class Feed:
    """Where the change feed stands."""

    behind_seconds: float | None = strawberry.field(
        description="Age of the oldest change that is not applied; null when that is unknown."
    )
    behind_changes: int | None = strawberry.field(
        description="Changes that are not applied; null when that is unknown."
    )
    is_following: bool = strawberry.field(
        description="Whether this process follows the feed; only one of all processes does."
    )
    message: str | None = strawberry.field(
        description="Why it makes no progress; null when it does."
    )

    @classmethod
    def of(cls, status: FeedStatus) -> Self:
        """Show a status."""
        return cls(
            behind_seconds=status.behind_seconds,
            behind_changes=status.behind_changes,
            is_following=status.is_following,
            message=status.last_error,
        )


@strawberry.enum(description="The state of the server and its stores.")
class ServerStatus(Enum):
    """As `Health.status`."""

    OK = strawberry.enum_value("ok", description="Everything answers.")
    DEGRADED = strawberry.enum_value(
        "degraded", description="Everything answers, and something needs an administrator."
    )
    UNAVAILABLE = strawberry.enum_value(
        "unavailable", description="Orthanc or MongoDB does not answer, or takes no writes."
    )


strawberry.enum(
    Capability,
    description="What only some releases or installations of Orthanc can do.",
)


@strawberry.type(description="Where modalities reach this server: what the other side must enter.")
class DicomListener:
    """Where modalities reach this server."""

    ae_title: str = strawberry.field(description="Its AE title.")
    port: int | None = strawberry.field(
        description="Its DICOM port; null: Orthanc takes no associations."
    )
    is_worklist_served: bool = strawberry.field(
        description="Whether scanners can ask it for the worklist."
    )
    uses_tls: bool | None = strawberry.field(
        name="useTls",
        description="Whether connections to it must be encrypted (PS3.15 B.12); null: the "
        "configuration of an Orthanc that is not embedded decides it.",
    )


@strawberry.type(description="This server and the stores behind it.")
class Server:
    """This server and the stores behind it."""

    version: str = strawberry.field(description="Release of this server.")
    orthanc_version: str | None = strawberry.field(
        description="Release of Orthanc; null while it is unreachable or PACS integration is off, "
        "and for callers who see only some studies."
    )
    mongodb_version: str | None = strawberry.field(
        description="Release of MongoDB; null while it is unreachable, and for callers who see "
        "only some studies."
    )
    storage: str = strawberry.field(description="Where the files are: `orthanc-pacs`.")
    pacs_integration_enabled: bool = strawberry.field(
        description="False: metadata is served; uploads and frames are not "
        "(ENABLE_PACS_INTEGRATION)."
    )
    status: ServerStatus | None = strawberry.field(
        description="How the server and its stores are; null for callers who see only some "
        "studies. `warnings` says more."
    )
    warnings: list[str] = strawberry.field(
        description="What an administrator should check, as sentences; empty for callers who see "
        "only some studies."
    )

    @strawberry.field(
        description="How far the index is behind Orthanc's change feed; null when PACS "
        "integration is off, and for callers who see only some studies, because it shows the "
        "activity of others."
    )
    async def feed(self, info: Info) -> Feed | None:
        """Ask how far behind it is."""
        sync = info.context.runtime.sync
        if sync is None or not info.context.scope.is_all:
            return None
        return Feed.of(await sync.status())

    @strawberry.field(
        description="What this Orthanc can do; empty while it is unreachable or PACS integration "
        "is off, and for callers who see only some studies."
    )
    async def orthanc_capabilities(self, info: Info) -> list[Capability]:
        """Ask what Orthanc can do."""
        orthanc = info.context.runtime.orthanc
        if orthanc is None or not info.context.scope.is_all:
            return []
        with suppress(OrthancError):
            return (await orthanc.system()).capabilities(await orthanc.plugins())
        return []

    @strawberry.field(
        description="Where modalities reach this server; null while Orthanc, which listens, is "
        "unreachable, when PACS integration is off, and for callers who see "
        "only some studies."
    )
    async def dicom(self, info: Info) -> DicomListener | None:
        """Ask where Orthanc listens."""
        runtime = info.context.runtime
        if runtime.orthanc is None or not info.context.scope.is_all:
            return None
        with suppress(OrthancError):
            listener = await runtime.modalities.listener()
            has_plugin = "worklists" in await runtime.orthanc.plugins()
            has_worklist = has_plugin and runtime.worklist_folder is not None
            return DicomListener(
                ae_title=listener.ae_title,
                port=listener.port,
                is_worklist_served=has_worklist and listener.port is not None,
                uses_tls=listener.uses_tls,
            )
        return None

    @strawberry.field(description="Patients that are stored.")
    async def number_of_patients(self, info: Info) -> int:
        """Count patients."""
        return await info.context.tree.count_patients()

    @strawberry.field(description="Studies that are stored.")
    async def number_of_studies(self, info: Info) -> int:
        """Count studies."""
        return await info.context.tree.count_studies()

    @strawberry.field(description="Instances that are stored.")
    async def number_of_instances(self, info: Info) -> int:
        """Count instances."""
        return await info.context.tree.count_instances()


async def examine_server(runtime: Runtime, *, is_limited: bool) -> Server:
    """Ask the stores for their versions; one that is away costs a few seconds at most.

    Args:
        runtime: The services.
        is_limited: The caller sees only some studies, and need not know what runs here.
    """
    health = None if is_limited else await runtime.check_health()
    orthanc_version = health.parts["orthanc"].version if health else None
    return Server(
        version=version(DISTRIBUTION),
        orthanc_version=orthanc_version,
        mongodb_version=health.parts["mongodb"].version if health else None,
        storage="orthanc-pacs",
        pacs_integration_enabled=runtime.orthanc is not None,
        status=ServerStatus(health.status) if health else None,
        warnings=_warnings(health, orthanc_version, is_embedded=runtime.settings.embeds_orthanc)
        if health
        else [],
    )


def _warnings(health: Health, orthanc_version: str | None, *, is_embedded: bool) -> list[str]:
    warnings = [
        (None if part.is_ready else part.message) or part.warning for part in health.parts.values()
    ]
    warnings += [f"A background task fails: {task}." for task in health.failing_tasks]
    if orthanc_version is not None:
        system = SystemInfo(version=orthanc_version, api_version=0, dicom_aet="")
        warnings.append(system.vulnerability_warning(is_embedded=is_embedded))
    return [warning for warning in warnings if warning]
