"""What becomes of a file whose sending was not answered."""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import pytest

from services.dicom.rewriting import PreparedFile
from services.errors import (
    OrthancError,
    OrthancNotFound,
    OrthancOutcomeUnknown,
    OrthancTimedOut,
    OrthancUnavailable,
)
from services.ingest.delivery import Delivery, Outage
from services.ingest.results import StoreStatus
from services.orthanc.answers import StoreAnswer
from services.orthanc.identifiers import orthanc_ids

if TYPE_CHECKING:
    from services.orthanc.client import OrthancClient
    from services.orthanc.files import OrthancFiles

IDS = orthanc_ids("P", "1", "2", "3")
STORED = StoreAnswer(
    instance_id=IDS.instance,
    series_id=IDS.series,
    study_id=IDS.study,
    already_stored=False,
)
FILE = PreparedFile(parts=(b"file",), source=io.BytesIO(), length=4)


class Orthanc:
    """Answers what it is told to, and notes what it is sent."""

    def __init__(
        self, answers: Sequence[StoreAnswer | OrthancError] = (), held: str | None = None
    ) -> None:
        self.answers = list(answers)
        self.held = held
        self.sent = 0
        self.is_away = False

    def store(self, _pieces: object, _size_bytes: int) -> StoreAnswer:
        self.sent += 1
        answer = self.answers.pop(0)
        if isinstance(answer, OrthancError):
            raise answer
        return answer

    async def in_thread(self, work: Callable[[], object]) -> object:
        return work()

    async def dicom_md5(self, _instance_id: str) -> str:
        if self.held is None:
            raise OrthancNotFound
        return self.held

    async def system(self) -> None:
        if self.is_away:
            raise OrthancUnavailable


def delivery(orthanc: Orthanc) -> Delivery:
    client = cast("OrthancClient", orthanc)
    return Delivery(client, cast("OrthancFiles", orthanc), Outage(client, return_seconds=0.2))


async def test_what_orthanc_has_after_all_is_not_sent_again() -> None:
    orthanc = Orthanc(held=FILE.md5())
    done = await delivery(orthanc).find_outcome(FILE, IDS, OrthancOutcomeUnknown())
    assert (done.status, done.ids, orthanc.sent) == (StoreStatus.STORED, IDS, 0)


async def test_other_content_under_the_same_identifiers_is_a_conflict() -> None:
    orthanc = Orthanc(held="0" * 32)
    done = await delivery(orthanc).find_outcome(FILE, IDS, OrthancOutcomeUnknown())
    assert (done.status, orthanc.sent) == (StoreStatus.CONFLICT, 0)


async def test_what_was_lost_is_sent_once_more() -> None:
    orthanc = Orthanc([STORED])
    done = await delivery(orthanc).find_outcome(FILE, IDS, OrthancOutcomeUnknown())
    assert (done.status, orthanc.sent) == (StoreStatus.STORED, 1)


async def test_what_is_lost_twice_is_given_up() -> None:
    orthanc = Orthanc([OrthancOutcomeUnknown(), STORED])
    with pytest.raises(OrthancOutcomeUnknown):
        await delivery(orthanc).find_outcome(FILE, IDS, OrthancOutcomeUnknown())
    assert orthanc.sent == 1


async def test_what_orthanc_may_still_be_storing_is_not_sent_again() -> None:
    orthanc = Orthanc([STORED])
    with pytest.raises(OrthancTimedOut):
        await delivery(orthanc).find_outcome(FILE, IDS, OrthancTimedOut())
    assert orthanc.sent == 0


async def test_what_never_went_out_is_offered_again_until_it_does() -> None:
    orthanc = Orthanc([OrthancUnavailable(), OrthancUnavailable(), STORED])
    done = await delivery(orthanc).find_outcome(FILE, IDS, OrthancUnavailable())
    assert (done.status, orthanc.sent) == (StoreStatus.STORED, 3)


async def test_an_orthanc_that_stays_away_is_waited_for_once() -> None:
    orthanc = Orthanc([STORED])
    orthanc.is_away = True
    sending = delivery(orthanc)
    for _ in range(3):
        with pytest.raises(OrthancUnavailable):
            await sending.find_outcome(FILE, IDS, OrthancUnavailable())
    assert orthanc.sent == 0
    orthanc.is_away = False
    done = await sending.find_outcome(FILE, IDS, OrthancUnavailable())
    assert done.status is StoreStatus.STORED


async def test_a_reading_call_is_repeated_when_orthanc_is_back() -> None:
    outcomes: list[OrthancError | str] = [OrthancOutcomeUnknown(), "answer"]

    async def call() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, OrthancError):
            raise outcome
        return outcome

    outage = Outage(cast("OrthancClient", Orthanc()), return_seconds=0.2)
    assert await outage.asking(call) == "answer"
