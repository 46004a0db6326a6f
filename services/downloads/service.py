"""What a signed URL of a file or document points to: looked up in the index, read from Orthanc."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from cachetools import LRUCache

from models import InstanceDocument
from models.stored import stored_name
from services.database import readable, translated_database_faults
from services.dicom.documents import (
    VIDEO_HEAD_BYTES,
    DocumentKind,
    DocumentPlace,
    document_kind,
    find_document,
    find_video,
)
from services.dicom.layout import WalkLimits
from services.downloads.urls import FileReference, FileUrlSigner
from services.errors import NotFound, OrthancNotFound, PacsDisabled
from services.orthanc.client import Orthanc, OrthancClient

_ORTHANC_PATIENT_ID = stored_name(InstanceDocument.orthanc_patient_id)
_ORTHANC_STUDY_ID = stored_name(InstanceDocument.orthanc_study_id)
_SOP_CLASS_UID = stored_name(InstanceDocument.sop_class_uid)
_TRANSFER_SYNTAX_UID = stored_name(InstanceDocument.transfer_syntax_uid)
_FILE_SIZE_BYTES = stored_name(InstanceDocument.file_size_bytes)
_READ = (
    "revision",
    _ORTHANC_PATIENT_ID,
    _ORTHANC_STUDY_ID,
    _SOP_CLASS_UID,
    _TRANSFER_SYNTAX_UID,
    _FILE_SIZE_BYTES,
)

_PLACES = 4096
"""Documents whose place is remembered: a PDF viewer asks for one in parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadedInstance:
    """An instance, as far as a download must know it.

    Attributes:
        id: Orthanc's identifier.
        document: What its file holds, None when it is no document and no video.
        file_size_bytes: Of the stored file.
    """

    id: str
    revision: str
    patient_id: str
    study_id: str
    document: DocumentKind | None
    file_size_bytes: int


class Downloads:
    """Files and documents of instances.

    Args:
        urls: Mints and verifies their signed paths.
        orthanc: Where the files are; None while PACS integration is off.
        limits: Of the walk over a file.
        max_seconds: Longest time that MongoDB may work on one command.
    """

    def __init__(
        self,
        urls: FileUrlSigner,
        orthanc: Orthanc | None,
        *,
        limits: WalkLimits,
        max_seconds: float,
    ) -> None:
        self.urls = urls
        self._orthanc = orthanc
        self._limits = limits
        self._max_milliseconds = max(1, int(max_seconds * 1000))
        self._places: LRUCache[tuple[str, str], DocumentPlace] = LRUCache(_PLACES)

    async def find(self, reference: FileReference) -> DownloadedInstance:
        """Find the instance of a verified URL.

        Raises:
            NotFound: It was deleted or replaced since the URL was minted.
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            found = await readable(InstanceDocument.get_pymongo_collection()).find_one(
                {"_id": reference.instance_id}, _READ, max_time_ms=self._max_milliseconds
            )
        if found is None or found["revision"] != reference.revision:
            raise NotFound("This file was deleted or replaced.")
        return DownloadedInstance(
            id=found["_id"],
            revision=found["revision"],
            patient_id=found[_ORTHANC_PATIENT_ID],
            study_id=found[_ORTHANC_STUDY_ID],
            document=document_kind(found.get(_SOP_CLASS_UID), found.get(_TRANSFER_SYNTAX_UID)),
            file_size_bytes=found[_FILE_SIZE_BYTES],
        )

    async def place(self, instance: DownloadedInstance) -> DocumentPlace:
        """Find the document or video in the file of an instance.

        Raises:
            NotFound: There is none, or the file was replaced a moment ago.
            FileRejected: The file can't be read, its dataset is deflated, or its video is stored
                in several parts.
            PacsDisabled: There is no Orthanc.
            OrthancUnavailable: Orthanc does not answer.
        """
        if self._orthanc is None:
            raise PacsDisabled
        if instance.document is None:
            raise NotFound("There is no document in this file.")
        key = (instance.id, instance.revision)
        known = self._places.get(key)
        if known is not None:
            return known
        stored = await self._orthanc.client.stored_files([instance.id])
        if not stored or stored[0].revision != instance.revision:
            raise NotFound("This file was deleted or replaced.")
        beginnings = self._orthanc.files.beginnings
        if instance.document.is_video:
            place = await beginnings.read(
                stored[0],
                lambda file, size: find_video(file, size, self._limits),
                pixel_data_bytes=VIDEO_HEAD_BYTES,
            )
        else:
            place = await beginnings.read(
                stored[0], lambda file, _: find_document(file, self._limits)
            )
        if place is None:
            raise NotFound("There is no document in this file.")
        self._places[key] = place
        return place

    def part(
        self, instance: DownloadedInstance, begin: int, end: int
    ) -> AsyncGenerator[bytes, None]:
        """Read a part of a file; errors while it is read are those of `part_of_file`.

        Raises:
            PacsDisabled: There is no Orthanc.
        """
        if self._orthanc is None:
            raise PacsDisabled
        return part_of_file(self._orthanc.client, instance.id, instance.revision, begin, end)


async def part_of_file(
    orthanc: OrthancClient, instance_id: str, revision: str, begin: int, end: int
) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of a file from `begin` up to `end`.

    Orthanc 1.10 sends a file from its first byte, whatever is asked for.

    Args:
        orthanc: Where it is.
        instance_id: Orthanc's identifier.
        revision: Of the file that is meant, as it is indexed; places and sizes are those of it.
        begin: First byte.
        end: Behind the last one.

    Raises:
        NotFound: Orthanc does not have the file, or has another one in its place.
        DownloadsBusy: Too many archives and files are being read.
        OrthancUnavailable: Orthanc does not answer.
    """
    position = 0
    try:
        async with orthanc.download(instance_id) as chunks:
            # Orthanc has begun to send: what it has now under this name is what it sends.
            stored = await orthanc.stored_files([instance_id])
            if not stored or stored[0].revision != revision:
                raise NotFound("This file was deleted or replaced.")
            async for chunk in chunks:
                wanted = chunk[max(0, begin - position) : max(0, end - position)]
                position += len(chunk)
                if wanted:
                    yield wanted
                if position >= end:
                    return
    except OrthancNotFound as exc:
        raise NotFound("There is no such file.") from exc
