"""Documents in DICOM files: Encapsulated Document objects (PS3.3 A.45, C.24.2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from services.dicom.elements import kept_elements
from services.dicom.layout import WalkLimits
from services.dicom.parser import walk
from services.errors import FileRejected

_ENCAPSULATED_DOCUMENT = 0x00420011
_ENCAPSULATED_DOCUMENT_LENGTH = 0x00420015


@dataclass(frozen=True, slots=True)
class DocumentKind:
    """What an Encapsulated Document object of a SOP class holds.

    Attributes:
        media_type: For `Content-Type`.
        suffix: For names of files, with a dot.
        is_inline: A browser may show it on our page: it has a viewer for it, and runs no script
            of it there.
    """

    media_type: str
    suffix: str
    is_inline: bool = False


_KINDS: Mapping[str, DocumentKind] = {
    "1.2.840.10008.5.1.4.1.1.104.1": DocumentKind("application/pdf", ".pdf", is_inline=True),
    # A browser applies style sheets to XML, and runs the scripts that they write.
    "1.2.840.10008.5.1.4.1.1.104.2": DocumentKind("text/xml", ".xml"),
    "1.2.840.10008.5.1.4.1.1.104.3": DocumentKind("model/stl", ".stl"),
    "1.2.840.10008.5.1.4.1.1.104.4": DocumentKind("model/obj", ".obj"),
    "1.2.840.10008.5.1.4.1.1.104.5": DocumentKind("model/mtl", ".mtl"),
}
"""By SOP class (PS3.4 B.5). It fixes the type: MIMETypeOfEncapsulatedDocument (0042,0012) of a file
may say anything, and would choose what a browser does with it."""


@dataclass(frozen=True, slots=True)
class DocumentPlace:
    """Where a document is in its file.

    Attributes:
        begin: First byte, from the beginning of the file.
        length: In bytes, without the byte that pads it to an even length.
    """

    begin: int
    length: int


def document_kind(sop_class_uid: str | None) -> DocumentKind | None:
    """Return what the objects of a SOP class hold; None when it is no document."""
    return _KINDS.get(sop_class_uid or "")


def find_document(file: BinaryIO, limits: WalkLimits | None = None) -> DocumentPlace | None:
    """Find the document of a file.

    Args:
        file: The whole file; seekable.
        limits: Of the walk.

    Returns:
        None when there is none.

    Raises:
        FileRejected: With the codes of `walk.walk`; UNSUPPORTED_TRANSFER_SYNTAX when the dataset is
            deflated: the document has no place in the file then.
    """
    keep = {_ENCAPSULATED_DOCUMENT, _ENCAPSULATED_DOCUMENT_LENGTH}
    layout = walk(file, limits, keep=keep)
    if layout.is_deflated:
        message = "This document is stored in a compressed file. Download the DICOM file."
        raise FileRejected("UNSUPPORTED_TRANSFER_SYNTAX", message)
    elements = kept_elements(file, layout)
    if _ENCAPSULATED_DOCUMENT not in elements:
        return None
    place = elements[_ENCAPSULATED_DOCUMENT]
    if place.is_undefined_length or place.is_sequence:
        return None
    stored = place.end - place.value_begin
    declared = elements.numbers(_ENCAPSULATED_DOCUMENT_LENGTH, "I")[:1]
    # Values have an even length (PS3.5 7.1.1): the attribute tells whether the last byte counts.
    is_padded = declared == (stored - 1,)
    return DocumentPlace(place.value_begin, stored - is_padded)
