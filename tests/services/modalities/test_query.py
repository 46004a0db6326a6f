"""Queries at pynetdicom peers: names, limits, failures in the middle, time."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date
from functools import partial
from io import BytesIO
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.dsutils import decode, encode

from services.errors import InvalidInput, ModalityError
from services.modalities.association import Network, open_network
from services.modalities.attributes import answer_of
from services.modalities.query import (
    STUDIES,
    Found,
    RemoteCriteria,
    find,
    find_series,
    list_studies,
    patient_keys,
    records,
    study_keys,
    study_record,
)
from tests.dicom_peers import peer_at, running_peer
from tests.patience import PATIENCE_SECONDS

Answers = Callable[[evt.Event], Iterator[tuple[int, Dataset | None]]]

ALL = RemoteCriteria(patient_name="*")


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    async with open_network() as opened:
        yield opened


def study(number: int, **more: Any) -> Dataset:
    answer = Dataset()
    answer.QueryRetrieveLevel = "STUDY"
    answer.StudyInstanceUID = f"1.2.{number}"
    answer.PatientID = f"P{number}"
    for keyword, value in more.items():
        setattr(answer, keyword, value)
    return answer


async def search(
    network: Network, answers: Answers, limit: int = 100, *, seconds: float = 10
) -> tuple[Found, list[Dataset]]:
    asked: list[Dataset] = []

    def handle(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        asked.append(event.identifier)
        yield from answers(event)

    with running_peer([STUDIES], [(evt.EVT_C_FIND, handle)]) as port:
        work = partial(find, model=STUDIES, keys=study_keys(ALL), limit=limit)
        return await network.run(peer_at(port), work, seconds=seconds), asked


async def test_an_answer_is_read_in_all_its_parts(network: Network) -> None:
    def answers(_: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        yield (
            0xFF00,
            study(
                1,
                SpecificCharacterSet="ISO_IR 192",
                PatientName="Yamada^Tarou=山田^太郎",
                PatientBirthDate="19700131",
                PatientSex="M",
                StudyDate="20260301",
                StudyTime="130559",
                AccessionNumber="A1",
                StudyDescription="Schädel",
                ModalitiesInStudy=["CT", "SR"],
                NumberOfStudyRelatedSeries=2,
                NumberOfStudyRelatedInstances=300,
            ),
        )

    found, _ = await search(network, answers)
    [record] = records(found.answers, study_record)
    assert record.patient_name == "Yamada^Tarou=山田^太郎"
    assert record.study_description == "Schädel"
    assert record.patient_birth_date == "1970-01-31"
    assert (record.study_date, record.study_time) == ("2026-03-01", "13:05:59")
    assert record.modalities_in_study == ["CT", "SR"]
    assert (record.number_of_series, record.number_of_instances) == (2, 300)
    assert not found.is_incomplete


NAMES: list[tuple[str | None, bytes, str]] = [
    ("ISO_IR 100", "Müller^Jörg".encode("latin_1"), "Müller^Jörg"),
    (None, "Müller^Jörg".encode(), "Müller^Jörg"),
    ("ISO_IR 144", "Лукашенко^Анна".encode("iso8859_5"), "Лукашенко^Анна"),
    ("ISO_IR 192", "Ελληνικά^Όνομα".encode(), "Ελληνικά^Όνομα"),
    ("GB18030", "王^小东".encode("gb18030"), "王^小东"),
    (
        "\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
        "Yamada^Tarou=山田^太郎",
    ),
    (
        "\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7",
        "Hong^Gildong=洪^吉洞",
    ),
]
"""SpecificCharacterSet, the bytes of a name as an old archive has them, and the name."""


async def test_names_are_right_in_every_script(network: Network) -> None:
    def answers(_: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        for number, (character_set, name, _expected) in enumerate(NAMES):
            answer = study(number)
            if character_set is not None:
                answer.SpecificCharacterSet = character_set.split("\\")
            answer.PatientName = "x"
            answer["PatientName"]._value = _Encoded(name)
            yield 0xFF00, answer

    found, _ = await search(network, answers)
    names = [record.patient_name for record in records(found.answers, study_record)]
    assert names == [expected for *_, expected in NAMES]


class _Encoded:
    """A person name that is written as the bytes that it was made of."""

    def __init__(self, value: bytes) -> None:
        self._bytes = value

    def encode(self, *_: object) -> bytes:
        return self._bytes


async def test_a_query_leaves_with_its_letters(network: Network) -> None:
    criteria = RemoteCriteria(patient_name="Łukasz*", study_date_from=date(2026, 1, 1))
    asked: list[Dataset] = []

    def handle(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        asked.append(event.identifier)
        yield from ()

    with running_peer([STUDIES], [(evt.EVT_C_FIND, handle)]) as port:
        work = partial(find, model=STUDIES, keys=study_keys(criteria), limit=10)
        found = await network.run(peer_at(port), work)
    assert found == Found([])
    [identifier] = asked
    assert identifier.SpecificCharacterSet == "ISO_IR 192"
    assert identifier.PatientName == "Łukasz*"
    assert identifier.StudyDate == "20260101-"
    assert identifier.AccessionNumber == ""


async def test_a_query_in_ascii_names_no_character_set(network: Network) -> None:
    _, [identifier] = await search(network, lambda _: iter(()))
    assert "SpecificCharacterSet" not in identifier


@pytest.mark.no_cover
async def test_ten_thousand_answers_stop_at_the_limit(network: Network) -> None:
    sent = 0

    def answers(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        nonlocal sent
        for number in range(10_000):
            if event.is_cancelled:
                yield 0xFE00, None
                return
            sent += 1
            yield 0xFF00, study(number)

    found, _ = await search(network, answers, limit=50)
    assert len(found.answers) == 50
    assert found.is_incomplete
    assert sent < 500


async def test_a_peer_that_does_not_stop_is_left(network: Network) -> None:
    def answers(_: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        for number in range(10_000):
            yield 0xFF00, study(number)

    begun = time.monotonic()
    found, _ = await search(network, answers, limit=10, seconds=PATIENCE_SECONDS)
    assert len(found.answers) == 10
    assert found.is_incomplete
    assert time.monotonic() - begun < PATIENCE_SECONDS


async def test_what_came_before_a_failure_is_kept(network: Network) -> None:
    def answers(_: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        yield 0xFF00, study(1)
        yield 0xFF00, study(2)
        yield 0xA700, None

    found, _ = await search(network, answers)
    assert len(found.answers) == 2
    assert found.is_incomplete
    assert found.fault is not None
    assert found.fault.dimse_status == "A700"


async def test_what_came_before_an_abort_is_kept(network: Network) -> None:
    def answers(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        yield 0xFF00, study(1)
        event.assoc.abort()

    found, _ = await search(network, answers)
    assert len(found.answers) == 1
    assert found.is_incomplete


@pytest.mark.parametrize("status", [0xA700, 0xC001])
async def test_a_failure_at_once_is_an_error(network: Network, status: int) -> None:
    with pytest.raises(ModalityError) as caught:
        await search(network, lambda _: iter([(status, None)]))
    assert (caught.value.code, caught.value.dimse_status) == ("MODALITY_REFUSED", f"{status:04X}")


async def test_a_slow_peer_is_cancelled_when_the_time_is_up(network: Network) -> None:
    was_cancelled = False

    def answers(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        nonlocal was_cancelled
        for number in range(100):
            if event.is_cancelled:
                was_cancelled = True
                yield 0xFE00, None
                return
            time.sleep(0.1)
            yield 0xFF00, study(number)

    found, _ = await search(network, answers, seconds=0.6)
    assert found.is_incomplete
    assert 1 <= len(found.answers) < 100
    assert was_cancelled


async def test_series_and_instances_are_asked_for_study_by_study(network: Network) -> None:
    def handle(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        for number in (1, 2):
            answer = Dataset()
            answer.StudyInstanceUID = asked.StudyInstanceUID
            if asked.QueryRetrieveLevel == "STUDY":
                pass
            elif asked.QueryRetrieveLevel == "SERIES":
                answer.SeriesInstanceUID = f"{asked.StudyInstanceUID}.{number}"
                answer.Modality = "CT"
            else:
                answer.SeriesInstanceUID = asked.SeriesInstanceUID
                answer.SOPInstanceUID = f"{asked.SeriesInstanceUID}.{number}"
            yield 0xFF00, answer

    with running_peer([STUDIES], [(evt.EVT_C_FIND, handle)]) as port:
        work = partial(find_series, study_instance_uids=["1.2", "1.3"], limit=10)
        series = await network.run(peer_at(port), work)
        listing = partial(
            list_studies, study_instance_uids=["1.2"], series_instance_uids=(), limit=100
        )
        listed = (await network.run(peer_at(port), listing))["1.2"]
        # Half a list would make a job say that everything is here.
        with pytest.raises(ModalityError, match="more than 1 objects"):
            await network.run(peer_at(port), partial(listing, limit=1))
    uids = {uid: [one.series_instance_uid for one in found] for uid, found in series.items()}
    assert uids == {"1.2": ["1.2.1", "1.2.2"], "1.3": ["1.3.1", "1.3.2"]}
    assert (listed.patient_id, listed.sop_classes) == (None, set())
    assert [one.sop_instance_uid for one in listed.instances] == [
        "1.2.1.1", "1.2.1.2", "1.2.2.1", "1.2.2.2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("criteria", "argument"),
    [
        (RemoteCriteria(), "filter"),
        (RemoteCriteria(patient_id=" "), "filter"),
        (RemoteCriteria(patient_id="A\\B"), "filter.patientID"),
        (RemoteCriteria(patient_name="A\nB"), "filter.patientName"),
        (RemoteCriteria(patient_name="A" * 400), "filter.patientName"),
        (RemoteCriteria(study_instance_uid="1.2.*"), "studyInstanceUID"),
        (RemoteCriteria(modalities=["C\\T"]), "filter.modalities"),
    ],
)
def test_what_can_not_be_searched_for_is_refused(criteria: RemoteCriteria, argument: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        study_keys(criteria)
    assert caught.value.argument == argument


def test_patients_are_searched_by_their_own_attributes() -> None:
    keys = patient_keys(RemoteCriteria(patient_id="A*"))
    assert keys["PatientID"] == "A*"
    with pytest.raises(InvalidInput):
        patient_keys(RemoteCriteria(patient_id="A", accession_number="1"))


def test_an_answer_without_its_uid_is_left_out() -> None:
    assert records([{"PatientID": "A"}, {"StudyInstanceUID": "x"}], study_record) == []


def test_texts_and_sequences_of_an_answer_are_bounded() -> None:
    nested = Dataset()
    nested.TextValue = "x" * 65_537
    nested.PatientID = "P1"
    for _ in range(20):
        outer = Dataset()
        outer.PatientID = "P1"
        outer.RequestAttributesSequence = [nested]
        nested = outer
    stored = encode(nested, is_implicit_vr=True, is_little_endian=True)
    assert stored is not None
    received = decode(BytesIO(stored), is_implicit_vr=True, is_little_endian=True)
    answer = answer_of(received, ["PatientID", "RequestAttributesSequence"])
    depth = 0
    while answer["RequestAttributesSequence"]:
        [answer] = answer["RequestAttributesSequence"]
        depth += 1
        assert answer["PatientID"] == "P1"
    assert depth == 8
    assert answer_of(nested, ["TextValue"]) == {}
