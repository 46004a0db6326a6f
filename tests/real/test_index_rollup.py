"""The index against a real MongoDB: what is stored, what is counted, and what races leave."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from bson import BSON
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from models import StudyDocument
from services.database import open_database
from services.dicom.header import (
    ImageModule,
    InstanceHeader,
    PatientModule,
    SeriesModule,
    StudyModule,
)
from services.embedded.mongod import EmbeddedMongod
from services.errors import DatabaseUnavailable, RecordRefused
from services.index.indexer import Indexer
from services.index.record import INDEX_VERSION, IndexRecord
from services.orthanc.identifiers import orthanc_ids
from services.sync.rollup_check import RollUps

Database = AsyncDatabase[dict[str, Any]]
START = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


class Clock:
    """Every look at it is a second later."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture
async def database(mongodb: EmbeddedMongod, database_name: str) -> AsyncIterator[Database]:
    async with open_database(mongodb.url, database_name) as opened:
        yield opened


@pytest.fixture
def indexer(database: Database) -> Indexer:
    return Indexer(database, clock=Clock())


def entry(
    instance: int = 1,
    *,
    series: int = 1,
    study: int = 1,
    patient: str = "P1",
    name: str | None = "Doe^John",
    birth_date: str | None = "1970-01-02",
    frames: int = 1,
    revision: str = "00000001",
    modality: str | None = "CT",
    description: str | None = "Thorax",
    accession_number: str | None = "A1",
) -> IndexRecord:
    study_uid, series_uid = f"1.2.{study}", f"1.2.{study}.{series}"
    sop_uid = f"{series_uid}.{instance}"
    header = InstanceHeader(
        patient=PatientModule(
            patient_id=patient, patient_name=name, patient_birth_date=birth_date, patient_sex="M"
        ),
        study=StudyModule(
            study_instance_uid=study_uid,
            study_date="2020-05-06",
            study_time="07:08:09",
            study_description=description,
            accession_number=accession_number,
        ),
        series=SeriesModule(
            series_instance_uid=series_uid, series_number=series, modality=modality
        ),
        image=ImageModule(has_pixel_data=frames > 0, rows=4, columns=6),
        sop_instance_uid=sop_uid,
        instance_number=instance,
    )
    return IndexRecord(
        header=header,
        ids=orthanc_ids(patient, study_uid, series_uid, sop_uid),
        revision=revision,
        file_size_bytes=1000,
        number_of_frames=frames,
        not_renderable_reason=None if frames else "Its pixel data is missing.",
    )


async def dump(database: Database) -> dict[str, list[dict[str, Any]]]:
    return {
        name: [document async for document in database[name].find().sort("_id")]
        for name in ("patients", "studies", "series", "instances")
    }


async def test_first_instance_makes_a_complete_tree(database: Database, indexer: Indexer) -> None:
    one = entry(frames=5)
    await indexer.index([one])
    stored = await dump(database)
    now = START + timedelta(seconds=1)
    for documents in stored.values():
        for document in documents:
            assert len(document.pop("version")) == 16
    thumbnail = {
        "orthancInstanceId": one.ids.instance,
        "revision": "00000001",
        "frameIndex": 2,
    }
    demographics = {
        "patientName": "Doe^John",
        "patientBirthDate": "1970-01-02",
        "patientSex": "M",
    }
    study_attributes = {
        **demographics,
        "patientID": "P1",
        "studyInstanceUID": "1.2.1",
        "studyDate": "2020-05-06",
        "studyTime": "07:08:09",
        "studyDescription": "Thorax",
        "accessionNumber": "A1",
    }
    assert stored["patients"] == [
        {
            "_id": one.ids.patient,
            "patientID": "P1",
            "patientName": "Doe^John",
            "patientBirthDate": "1970-01-02",
            "patientSex": "M",
            "issuerOfPatientID": None,
            "numberOfStudies": 1,
            "hasConflictingDemographics": False,
            "nameWords": ["doejohn", "john"],
            "orderPatientName": "doe^john",
        }
    ]
    assert stored["studies"] == [
        {
            "_id": one.ids.study,
            "orthancPatientId": one.ids.patient,
            "patientID": "P1",
            "patientName": "Doe^John",
            "patientBirthDate": "1970-01-02",
            "patientSex": "M",
            "issuerOfPatientID": None,
            "studyInstanceUID": "1.2.1",
            "studyID": None,
            "studyDate": "2020-05-06",
            "studyTime": "07:08:09",
            "studyDescription": "Thorax",
            "accessionNumber": "A1",
            "referringPhysicianName": None,
            "institutionName": None,
            "patientAge": None,
            "numberOfSeries": 1,
            "numberOfInstances": 1,
            "numberOfFrames": 5,
            "totalBytes": 1000,
            "modalitiesInStudy": ["CT"],
            "demographicsOfFiles": [demographics],
            "accessionNumbers": ["A1"],
            "thumbnail": thumbnail,
            "nameWords": ["doejohn", "john"],
            "searchWords": ["a1", "doejohn", "john", "p1", "thorax"],
            "facets": ["hasFrames:true", "patientSex:m", "studyDescription:thorax"],
            "orderStudyDate": "2020-05-06T07:08:09",
            "orderPatientName": "doe^john",
            "orderAccessionNumber": "A1",
            "createdAt": now,
            "updatedAt": now,
            "latestIndexedAt": now,
        }
    ]
    assert stored["series"] == [
        {
            "_id": one.ids.series,
            "orthancStudyId": one.ids.study,
            "orthancPatientId": one.ids.patient,
            "seriesInstanceUID": "1.2.1.1",
            "seriesNumber": 1,
            "modality": "CT",
            "seriesDescription": None,
            "bodyPartExamined": None,
            "protocolName": None,
            "manufacturer": None,
            "seriesDate": None,
            "seriesTime": None,
            "performingPhysicianName": None,
            "stationName": None,
            "numberOfInstances": 1,
            "numberOfFrames": 5,
            "totalBytes": 1000,
            "stackOrder": "numberKey",
            "studyStatements": [
                {
                    "attributes": study_attributes,
                    "numberOfInstances": 1,
                    "latestIndexedAt": now,
                }
            ],
            "thumbnail": thumbnail,
            "hasPrimaryFrames": True,
            "latestIndexedAt": now,
        }
    ]
    instance = stored["instances"][0]
    assert instance["_id"] == one.ids.instance
    assert instance["indexedAt"] == now
    assert instance["useOrthancPreview"] is True
    assert instance["numberOfFrames"] == 5
    assert (instance["rows"], instance["columns"]) == (4, 6)
    assert instance["studyAttributes"] == study_attributes
    assert instance["seriesAttributes"] == {
        "seriesInstanceUID": "1.2.1.1",
        "seriesNumber": 1,
        "modality": "CT",
    }
    assert instance["indexVersion"] == INDEX_VERSION


async def test_beanie_reads_what_the_indexer_wrote(database: Database, indexer: Indexer) -> None:
    one = entry()
    await indexer.index([one])
    study = await StudyDocument.get(one.ids.study)
    assert study is not None
    assert study.study_instance_uid == "1.2.1"
    assert study.thumbnail is not None
    assert study.updated_at.tzinfo is not None
    assert database.name == StudyDocument.get_pymongo_collection().database.name


async def test_indexing_again_changes_nothing(database: Database, indexer: Indexer) -> None:
    entries = [entry(1), entry(2), entry(1, series=2, modality="SR", frames=0)]
    await indexer.index(entries)
    before = await dump(database)
    await indexer.index(entries)
    await indexer.index([entries[0]])
    assert await dump(database) == before


async def test_a_replaced_file_shows_in_revision_and_times(
    database: Database, indexer: Indexer
) -> None:
    await indexer.index([entry()])
    await indexer.index([entry(revision="00000002", description="Abdomen")])
    stored = await dump(database)
    study, instance = stored["studies"][0], stored["instances"][0]
    later = START + timedelta(seconds=2)
    assert (instance["revision"], instance["indexedAt"]) == ("00000002", later)
    assert (study["updatedAt"], study["latestIndexedAt"]) == (later, later)
    assert study["createdAt"] == START + timedelta(seconds=1)
    assert study["studyDescription"] == "Abdomen"
    assert "abdomen" in study["searchWords"]
    assert study["thumbnail"]["revision"] == "00000002"


async def test_the_switch_for_previews_survives_a_replacement(
    database: Database, indexer: Indexer
) -> None:
    one = entry()
    await indexer.index([one])
    await database["instances"].update_one(
        {"_id": one.ids.instance}, {"$set": {"useOrthancPreview": False}}
    )
    await indexer.index([replace(one, revision="00000002")])
    assert (await dump(database))["instances"][0]["useOrthancPreview"] is False


async def test_middle_frames_stand_for_series_and_study(
    database: Database, indexer: Indexer
) -> None:
    entries = [
        entry(1, series=1, frames=0, modality="SR"),
        entry(3, series=2, frames=1),
        entry(1, series=2, frames=2),
        entry(2, series=2, frames=6),
        entry(1, series=3, frames=1),
    ]
    await indexer.index(entries)
    stored = await dump(database)
    thumbnails = {one["seriesNumber"]: one["thumbnail"] for one in stored["series"]}
    middle = {
        "orthancInstanceId": entries[3].ids.instance,
        "revision": "00000001",
        "frameIndex": 2,
    }
    assert thumbnails[1] is None
    assert thumbnails[2] == middle
    assert thumbnails[3]["orthancInstanceId"] == entries[4].ids.instance
    assert stored["studies"][0]["thumbnail"] == middle
    assert stored["studies"][0]["modalitiesInStudy"] == ["CT", "SR"]
    assert stored["studies"][0]["numberOfFrames"] == 10


SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.mark.parametrize(
    ("first_series", "is_chosen"),
    [
        ({"modality": "CT"}, True),
        ({"modality": "OT"}, False),
        ({"modality": "DOC"}, False),
        ({"modality": "CT", "sop_class_uid": SECONDARY_CAPTURE}, False),
        ({"modality": "CT", "sop_class_uid": f"{SECONDARY_CAPTURE}.4"}, False),
        ({"modality": "CT", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.77.1.4"}, True),
        ({"modality": "CT", "image_type": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, False),
    ],
)
async def test_a_study_is_shown_by_a_series_of_the_patient_where_there_is_one(
    database: Database, indexer: Indexer, first_series: dict[str, Any], *, is_chosen: bool
) -> None:
    first, second = entry(series=1, modality=first_series["modality"]), entry(series=2)
    header = first.header
    if "sop_class_uid" in first_series:
        header = replace(header, sop_class_uid=first_series["sop_class_uid"])
    await indexer.index([replace(first, header=header)])
    await database["instances"].update_one(
        {"_id": first.ids.instance}, {"$set": {"imageType": first_series.get("image_type", [])}}
    )
    await indexer.index([entry(9, series=1, modality=first_series["modality"], frames=0)])
    [study] = (await dump(database))["studies"]
    # There is no other yet.
    assert study["thumbnail"]["orthancInstanceId"] == first.ids.instance
    await indexer.index([second])
    [study] = (await dump(database))["studies"]
    chosen = first if is_chosen else second
    assert study["thumbnail"]["orthancInstanceId"] == chosen.ids.instance


async def test_patient_shows_the_study_that_came_last_and_flags_conflicts(
    database: Database, indexer: Indexer
) -> None:
    await indexer.index([entry(study=1, name="Doe^John")])
    await indexer.index([entry(study=2, name=None, birth_date=None)])
    assert (await dump(database))["patients"][0]["hasConflictingDemographics"] is False
    await indexer.index([entry(study=3, name="Roe^Jane")])
    patient = (await dump(database))["patients"][0]
    assert patient["hasConflictingDemographics"] is True
    assert patient["patientName"] == "Roe^Jane"
    assert patient["nameWords"] == ["doejohn", "jane", "john", "roejane"]
    assert patient["numberOfStudies"] == 3
    await indexer.remove([entry(study=3).ids.instance])
    patient = (await dump(database))["patients"][0]
    assert (patient["hasConflictingDemographics"], patient["numberOfStudies"]) == (False, 2)


def shown(study: dict[str, Any]) -> tuple[Any, ...]:
    names = ("patientName", "patientBirthDate", "accessionNumber", "studyDescription")
    return tuple(study[name] for name in names)


async def test_one_wrong_file_does_not_rename_a_study_and_leaves_nothing_behind(
    database: Database, indexer: Indexer
) -> None:
    right = [entry(number, name="Huber^Maria", birth_date="1950-01-01") for number in range(20)]
    await indexer.index(right)
    before = await dump(database)
    wrong = entry(
        20,
        name="Attacker^Eve",
        birth_date="2001-01-01",
        description="Skull",
        accession_number="ACC9",
    )
    await indexer.index([wrong])
    stored = await dump(database)
    [study], [patient] = stored["studies"], stored["patients"]
    assert shown(study) == ("Huber^Maria", "1950-01-01", "A1", "Thorax")
    assert study["accessionNumbers"] == ["A1", "ACC9"]
    assert {"hubermaria", "attackereve"} <= set(study["nameWords"])
    assert {"hubermaria", "attackereve", "a1", "acc9", "thorax", "skull"} <= set(
        study["searchWords"]
    )
    assert patient["patientName"] == "Huber^Maria"
    assert patient["hasConflictingDemographics"] is True
    assert {"hubermaria", "attackereve"} <= set(patient["nameWords"])
    await indexer.remove([wrong.ids.instance])
    after = await dump(database)
    for documents in (*before.values(), *after.values()):
        for document in documents:
            document.pop("version")
            document.pop("updatedAt", None)
    assert after == before


async def test_a_study_that_most_files_describe_otherwise_says_what_they_say(
    database: Database, indexer: Indexer
) -> None:
    await indexer.index([entry(1, name="Wrong^Name", series=1)])
    await indexer.index([entry(number, series=2) for number in (1, 2)])
    [study] = (await dump(database))["studies"]
    assert study["patientName"] == "Doe^John"
    await indexer.remove([entry(number, series=2).ids.instance for number in (1, 2)])
    stored = await dump(database)
    assert stored["studies"][0]["patientName"] == "Wrong^Name"
    assert stored["patients"][0]["patientName"] == "Wrong^Name"
    assert stored["patients"][0]["hasConflictingDemographics"] is False


async def test_files_that_all_differ_do_not_make_a_document_outgrow_its_limits(
    database: Database, indexer: Indexer
) -> None:
    await indexer.index([entry(number) for number in range(3)])
    for start in range(3, 903, 300):
        await indexer.index(
            [
                entry(number, name=f"{number:04}{'x' * 900}", description=f"{number:04}" * 200)
                for number in range(start, start + 300)
            ]
        )
    stored = await dump(database)
    [study], [series] = stored["studies"], stored["series"]
    assert study["patientName"] == "Doe^John"
    assert (study["numberOfInstances"], series["numberOfInstances"]) == (903, 903)
    assert "doejohn" in study["nameWords"]
    assert max(len(BSON.encode(one)) for one in (study, series)) < 1_000_000


async def test_a_file_without_description_does_not_take_it_away(
    database: Database, indexer: Indexer
) -> None:
    await indexer.index([entry(1)])
    await indexer.index([entry(2, description=None)])
    assert (await dump(database))["studies"][0]["studyDescription"] == "Thorax"


async def test_removing_the_last_instance_removes_all_its_parents(
    database: Database, indexer: Indexer
) -> None:
    first, second, other = entry(1), entry(1, series=2), entry(1, study=9, patient="P9")
    await indexer.index([first, second, other])
    assert await indexer.remove([first.ids.instance, first.ids.instance, "unknown"]) == 1
    stored = await dump(database)
    assert [one["_id"] for one in stored["series"]] == sorted([second.ids.series, other.ids.series])
    study = next(one for one in stored["studies"] if one["_id"] == second.ids.study)
    assert (study["numberOfSeries"], study["numberOfInstances"]) == (1, 1)
    assert await indexer.remove([second.ids.instance]) == 1
    stored = await dump(database)
    assert {name: [one["_id"] for one in documents] for name, documents in stored.items()} == {
        "patients": [other.ids.patient],
        "studies": [other.ids.study],
        "series": [other.ids.series],
        "instances": [other.ids.instance],
    }


async def test_a_roll_up_repairs_what_a_crash_left(database: Database, indexer: Indexer) -> None:
    roll_ups, entries = RollUps(database), [entry(1), entry(2)]
    await indexer.index(entries)
    await database["instances"].delete_one({"_id": entries[0].ids.instance})
    await roll_ups.roll_up([entries[0].ids.study])
    assert (await dump(database))["studies"][0]["numberOfInstances"] == 1
    await database["instances"].delete_many({})
    await roll_ups.roll_up([entries[0].ids.study])
    assert await dump(database) == {"patients": [], "studies": [], "series": [], "instances": []}


async def test_many_callers_of_two_indexers_leave_right_counts(database: Database) -> None:
    first, second = Indexer(database), Indexer(database)
    entries = [entry(number, series=number % 3, study=1) for number in range(1, 121)]
    await asyncio.gather(
        *((first, second)[number % 2].index([one]) for number, one in enumerate(entries))
    )
    stored = await dump(database)
    assert stored["studies"][0]["numberOfInstances"] == 120
    assert sorted(one["numberOfInstances"] for one in stored["series"]) == [40, 40, 40]
    assert stored["patients"][0]["numberOfStudies"] == 1


async def test_indexing_and_removing_at_once_leaves_what_is_stored(database: Database) -> None:
    first, second = Indexer(database), Indexer(database)
    for _ in range(10):
        entries = [entry(number) for number in range(1, 11)]
        await first.index(entries[:5])
        await asyncio.gather(
            first.remove([one.ids.instance for one in entries[:5]]),
            *(second.index([one]) for one in entries[5:]),
        )
        stored = await dump(database)
        assert stored["series"][0]["numberOfInstances"] == 5
        assert stored["studies"][0]["numberOfInstances"] == 5
        await asyncio.gather(
            first.remove([one.ids.instance for one in entries[5:8]]),
            second.remove([one.ids.instance for one in entries[8:]]),
        )
        assert (await dump(database))["patients"] == []


async def test_a_cancelled_caller_does_not_hurt_the_others(
    database: Database, indexer: Indexer
) -> None:
    callers = [asyncio.create_task(indexer.index([entry(number)])) for number in range(1, 6)]
    await asyncio.sleep(0)
    callers[2].cancel()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(outcomes.pop(2), asyncio.CancelledError)
    assert outcomes == [frozenset()] * 4
    assert (await dump(database))["studies"][0]["numberOfInstances"] in (4, 5)


async def test_callers_at_once_share_a_commit(database: Database, indexer: Indexer) -> None:
    await asyncio.gather(*(indexer.index([entry(number)]) for number in range(1, 31)))
    times = {one["indexedAt"] for one in (await dump(database))["instances"]}
    assert len(times) <= 2


async def test_every_caller_learns_that_mongodb_is_away() -> None:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
        "mongodb://127.0.0.1:1", serverSelectionTimeoutMS=50
    )
    async with client:
        broken = Indexer(client["nowhere"])
        outcomes = await asyncio.gather(
            *(broken.index([entry(number)]) for number in range(3)), return_exceptions=True
        )
    assert [type(outcome) for outcome in outcomes] == [DatabaseUnavailable] * 3


@pytest.mark.no_cover
async def test_what_mongodb_can_never_hold_does_not_fail_its_neighbours(
    database: Database, indexer: Indexer
) -> None:
    huge = entry(2, study=2, patient="P2", description="D" * (17 * 1024 * 1024))
    first = asyncio.create_task(indexer.index([entry(1)]))
    outcomes = await asyncio.gather(
        first,
        indexer.index([huge]),
        indexer.index([entry(3, study=3, patient="P3")]),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [frozenset, RecordRefused, frozenset]
    studies = {study["studyInstanceUID"] for study in (await dump(database))["studies"]}
    assert {"1.2.1", "1.2.3"} <= studies


async def test_ids_that_are_alike_at_two_levels_are_told_apart(
    database: Database, indexer: Indexer
) -> None:
    one = entry()
    # Orthanc joins what it hashes by this sign, so a PatientID can name a study or an instance.
    patients = ["P1|1.2.1", "P1|1.2.1|1.2.1.1", "P1|1.2.1|1.2.1.1|1.2.1.1.1"]
    others = [entry(study=at, patient=patient) for at, patient in enumerate(patients, start=2)]
    assert [other.ids.patient for other in others] == [
        one.ids.study,
        one.ids.series,
        one.ids.instance,
    ]
    await indexer.index([one, *others])
    stored = await dump(database)
    assert [len(documents) for documents in stored.values()] == [4, 4, 4, 4]
    await indexer.index([one, *others])
    assert await dump(database) == stored


async def test_what_is_kept_of_instances_is_forgotten_only_when_they_change(
    database: Database,
) -> None:
    forgotten: list[str] = []
    indexer = Indexer(database, on_changed=forgotten.extend)
    kept, replaced = entry(1), entry(2)
    await indexer.index([kept, replaced])
    assert forgotten == []
    await indexer.index([kept, entry(2, revision="00000002"), entry(3)])
    assert forgotten == [replaced.ids.instance]
    await indexer.remove([kept.ids.instance])
    assert forgotten == [replaced.ids.instance, kept.ids.instance]


def _never_stored() -> Iterator[tuple[str, IndexRecord]]:
    refused = entry(2, study=2, patient="P2")
    yield "a number beyond 64 bits", replace(refused, file_size_bytes=2**63)
    yield "half a surrogate pair", replace(refused, not_renderable_reason="\ud800")
    yield "what the collection's rules forbid", replace(refused, not_renderable_reason="forbidden")


@pytest.mark.parametrize("refused", [pytest.param(one, id=name) for name, one in _never_stored()])
async def test_what_mongodb_does_not_take_does_not_fail_its_neighbours(
    refused: IndexRecord, database: Database, indexer: Indexer
) -> None:
    rule = {"notRenderableReason": {"$ne": "forbidden"}}
    await database.command("collMod", "instances", validator=rule)
    outcomes = await asyncio.gather(
        indexer.index([entry(1)]),
        indexer.index([refused]),
        indexer.index([entry(3, study=3, patient="P3")]),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [frozenset, RecordRefused, frozenset]
    assert str(outcomes[1]) == "This can't be indexed: the database does not accept its record."
    stored = await dump(database)
    assert {study["studyInstanceUID"] for study in stored["studies"]} == {"1.2.1", "1.2.3"}
    assert len(stored["instances"]) == 2


async def test_a_fault_that_nobody_expected_does_not_fail_its_neighbours(
    database: Database, indexer: Indexer
) -> None:
    unexpected = replace(entry(2, study=2), header=cast("InstanceHeader", None))
    outcomes = await asyncio.gather(
        indexer.index([entry(1)]), indexer.index([unexpected]), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [frozenset, AttributeError]
    assert len((await dump(database))["studies"]) == 1


async def test_pictures_of_new_and_of_unchanged_instances_are_kept(database: Database) -> None:
    discarded: list[str] = []
    indexer = Indexer(database, clock=Clock(), on_changed=discarded.extend)
    await indexer.index([entry(1), entry(2)])
    await indexer.index([entry(1), entry(2)])
    await indexer.index([entry(3)])
    assert discarded == []
    await indexer.index([entry(4), entry(1, revision="00000002")])
    assert discarded == [entry(1).ids.instance]
    await indexer.remove([entry(2).ids.instance])
    assert discarded[1:] == [entry(2).ids.instance]
