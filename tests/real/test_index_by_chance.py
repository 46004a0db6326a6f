"""The index after arrivals, replacements, removals and crashes by chance, beside a plain model.

The model knows nothing but the instances that are stored, and computes from them in a few plain
lines what every parent says. The index must say the same after every step, on a real MongoDB.
"""

import asyncio
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from pymongo.asynchronous.database import AsyncDatabase

from services.database import open_database
from services.dicom.header import (
    ImageModule,
    InstanceHeader,
    PatientModule,
    SeriesModule,
    StudyModule,
)
from services.embedded.mongod import EmbeddedMongod
from services.index import indexer as indexing
from services.index import rollup
from services.index.indexer import Indexer
from services.index.optimistic_locking import update_until_stable
from services.index.record import IndexRecord
from services.index.rollup import roll_up
from services.orthanc.identifiers import OrthancIds, orthanc_ids
from services.sync.rollup_check import RollUps

_BEGIN = datetime(2026, 1, 2, tzinfo=UTC)

Place = tuple[int, int, int, int]
"""Number of the patient, of the study, of the series, of the instance."""

_places = st.tuples(*(st.integers(0, most) for most in (1, 1, 1, 3)))


@dataclass(frozen=True, slots=True)
class File:
    """What one file says that others of its study may contradict."""

    name: str | None
    birth_date: str | None
    sex: str | None
    issuer: str | None
    accession_number: str | None
    modality: str | None
    frames: int


_files = st.builds(
    File,
    name=st.sampled_from(["Huber^Maria", "HUBER^MARIA", "Huber^Maria=胡伯", "Eve", None]),
    birth_date=st.sampled_from(["1950-01-01", "2001-01-01", None]),
    sex=st.sampled_from(["F", "M", None]),
    issuer=st.sampled_from(["A", "B", None]),
    accession_number=st.sampled_from(["ACC1", "ACC9", None]),
    modality=st.sampled_from(["CT", "SR"]),
    frames=st.integers(0, 2),
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored instance of the model: its file, and which step brought it."""

    file: File
    at: datetime
    revision: int


def ids_of(place: Place) -> OrthancIds:
    patient, study, series, instance = place
    uid = f"1.{study}"
    return orthanc_ids(f"P{patient}", uid, f"{uid}.{series}", f"{uid}.{series}.{instance}")


def record_of(place: Place, file: File, revision: int) -> IndexRecord:
    patient, study, series, instance = place
    uid = f"1.{study}"
    return IndexRecord(
        header=InstanceHeader(
            patient=PatientModule(
                patient_id=f"P{patient}",
                patient_name=file.name,
                patient_birth_date=file.birth_date,
                patient_sex=file.sex,
                issuer_of_patient_id=file.issuer,
            ),
            study=StudyModule(study_instance_uid=uid, accession_number=file.accession_number),
            series=SeriesModule(
                series_instance_uid=f"{uid}.{series}", series_number=series, modality=file.modality
            ),
            image=ImageModule(has_pixel_data=file.frames > 0),
            sop_instance_uid=f"{uid}.{series}.{instance}",
            instance_number=instance,
        ),
        ids=ids_of(place),
        revision=f"{revision:08x}",
        file_size_bytes=1,
        number_of_frames=file.frames,
        not_renderable_reason=None,
    )


Model = dict[Place, Stored]
Person = tuple[str | None, str | None, str | None, str | None]


def person_of(file: File) -> Person:
    return file.name, file.birth_date, file.sex, file.issuer


def contradict(one: Person, other: Person) -> bool:
    """Compare as a person would; the only two spellings here differ by case or by a group."""
    names = [(person[0] or "").casefold().split("=") for person in (one, other)]
    groups = zip(*names, strict=False)
    pairs = [*groups, *zip(one[1:], other[1:], strict=True)]
    return any(a and b and a != b for a, b in pairs)


def winner(stored: Iterable[Stored], value: Callable[[File], str | None]) -> str | None:
    """Return the value of most files, then of the latest, then the first by alphabet."""
    counts: Counter[str] = Counter()
    latest: dict[str, datetime] = {}
    for one in stored:
        if (said := value(one.file)) is not None:
            counts[said] += 1
            latest[said] = max(one.at, latest.get(said, one.at))
    ordered = sorted(counts)
    ordered.sort(key=lambda said: (counts[said], latest[said]), reverse=True)
    return next(iter(ordered), None)


def candidates(stored: Iterable[Stored]) -> list[tuple[Person, int, datetime]]:
    grouped: defaultdict[Person, list[datetime]] = defaultdict(list)
    for one in stored:
        grouped[person_of(one.file)].append(one.at)
    return [(person, len(times), max(times)) for person, times in grouped.items()]


@dataclass(frozen=True, slots=True)
class Stage:
    """The database of a test, and the event loop that it is used in."""

    database: AsyncDatabase[dict[str, Any]]
    runner: asyncio.Runner


class Index(RuleBasedStateMachine):
    """Files come, are replaced and go; commits break off; the index is what the model says."""

    stage: Stage

    def __init__(self) -> None:
        super().__init__()
        self.model: Model = {}
        self.revision = 0
        self.time = _BEGIN
        self.indexer = Indexer(self.stage.database, clock=self.now)

    @initialize()
    def empty(self) -> None:
        """Begin with nothing: making a database takes longer than a whole run."""
        self.stage.runner.run(self._empty())

    async def _empty(self) -> None:
        for name in ("patients", "studies", "series", "instances"):
            await self.stage.database[name].delete_many({})

    def now(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time

    @rule(arrivals=st.dictionaries(_places, _files, min_size=1, max_size=6))
    def arrive(self, arrivals: dict[Place, File]) -> None:
        """Files that are new, or replace others of the same identifiers."""
        self.stage.runner.run(self.indexer.index(self._records(arrivals)))
        self._take(arrivals)

    @rule(arrivals=st.dictionaries(_places, _files, min_size=1, max_size=6), step=st.integers(0, 3))
    def crash(self, arrivals: dict[Place, File], step: int) -> None:
        """A commit ends after its instances and some levels were written; then it is repeated."""
        records = self._records(arrivals)
        with pytest.MonkeyPatch.context() as patch:
            _break_after(step, patch)
            with pytest.raises(_Crash):
                self.stage.runner.run(self.indexer.index(records))
        self._take(arrivals)
        self.stage.runner.run(self.indexer.index(records))

    @rule(places=st.lists(_places, max_size=5), step=st.integers(0, 3))
    def crash_removal(self, places: list[Place], step: int) -> None:
        """A removal breaks off; what the next comparison with Orthanc looks at is repaired."""
        with pytest.MonkeyPatch.context() as patch:
            _break_after(step, patch)
            with pytest.raises(_Crash):
                self.stage.runner.run(self._remove(places))
        studies = {ids_of(place).study for place in [*places, *self.model]}
        self._forget(places)
        self.stage.runner.run(self._repair(studies))

    async def _repair(self, studies: set[str]) -> None:
        roll_ups = RollUps(self.stage.database)
        await roll_ups.roll_up(studies)
        await roll_ups.roll_up_patients()

    @rule(places=st.lists(_places, min_size=1, max_size=5))
    def remove(self, places: list[Place]) -> None:
        """Instances go; some are not there."""
        self.stage.runner.run(self._remove(places))
        self._forget(places)

    @rule()
    def index_again(self) -> None:
        """What is stored is indexed once more, as a repeated page of the change feed does."""
        records = [record_of(place, one.file, one.revision) for place, one in self.model.items()]
        before = self.stage.runner.run(self._studies())
        self.stage.runner.run(self.indexer.index(records))
        assert self.stage.runner.run(self._studies()) == before

    async def _remove(self, places: list[Place]) -> None:
        await self.indexer.remove([ids_of(place).instance for place in places] or ["unknown"])

    def _records(self, arrivals: dict[Place, File]) -> list[IndexRecord]:
        self.revision += 1
        return [record_of(place, file, self.revision) for place, file in arrivals.items()]

    def _take(self, arrivals: dict[Place, File]) -> None:
        # The commit looked at the clock once.
        for place, file in arrivals.items():
            self.model[place] = Stored(file, self.time, self.revision)

    def _forget(self, places: list[Place]) -> None:
        for place in places:
            self.model.pop(place, None)

    async def _studies(self) -> list[dict[str, Any]]:
        return await self.stage.database["studies"].find({}).sort("_id").to_list()

    @invariant()
    def says_what_is_stored(self) -> None:
        studies, patients, series = self.stage.runner.run(self._read())
        self._check_series(series)
        for study in studies.values():
            self._check_study(study)
        members = defaultdict(list)
        for place in self.model:
            members[ids_of(place).study].append(place)
        assert studies.keys() == members.keys()
        by_patient: defaultdict[str, set[str]] = defaultdict(set)
        for place in self.model:
            by_patient[ids_of(place).patient].add(ids_of(place).study)
        assert {id_: one["numberOfStudies"] for id_, one in patients.items()} == {
            id_: len(of_patient) for id_, of_patient in by_patient.items()
        }
        for id_, of_patient in by_patient.items():
            self._check_patient(patients[id_], [studies[study] for study in of_patient])

    async def _read(self) -> list[dict[str, dict[str, Any]]]:
        return [
            {one["_id"]: one async for one in self.stage.database[name].find({})}
            for name in ("studies", "patients", "series")
        ]

    def _stored(self, level: str, id_: str) -> list[Stored]:
        return [one for place, one in self.model.items() if getattr(ids_of(place), level) == id_]

    def _check_series(self, series: dict[str, dict[str, Any]]) -> None:
        assert series.keys() == {ids_of(place).series for place in self.model}
        for id_, one in series.items():
            stored = self._stored("series", id_)
            assert one["numberOfInstances"] == len(stored)
            assert one["numberOfFrames"] == sum(item.file.frames for item in stored)
            assert one["modality"] == winner(stored, lambda file: file.modality)

    def _check_study(self, study: dict[str, Any]) -> None:
        stored = self._stored("study", study["_id"])
        accession_numbers = {one.file.accession_number for one in stored} - {None}
        assert study["numberOfInstances"] == len(stored)
        assert study["accessionNumber"] == winner(stored, lambda file: file.accession_number)
        assert set(study["accessionNumbers"]) == accession_numbers
        for one in stored:
            for word in (one.file.name or "").casefold().replace("^", " ").split("=")[0].split():
                assert any(known.startswith(word) for known in study["nameWords"])
                assert any(known.startswith(word) for known in study["searchWords"])
        self._check_person(study, stored)

    def _check_person(self, study: dict[str, Any], stored: list[Stored]) -> None:
        shown = tuple(
            study[name]
            for name in ("patientName", "patientBirthDate", "patientSex", "issuerOfPatientID")
        )
        said = candidates(stored)

        def support(person: Person) -> int:
            return sum(count for other, count, _ in said if not contradict(person, other))

        best = max((support(person), count, latest) for person, count, latest in said)
        winners = [
            person for person, count, latest in said if (support(person), count, latest) == best
        ]
        # Files of one commit may tie: then one of them is shown, whole.
        assert any(
            all(mine is None or mine == theirs for mine, theirs in zip(person, shown, strict=True))
            for person in winners
        )
        # Whatever else is shown comes from files that contradict nothing that is shown.
        for position, value in enumerate(shown):
            sources = [person for person, *_ in said if person[position] == value]
            assert value is None or any(not contradict(one, shown) for one in sources)

    def _check_patient(self, patient: dict[str, Any], studies: list[dict[str, Any]]) -> None:
        people = [person_of(one.file) for one in self._stored("patient", patient["_id"])]
        is_conflict = any(contradict(one, other) for one, other in combinations(people, 2))
        assert patient["hasConflictingDemographics"] is is_conflict
        latest = max(studies, key=lambda study: (study["latestIndexedAt"], study["_id"]))
        names = ("patientName", "patientBirthDate", "patientSex", "issuerOfPatientID")
        newest = max(study["latestIndexedAt"] for study in studies)
        assert [patient[name] for name in names] in [
            [study[name] for name in names]
            for study in studies
            if study["latestIndexedAt"] == newest
        ]
        assert latest["patientID"] == patient["patientID"]


class _Crash(Exception):
    pass


def _break_after(step: int, patch: pytest.MonkeyPatch) -> None:
    """Let a commit or removal end after its instances and so many levels above were written."""
    levels = iter(range(step))

    async def settle_some(*args: Any, **kwargs: Any) -> set[str]:
        if next(levels, None) is None:
            raise _Crash
        return await update_until_stable(*args, **kwargs)

    async def roll_up_some(*args: Any, **kwargs: Any) -> None:
        await roll_up(*args, **kwargs)
        raise _Crash

    patch.setattr(rollup, "update_until_stable", settle_some)
    patch.setattr(indexing, "roll_up", roll_up_some)


@pytest.mark.no_cover
def test_the_index_says_what_is_stored(mongodb: EmbeddedMongod) -> None:
    async def open_() -> AsyncDatabase[dict[str, Any]]:
        return await stack.enter_async_context(open_database(mongodb.url, name))

    async def close() -> None:
        await Index.stage.database.client.drop_database(name)
        await stack.aclose()

    name, stack = f"test_{secrets.token_hex(6)}", AsyncExitStack()
    with asyncio.Runner() as runner:
        Index.stage = Stage(runner.run(open_()), runner)
        try:
            run_state_machine_as_test(
                Index,
                settings=settings(
                    max_examples=25,
                    stateful_step_count=15,
                    deadline=None,
                    # Shrinking takes minutes: take it in when a run fails.
                    phases=[Phase.generate],
                    print_blob=True,
                ),
            )
        finally:
            runner.run(close())
