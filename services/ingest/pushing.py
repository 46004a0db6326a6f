"""Bring one prepared file into Orthanc and find out for certain what became of it."""

import asyncio
from dataclasses import dataclass

from services.dicom.rewriting import PreparedFile
from services.errors import OrthancNotFound, OrthancOutcomeUnknown, OrthancUnavailable
from services.ingest.results import StoreStatus
from services.orthanc.answers import StoreAnswer
from services.orthanc.client import OrthancClient
from services.orthanc.files import OrthancFiles
from services.orthanc.identifiers import OrthancIds

_LOOK_UP_WAITS_SECONDS = (0.2, 0.4, 0.8, 1.6, 3.2)
"""An Orthanc that died is back within these; the embedded one after about a second."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """Where the file is.

    Attributes:
        status: STORED, ALREADY_STORED or CONFLICT.
    """

    ids: OrthancIds
    status: StoreStatus


Answer = StoreAnswer | OrthancOutcomeUnknown
"""What sending a file gave; an answer that broke off is one too."""


def send(files: OrthancFiles, prepared: PreparedFile) -> Answer:
    """Send a file to Orthanc, streamed; blocks.

    Raises:
        OrthancError: It is not stored.
    """
    try:
        return files.store(prepared.pieces(), prepared.length)
    except OrthancOutcomeUnknown as exc:
        return exc


async def find_outcome(
    orthanc: OrthancClient, prepared: PreparedFile, expected: OrthancIds, answer: Answer
) -> Pushed:
    """Find out what became of a file that was sent.

    Orthanc answers "already stored" by identifiers alone and drops other content silently, so
    the MD5 decides. An answer that broke off is looked up.

    Args:
        orthanc: Tells what it has.
        prepared: What was sent.
        expected: The identifiers that the file's header gives it.
        answer: From `send`.

    Raises:
        OrthancError: It is not stored.
    """
    if isinstance(answer, OrthancOutcomeUnknown):
        whole = await asyncio.to_thread(prepared.md5)
        status = await _look_up(orthanc, expected.instance, whole, answer)
        return Pushed(expected, status)
    ids = OrthancIds(answer.patient_id, answer.study_id, answer.series_id, answer.instance_id)
    if not answer.already_stored:
        return Pushed(ids, StoreStatus.STORED)
    # Most files are new: hashing each while it goes out would cost a tenth of its time.
    same = await orthanc.dicom_md5(ids.instance) == await asyncio.to_thread(prepared.md5)
    return Pushed(ids, StoreStatus.ALREADY_STORED if same else StoreStatus.CONFLICT)


async def _look_up(
    orthanc: OrthancClient, instance_id: str, digest: str, broken: OrthancOutcomeUnknown
) -> StoreStatus:
    """Ask whether Orthanc has the file after all, while it may be restarting."""
    for seconds in _LOOK_UP_WAITS_SECONDS:
        await asyncio.sleep(seconds)
        try:
            stored = await orthanc.dicom_md5(instance_id)
        except OrthancNotFound as exc:
            raise broken from exc
        except OrthancUnavailable:
            continue
        return StoreStatus.STORED if stored == digest else StoreStatus.CONFLICT
    raise broken
