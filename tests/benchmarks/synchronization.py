"""Following, comparing and importing, beside what the issue allows or a direct way."""

import asyncio
import resource
import statistics
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.dicom.layout import WalkLimits
from services.embedded.mongod import run_mongod
from services.embedded.orthanc import run_orthanc
from services.importing.journal import Journal
from services.importing.run import ImportRun
from services.index.record import INDEX_VERSION
from services.ingest.archives import ArchiveLimits
from services.ingest.service import Ingest
from services.ingest.storing import FileStorage
from services.orthanc.answers import ChangePage, SeriesListing, Statistics, StudyListing
from services.sync.comparison import Comparison
from tests.benchmarks.measurement import Bound, Line, Row, seconds_of
from tests.benchmarks.studies import ct_files
from tests.benchmarks.synthetic_index import IndexSize, fill
from tests.real.sync_stage import Stage, eventually, instance_bytes, open_stage, running

_ARRIVALS = 1_000
_ARRIVALS_PER_SECOND = 300
_STUDIES = 10_000
_COMPARISON_SECONDS = 2.0
_COMPARISON_CALLS = 20
_DELAY_SECONDS = 2.0
_IDLE_SECONDS = 20.0
_IDLE_SHARE = 0.01
_IMPORTED = 500
_IMPORT_RUNS = 3
_AT_ONCE = 4


async def run() -> list[Line]:
    """Measure all of it, each in fresh stores."""
    async with _fresh() as stage:
        idle = await _idle(stage)
        delay = await _delay(stage)
    async with _fresh() as stage:
        arrivals = await _arrivals(stage)
    async with _fresh() as stage:
        comparison = await _comparison(stage)
    return [arrivals, delay, *comparison, idle, *await _import()]


@asynccontextmanager
async def _fresh() -> AsyncIterator[Stage]:
    with tempfile.TemporaryDirectory() as folder:
        async with (
            run_mongod(Path(folder) / "mongodb") as mongod,
            run_orthanc(Path(folder) / "orthanc") as orthanc,
            open_stage(mongod, orthanc, poll_seconds=0.5) as stage,
        ):
            yield stage


async def _arrivals(stage: Stage) -> Bound:
    """Index instances that Orthanc holds already: the sender's own time is not counted."""
    ids = await stage.send([instance_bytes(1, 1 + n % 4, n) for n in range(_ARRIVALS)])
    return Bound(
        case=f"index {_ARRIVALS} arrived instances of 4 series",
        value=await seconds_of(lambda: stage.sync.reconciler.reconcile(ids)),
        unit="s",
        at_most=_ARRIVALS / _ARRIVALS_PER_SECOND,
    )


async def _idle(stage: Stage) -> Bound:
    async with running(stage.sync):
        await stage.send([instance_bytes(1, 1, 1)])
        await eventually(stage.is_in_step)
        await asyncio.sleep(1)
        before = _cpu_seconds()
        await asyncio.sleep(_IDLE_SECONDS)
        spent = _cpu_seconds() - before
    return Bound(
        case=f"CPU of following an idle Orthanc for {_IDLE_SECONDS:.0f} s",
        value=spent,
        unit="s",
        at_most=_IDLE_SECONDS * _IDLE_SHARE,
    )


async def _delay(stage: Stage) -> Bound:
    """Time from the begin of a transfer until the index holds it."""

    async def arrive() -> None:
        await stage.send([instance_bytes(2, 1, 1)])
        await eventually(stage.is_in_step)

    async with running(stage.sync):
        await eventually(stage.is_in_step)
        await asyncio.sleep(1)
        seconds = await seconds_of(arrive)
    return Bound(
        case="an arrival until it is indexed, looking every 0.5 s",
        value=seconds,
        unit="s",
        at_most=_DELAY_SECONDS,
    )


class _ListedOrthanc:
    """A stand-in for the list calls alone: 10,000 real studies take minutes to make."""

    def __init__(self, listings: Sequence[dict[str, Any]]) -> None:
        self.calls = 0
        self._listings = listings
        self._ids = {one["ID"] for one in listings}
        self._patients = len({one["ParentPatient"] for one in listings})

    async def studies(self, since: int, limit: int) -> list[StudyListing]:
        self.calls += 1
        return [StudyListing.from_json(one) for one in self._listings[since : since + limit]]

    async def series(self, _since: int, _limit: int) -> list[SeriesListing]:
        raise AssertionError("studies that agree are not looked into")

    async def existing_studies(self, study_ids: Sequence[str]) -> set[str]:
        self.calls += 1
        return self._ids.intersection(study_ids)

    async def statistics(self) -> Statistics:
        self.calls += 1
        return Statistics(
            patients=self._patients, studies=_STUDIES, series=_STUDIES, instances=_STUDIES
        )

    async def newest_change(self) -> ChangePage:
        self.calls += 1
        return ChangePage(changes=(), last=0, is_last_page=True)

    async def changes(self, _since: int, _limit: int) -> ChangePage:
        return await self.newest_change()


async def _comparison(stage: Stage) -> list[Bound]:
    orthanc = _ListedOrthanc(await _fill(stage))
    comparison = Comparison(
        orthanc,  # type: ignore[arg-type]  # a stand-in for the calls that are made
        stage.database,
        stage.sync.reconciler,
        stage.sync.comparison.roll_ups,
    )
    seconds = await seconds_of(comparison.run)
    case = f"compare {_STUDIES} studies that agree (Orthanc's list calls stood in)"
    return [
        Bound(case=case, value=seconds, unit="s", at_most=_COMPARISON_SECONDS),
        Bound(case="calls of it", value=orthanc.calls, unit="", at_most=_COMPARISON_CALLS),
    ]


async def _fill(stage: Stage) -> list[dict[str, Any]]:
    """Write an index and what was compared of it; answers what Orthanc would list."""
    await fill(stage.database, IndexSize(studies=_STUDIES))
    series = await stage.database["series"].find().sort("_id").to_list()
    listings = [
        {
            "ID": one["orthancStudyId"],
            "ParentPatient": one["orthancPatientId"],
            "Series": [one["_id"]],
            "LastUpdate": "20260101T000000",
            "IsStable": True,
        }
        for one in series
    ]
    await stage.database["comparedStudies"].insert_many(
        {
            "_id": one["ID"],
            "lastUpdate": one["LastUpdate"],
            "studyVersion": "made",
            "indexVersion": INDEX_VERSION,
        }
        for one in listings
    )
    return listings


async def _import() -> list[Row]:
    files = list(ct_files(_IMPORTED))
    times = [await _import_once(files) for _ in range(_IMPORT_RUNS)]
    direct, first, second = (statistics.median(taken) for taken in zip(*times, strict=True))
    return [
        Row(
            case=f"import {_IMPORTED} CT files, {_AT_ONCE} at a time",
            ours_seconds=first,
            rival=f"POST /instances, {_AT_ONCE} at a time",
            rival_seconds=direct,
            goal=0.8,
        ),
        Row(
            case=f"import the same {_IMPORTED} files again",
            ours_seconds=second,
            rival="the first run",
            rival_seconds=first,
            goal=5,
        ),
    ]


async def _import_once(files: Sequence[bytes]) -> tuple[float, float, float]:
    """Return the seconds of posting straight to Orthanc, of an import, and of another one."""
    async with _fresh() as stage:
        direct = await seconds_of(lambda: stage.send(files))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "files"
        await asyncio.to_thread(_write, root, files)
        async with _fresh() as stage:
            with Journal(Path(folder) / "journal.sqlite3") as journal:
                first = await seconds_of(lambda: _imported(stage, journal, root))
                second = await seconds_of(lambda: _imported(stage, journal, root))
    return direct, first, second


def _write(root: Path, files: Sequence[bytes]) -> None:
    root.mkdir()
    for number, content in enumerate(files):
        (root / f"{number:04}.dcm").write_bytes(content)


async def _imported(stage: Stage, journal: Journal, root: Path) -> None:
    storage = FileStorage(stage.orthanc, stage.files, stage.indexer.index, WalkLimits())
    ingest = Ingest(storage, limits=ArchiveLimits(), concurrency=_AT_ONCE)
    importing = ImportRun(
        ingest, stage.database, journal, concurrency=_AT_ONCE, limits=WalkLimits()
    )
    async for outcome in importing.outcomes([root]):
        assert not outcome.failed, outcome


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
