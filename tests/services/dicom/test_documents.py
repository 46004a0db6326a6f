import io

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from services.dicom.documents import document_kind, find_document
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
