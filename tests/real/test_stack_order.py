"""The order of a stack: what is indexed, and read again in pages, trees and frames."""

import base64
import json
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from models import InstanceDocument
from models.instance import INSTANCE_ORDERS
from services.auth.scope import ALL
from services.dicom.header import (
    AcquisitionModule,
    GeometryModule,
    ImageModule,
    InstanceHeader,
    PatientModule,
    SeriesModule,
    StudyModule,
)
from services.embedded.mongod import EmbeddedMongod
from services.frames.records import find_following
from services.index.indexer import Indexer
from services.index.record import IndexRecord
from services.index.stack_order import order_keys
from services.orthanc.identifiers import orthanc_ids
from services.query.paging import pack_cursor
from services.query.study_frames import find_study_frame
from services.sync.rollup_check import RollUps
from tests.real.query_stage import QueryStage, open_query_stage

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL: tuple[float, ...] = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
SHUFFLED = (60.0, 20.0, 120.0, 80.0, 0.0, 100.0, 40.0, 140.0)


@dataclass(frozen=True, kw_only=True)
class One:
    """One image: what the order depends on."""

    z: float | None = None
    orientation: tuple[float, ...] | None = AXIAL
    number: int | None = None
    acquisition: int | None = None
    echo: int | None = None
    phase: int | None = None
    time: str | None = None
    kind: tuple[str, ...] = ()
    frames: int = 1


def records(images: Sequence[One], *, series: int = 1) -> list[IndexRecord]:
    """Return records whose UIDs are in the order of the images."""
    return [_record(image, series, uid) for uid, image in enumerate(images, start=10)]


def _record(image: One, series: int, uid: int) -> IndexRecord:
    normal = {CORONAL: 1, SAGITTAL: 0}.get(image.orientation or (), 2)
    position = None if image.z is None else [0.0, 0.0, 0.0]
    if position is not None:
        position[normal] = image.z or 0.0
    header = InstanceHeader(
        patient=PatientModule(patient_id="P"),
        study=StudyModule(study_instance_uid="1.2"),
        series=SeriesModule(series_instance_uid=f"1.2.{series}", series_number=series),
        image=ImageModule(has_pixel_data=image.frames > 0),
        geometry=GeometryModule(
            image_position_patient=None if position is None else tuple(position),
            image_orientation_patient=None if position is None else image.orientation,
        ),
        acquisition=AcquisitionModule(
            acquisition_number=image.acquisition,
            acquisition_date_time=image.time,
            echo_numbers=() if image.echo is None else (image.echo,),
            temporal_position_identifier=image.phase,
            image_type=image.kind,
        ),
        sop_instance_uid=f"1.2.{series}.{uid}",
        instance_number=image.number,
    )
    return IndexRecord(
        header=header,
        ids=orthanc_ids("P", "1.2", f"1.2.{series}", f"1.2.{series}.{uid}"),
        revision="00000001",
        file_size_bytes=1000,
        number_of_frames=image.frames,
        not_renderable_reason=None if image.frames else "It has no pixels.",
    )


@pytest.fixture
async def stage(mongodb: EmbeddedMongod, tmp_path: Path) -> AsyncIterator[QueryStage]:
    async with open_query_stage(mongodb, tmp_path) as opened:
        yield opened


async def index(stage: QueryStage, images: Sequence[One]) -> dict[str, One]:
    """Index images with UIDs that tell nothing, a few at a time; return them by UID."""
    shuffled = random.Random(7).sample(images, len(images))  # noqa: S311  # the same every time
    sent = records(shuffled)
    indexer = Indexer(stage.runtime.database)
    for start in range(0, len(sent), 5):
        await indexer.index(sent[start : start + 5])
    uids = [record.header.sop_instance_uid for record in sent]
    return dict(zip(uids, shuffled, strict=True))


async def read(stage: QueryStage, images: dict[str, One], arguments: str = "") -> list[One]:
    """Return the images of the first series in the order of the API."""
    query = '{ series(seriesInstanceUID: "1.2.1") { instances(%s) { sopInstanceUID } } }'
    data = await stage.data(query % arguments if arguments else query.replace("(%s)", ""))
    return [images[one["sopInstanceUID"]] for one in data["series"]["instances"]]


def stack(**fields: Any) -> list[One]:
    """Return a stack from the feet to the head, as it should be shown."""
    return [One(z=z, **fields) for z in sorted(SHUFFLED)]


CASES = {
    "numbers are missing": stack(),
    "numbers are equal": stack(number=1),
    "numbers contradict positions": [
        replace(image, number=number)
        for number, image in zip(range(8, 0, -1), stack(), strict=True)
    ],
    "an acquisition number per slice": [
        replace(image, acquisition=number)
        for number, image in zip((3, 1, 2, 8, 7, 5, 4, 6), stack(), strict=True)
    ],
    "two echoes": [*stack(echo=1), *stack(echo=2)],
    "two echoes with the same numbers": [*stack(echo=1, number=1), *stack(echo=2, number=1)],
    "two phases": [*stack(phase=1), *stack(phase=2)],
    "echoes in phases": [
        *stack(phase=1, echo=1),
        *stack(phase=1, echo=2),
        *stack(phase=2, echo=1),
        *stack(phase=2, echo=2),
    ],
    "two acquisitions": [*stack(acquisition=1), *stack(acquisition=2)],
    "acquisitions that overlap": [
        *stack(acquisition=1),
        *[replace(image, acquisition=2, z=(image.z or 0) + 80) for image in stack()],
    ],
    "phases that differ in time only": [
        *stack(time="2020-01-02T10:00:00"),
        *stack(time="2020-01-02T10:00:00.5"),
        *stack(time="2020-01-02T10:00:01"),
    ],
    "repeats that only numbers tell apart": [
        replace(image, number=number) for number, image in enumerate([*stack(), *stack()], start=1)
    ],
    "localizers": [
        *[One(z=z, orientation=AXIAL, number=1) for z in (0, 10, 20)],
        *[One(z=z, orientation=CORONAL, number=1) for z in (0, 10, 20)],
        # The normal of this orientation points to the right: x falls.
        *[One(z=z, orientation=SAGITTAL, number=1) for z in (20, 10, 0)],
    ],
    "orientations with noise": [
        replace(image, orientation=(1.0, noise, 0.0, -noise, 1.0, 0.0))
        for noise, image in zip((1e-6, -1e-6, 0, 2e-6) * 2, stack(), strict=True)
    ],
    "one without a position": [
        One(number=1, z=40),
        One(number=2),
        One(number=3, z=20),
        One(number=4, z=0),
    ],
    "no positions": [
        One(number=1),
        One(number=2, time="2020-01-02T10:00:00"),
        One(number=2, time="2020-01-02T10:00:01"),
        One(number=2),
        One(),
        One(),
    ],
    "a report among the slices": [*stack(), One(frames=0)],
}


@pytest.mark.parametrize("images", CASES.values(), ids=CASES)
async def test_a_stack_is_shown_in_order(stage: QueryStage, images: list[One]) -> None:
    by_uid = await index(stage, images)
    assert await read(stage, by_uid) == images
    parts = [await read(stage, by_uid, f"first: 3, offset: {start}") for start in range(0, 33, 3)]
    assert [image for part in parts for image in part] == images
    # What renders ahead and what counts frames through a study goes the same way.
    frames = [image for image in images if image.frames]
    database = stage.runtime.database
    counted = [
        (await find_study_frame(database, "1.2", at, scope=ALL))[0] for at in range(len(frames))
    ]
    assert [by_uid[one.sop_instance_uid] for one in counted] == frames
    following = await find_following(counted[0], 100)
    assert [by_uid[one.sop_instance_uid] for one in following] == images[1:]
    series = await stage.data('{ series(seriesInstanceUID: "1.2.1") { thumbnail { path } } }')
    assert counted[len(frames) // 2].id in series["series"]["thumbnail"]["path"]


FRAMES = """query ($first: Int!, $after: String) { series(seriesInstanceUID: "1.2.1") {
  frames(first: $first, after: $after) {
    totalCount nodes { orthancInstanceId index } edges { cursor }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
} }"""


async def read_frames(
    stage: QueryStage, first: int, after: str | None = None
) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    data = await stage.data(FRAMES, first=first, after=after)
    page = data["series"]["frames"]
    cursors = [edge["cursor"] for edge in page["edges"]]
    info = page["pageInfo"]
    assert [info["startCursor"], info["endCursor"]] == [*cursors[:1], *cursors[-1:]] or not cursors
    assert info["hasPreviousPage"] == (after is not None)
    return [(one["orthancInstanceId"], one["index"]) for one in page["nodes"]], info


@pytest.mark.parametrize("name", ["two echoes", "two acquisitions", "no positions"])
@pytest.mark.parametrize("first", [1, 3, 500])
async def test_frames_of_a_series_are_one_list_in_the_order_of_the_stack(
    stage: QueryStage, name: str, first: int
) -> None:
    images = [replace(image, frames=1 + at % 3) for at, image in enumerate(CASES[name])]
    await index(stage, [*images, One(frames=0)])
    data = await stage.data(
        '{ series(seriesInstanceUID: "1.2.1") { numberOfFrames instances {'
        " orthancInstanceId numberOfFrames } frames { totalCount } } }"
    )
    expected = [
        (one["orthancInstanceId"], frame)
        for one in data["series"]["instances"]
        for frame in range(one["numberOfFrames"])
    ]
    assert data["series"]["frames"]["totalCount"] == len(expected)
    found: list[tuple[str, int]] = []
    cursor, has_next = None, True
    while has_next:
        page, info = await read_frames(stage, first, cursor)
        assert len(page) <= first
        found += page
        cursor, has_next = info["endCursor"], info["hasNextPage"]
    assert found == expected


async def test_reading_frames_on_keeps_its_order_while_images_arrive(stage: QueryStage) -> None:
    first_phase = stack(time="2020-01-02T10:00:00", acquisition=1)
    await index(stage, first_phase)
    page, info = await read_frames(stage, 3)
    later = records(stack(time="2020-01-02T10:00:05", acquisition=2), series=1)
    moved = [
        replace(
            one,
            header=replace(one.header, sop_instance_uid=f"{one.header.sop_instance_uid}9"),
            ids=orthanc_ids("P", "1.2", "1.2.1", f"{one.header.sop_instance_uid}9"),
        )
        for one in later
    ]
    await Indexer(stage.runtime.database).index(moved)
    rest, info = await read_frames(stage, 100, info["endCursor"])
    found = [*page, *rest]
    assert len(found) == len(set(found))
    assert {id_ for id_, _ in found} >= {
        row["_id"]
        for row in await stage.runtime.database["instances"]
        .find({"acquisitionNumber": 1})
        .to_list()
    }


async def test_frames_of_many_series_are_one_command(stage: QueryStage) -> None:
    indexer = Indexer(stage.runtime.database)
    for number in (1, 2, 3):
        await indexer.index(records(stack(), series=number))
    query = '{ study(studyInstanceUID: "1.2") { series { frames(first: 2) { nodes { index } } } } }'
    asked = await stage.asked(query)
    assert [each.command for each in asked] == ["find", "find", "aggregate"]
    assert not [each for each in asked if "COLLSCAN" in each.plan]


def half_a_surrogate(order: str, *rest: object) -> str:
    return base64.urlsafe_b64encode(json.dumps([order, "\ud800", *rest]).encode()).decode()


@pytest.mark.parametrize(
    "variables",
    [
        {"first": -1},
        {"first": 501},
        {"first": 1, "after": "x"},
        {"first": 1, "after": "WzFd"},
        {"first": 1, "after": pack_cursor(["$where", "x", "1.2", 0])},
        {"first": 1, "after": pack_cursor(["stackKey", {"$ne": 1}, "1.2", 0])},
        {"first": 1, "after": pack_cursor(["stackKey", "x", {"$ne": 1}, 0])},
        {"first": 1, "after": pack_cursor(["stackKey", "x", "1.2", -1])},
        {"first": 1, "after": pack_cursor(["instanceNumber", 2**64, "1.2", 0])},
        {"first": 1, "after": half_a_surrogate("stackKey", "1.2", 0)},
    ],
)
async def test_pages_of_frames_that_make_no_sense_are_refused(
    stage: QueryStage, variables: dict[str, Any]
) -> None:
    await index(stage, stack())
    _, codes = await stage.run(FRAMES, **variables)
    assert codes == ["INVALID_INPUT"]


async def test_images_of_several_kinds_part_where_their_positions_repeat(
    stage: QueryStage,
) -> None:
    kinds = [("ORIGINAL", "PRIMARY", "WATER"), ("ORIGINAL", "PRIMARY", "FAT")]
    images = [image for kind in kinds for image in stack(kind=kind)]
    found = await read(stage, await index(stage, images))
    assert [image.z for image in found] == [*sorted(SHUFFLED), *sorted(SHUFFLED)]
    assert len({image.kind for image in found[:8]}) == 1


async def test_a_series_can_be_read_by_number_and_by_time(stage: QueryStage) -> None:
    images = [
        One(z=10, number=2, time="2020-01-02T10:00:02"),
        One(z=20, number=3, time="2020-01-02T10:00:01"),
        One(z=30, number=1),
    ]
    by_uid = await index(stage, images)
    by_number = await read(stage, by_uid, "orderBy: INSTANCE_NUMBER")
    by_time = await read(stage, by_uid, "orderBy: ACQUISITION_TIME")
    assert [image.number for image in by_number] == [1, 2, 3]
    assert [image.number for image in by_time] == [3, 2, 1]
    for order in ("STACK", "INSTANCE_NUMBER", "ACQUISITION_TIME"):
        part = await read(stage, by_uid, f"orderBy: {order}, first: 1, offset: 1")
        assert part == (await read(stage, by_uid, f"orderBy: {order}"))[1:2]


async def test_every_order_is_read_by_an_index(stage: QueryStage) -> None:
    await index(stage, CASES["two acquisitions"])
    instances = InstanceDocument.get_pymongo_collection()
    (series,) = await instances.distinct("orthancSeriesId")
    for order in INSTANCE_ORDERS:
        plan = await instances.find(
            {"orthancSeriesId": series}, sort=[(order, 1), ("sopInstanceUID", 1)]
        ).explain()
        assert "'SORT'" not in str(plan["queryPlanner"]["winningPlan"])


async def test_a_level_of_series_of_all_orders_is_one_command(stage: QueryStage) -> None:
    indexer = Indexer(stage.runtime.database)
    for number, images in enumerate(CASES.values(), start=1):
        await indexer.index(records(images, series=number))
    query = '{ study(studyInstanceUID: "1.2") { series { instances { sopInstanceUID } } } }'
    asked = await stage.asked(query)
    assert [each.collection for each in asked] == ["studies", "series", "instances"]
    found = (await stage.data(query))["study"]["series"]
    for number, (name, images) in enumerate(CASES.items(), start=1):
        uids = [record.header.sop_instance_uid for record in records(images, series=number)]
        shown = [one["sopInstanceUID"] for one in found[number - 1]["instances"]]
        assert shown == uids, name


async def test_an_index_of_an_earlier_release_stays_in_its_order_until_it_is_read_again(
    stage: QueryStage,
) -> None:
    images = [replace(image, number=number) for number, image in enumerate(stack()[::-1])]
    by_uid = await index(stage, images)
    database = stage.runtime.database
    await database["instances"].update_many({}, {"$unset": dict.fromkeys(INSTANCE_ORDERS, 1)})
    await database["series"].update_many({}, {"$unset": {"stackOrder": 1}})
    assert await read(stage, by_uid) == images
    assert await read(stage, by_uid, "first: 3") == images[:3]
    study = (await database["studies"].distinct("_id"))[0]
    await RollUps(database).roll_up([study])
    assert await read(stage, by_uid) == images
    await index(stage, images)
    assert await read(stage, by_uid) == images[::-1]


def test_positions_that_make_no_sense_are_none() -> None:
    keys = [
        order_keys(_record(One(z=z, orientation=orientation), 1, 1).header)["stackKey"]
        for z, orientation in [
            (1e300, AXIAL),
            (1.0, (0.0,) * 6),
            (1.0, (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)),
            (1.0, (1e200,) * 6),
            (1.0, (1.0, 0.0, 0.0)),
        ]
    ]
    assert all(key.startswith("~") for key in keys)
