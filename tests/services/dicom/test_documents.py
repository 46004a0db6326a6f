import io
import struct
from collections.abc import Sequence

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    MPEG4HP41,
    UID,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    VideoEndoscopicImageStorage,
)

from services.dicom.documents import document_kind, find_document, find_video
from services.errors import FileRejected

PDF = b"%PDF-1.4 with an odd number of bytes!"


def file(
    document: bytes | None = PDF, *, syntax: UID = ExplicitVRLittleEndian, length: int | None = None
) -> io.BytesIO:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = EncapsulatedPDFStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = UID("1.2.3")
    dataset.DocumentTitle = "Report"
    if document is not None:
        dataset.EncapsulatedDocument = document
    if length is not None:
        dataset.EncapsulatedDocumentLength = length
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
@pytest.mark.parametrize("length", [None, len(PDF), 7, 4_000_000_000])
def test_a_document_is_found_without_its_padding(syntax: UID, length: int | None) -> None:
    stored = file(syntax=syntax, length=length)
    place = find_document(stored)
    assert place is not None
    found = stored.getvalue()[place.begin : place.begin + place.length]
    # Without a length that says so, the padding byte may be a part of the document.
    assert found == (PDF if length == len(PDF) else PDF + b"\0")


def test_a_file_without_a_document_has_none() -> None:
    assert find_document(file(None)) is None


def test_a_deflated_file_says_what_to_do() -> None:
    with pytest.raises(FileRejected, match="Download the DICOM file"):
        find_document(file(syntax=DeflatedExplicitVRLittleEndian))


def test_the_sop_class_decides_what_a_browser_may_show() -> None:
    pdf, cda = (document_kind(f"1.2.840.10008.5.1.4.1.1.104.{number}") for number in (1, 2))
    assert pdf is not None
    assert cda is not None
    assert (pdf.media_type, pdf.is_inline) == ("application/pdf", True)
    assert (cda.media_type, cda.is_inline) == ("text/xml", False)
    assert document_kind("1.2.840.10008.5.1.4.1.1.2") is None
    assert document_kind(None) is None


VIDEO = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 300


def video_file(*fragments: bytes, syntax: UID = MPEG4HP41, table: Sequence[int] = ()) -> io.BytesIO:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = VideoEndoscopicImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = UID("1.2.3")
    offsets = struct.pack(f"<{len(table)}I", *table)
    items = [offsets, *fragments]
    dataset.PixelData = b"".join(
        struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items
    )
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream


@pytest.mark.parametrize("table", [(), (0,)])
@pytest.mark.parametrize("is_whole", [False, True])
def test_a_video_is_found_by_the_beginning_of_its_file(
    table: tuple[int, ...], is_whole: bool
) -> None:
    content = video_file(VIDEO, table=table).getvalue()
    begin = content.index(VIDEO)
    file = content if is_whole else content[: begin + 1_000]
    place = find_video(io.BytesIO(file), None if is_whole else len(content))
    assert place is not None
    assert content[place.begin : place.begin + place.length] == VIDEO


def test_a_video_in_several_parts_is_never_half_a_video() -> None:
    with pytest.raises(FileRejected, match="several parts"):
        find_video(video_file(VIDEO, VIDEO))


def test_a_file_without_encapsulated_pixels_has_no_video() -> None:
    assert find_video(file()) is None


def test_videos_are_known_by_their_transfer_syntax() -> None:
    mp4 = document_kind(VideoEndoscopicImageStorage, MPEG4HP41)
    assert mp4 is not None
    assert (mp4.media_type, mp4.is_inline, mp4.is_video) == ("video/mp4", True, True)
    mpeg = document_kind(None, "1.2.840.10008.1.2.4.100")
    assert mpeg is not None
    assert (mpeg.media_type, mpeg.is_inline) == ("video/mpeg", False)
    assert document_kind(None, "1.2.840.10008.1.2.4.90") is None
