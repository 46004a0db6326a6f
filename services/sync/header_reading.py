"""Headers of stored instances from Orthanc: a series by one call, or one by one."""

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.errors import (
    Error,
    OrthancAuthenticationFailed,
    OrthancError,
    OrthancNotFound,
    OrthancTimedOut,
    OrthancUnavailable,
    RecordRefused,
)
from services.orthanc.answers import StoredFile
from services.orthanc.client import OrthancClient
from services.sync.waiting import wait_for_all

_log = logging.getLogger(__name__)

WHOLE_SERIES_MAX_INSTANCES = 2_000
"""Orthanc answers a whole series at once, about 40 kB an instance: 80 MB at this size."""

WHOLE_SERIES_MIN_SHARE = 0.25
"""With less than this share of a series wanted, single headers are faster than all of them."""

HANDFUL = 8
"""So few single calls cost less than asking which way is better."""

_CONTROLS = 3
"""Other series that are asked whether Orthanc reads headers at all: one of them may be as bad."""

_TOO_SLOW = "Orthanc takes too long to read its header."

Tags = Mapping[str, Any]


@dataclass(slots=True)
class Headers:
    """Headers in Orthanc's full format by instance id, and reasons of what can't be read.

    Instances that vanished meanwhile are in neither.
    """

    tags: Mapping[str, Tags] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def reads_whole_series(wanted: int, indexed: int) -> bool:
    """Decide whether a series is read by one call or instance by instance.

    Args:
        wanted: Number of its instances to read.
        indexed: Number of its instances that are known already.
    """
    size = wanted + indexed
    return (
        wanted > HANDFUL
        and size <= WHOLE_SERIES_MAX_INSTANCES
        and wanted >= WHOLE_SERIES_MIN_SHARE * size
    )


def reason_of(exc: BaseException) -> str:
    """Tell an error in a sentence for the log and for people, without anybody's data."""
    if isinstance(exc, RecordRefused):
        return exc.message
    detail = exc.detail or exc.message if isinstance(exc, Error) else type(exc).__name__
    return detail[:200]


class HeaderReader:
    """Reads the headers of some instances.

    Args:
        orthanc: Where they are.
        calls: Bounds the calls for headers at once.
        instance_ids: All that are wanted.
    """

    def __init__(
        self, orthanc: OrthancClient, calls: asyncio.Semaphore, instance_ids: Collection[str]
    ) -> None:
        self._orthanc = orthanc
        self._calls = calls
        self._wanted = instance_ids

    async def read(self, series_id: str, files: Sequence[StoredFile], indexed: int) -> Headers:
        """Read what is wanted of one series.

        Args:
            series_id: Orthanc's.
            files: The instances.
            indexed: Number of the series' instances that are indexed already.

        Raises:
            OrthancUnavailable: Orthanc does not answer, or reads no header in time.
            OrthancAuthenticationFailed: It does not accept our credentials.
        """
        if reads_whole_series(len(files), indexed):
            try:
                async with self._calls:
                    return Headers(await self._orthanc.series_instance_tags(series_id))
            except OrthancTimedOut:
                # A single one may hold the answer up; an Orthanc that hangs says nothing here.
                await self._orthanc.system()
                _log.warning("series %s takes too long and is read one by one", series_id)
            except (OrthancUnavailable, OrthancAuthenticationFailed):
                raise
            except OrthancNotFound:
                return Headers()
            except OrthancError as exc:
                # One unreadable file fails the whole answer: find out which.
                _log.info("series %s is read one by one: %s", series_id, exc.detail)
        return await self._one_by_one(files)

    async def _one_by_one(self, files: Iterable[StoredFile]) -> Headers:
        faults: dict[str, str] = {}
        found = await wait_for_all(self._tags_of(file.instance_id, faults) for file in files)
        return Headers({id_: tags for id_, tags in found if tags is not None}, faults)

    async def _tags_of(self, instance_id: str, faults: dict[str, str]) -> tuple[str, Tags | None]:
        try:
            async with self._calls:
                return instance_id, await self._orthanc.instance_tags(instance_id)
        except OrthancTimedOut as exc:
            await self._expect_others_to_be_read()
            _log.warning("instance %s takes too long to read", instance_id, exc_info=exc)
            faults[instance_id] = _TOO_SLOW
        except (OrthancUnavailable, OrthancAuthenticationFailed):
            raise
        except OrthancNotFound:
            pass
        except OrthancError as exc:
            faults[instance_id] = reason_of(exc)
        return instance_id, None

    async def _expect_others_to_be_read(self) -> None:
        """Tell one header that can't be read from an Orthanc that reads none.

        Raises:
            OrthancUnavailable: It is not about the one; or Orthanc is away altogether.
        """
        controls = [
            other
            for listing in await self._orthanc.series(0, _CONTROLS)
            for other in [id_ for id_ in listing.instance_ids if id_ not in self._wanted][:1]
        ]
        outcomes = await asyncio.gather(
            *(self._orthanc.instance_tags(control) for control in controls),
            return_exceptions=True,
        )
        silent = [outcome for outcome in outcomes if isinstance(outcome, OrthancUnavailable)]
        if silent and len(silent) == len(controls):
            raise silent[0]
