"""The structure of a DICOM file, and the limits of the walk that finds it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

_MIB = 1024 * 1024

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkLimits:
    """The largest structure that the walk accepts, for itself and for the readers after it.

    Attributes:
        sequence_max_depth: Deepest nesting of sequences. Orthanc 1.10.1 dies at 50.
        sequence_max_items: Most items of one sequence. Orthanc 1.10.1 takes a time that grows with
            their square: 20,000 take 1 s, 40,000 take 5 s and 200,000 take 5 minutes.
        header_max_items: Most items of all sequences together, those inside others included.
        dataset_max_elements: Most elements beside each other, at the top level or in one item.
            Orthanc 1.10.1 takes 0.1 s for 5,000 of them and 8 to 20 s for 50,000.
        header_max_elements: Most elements and items. Orthanc and pydicom build an object for each,
            of about 1 kB and in about 20 us.
        max_fragments: Most fragments of encapsulated pixel data; nothing is built of them.
        inflated_max_bytes: Largest dataset of a deflated file, in bytes.
        inflated_max_ratio: Highest compression of a deflated dataset over 16 MiB.
        frame_max_pixels: Largest frame that can be shown, in pixels.
    """

    sequence_max_depth: int = 24
    sequence_max_items: int = 20_000
    header_max_items: int = 200_000
    dataset_max_elements: int = 5_000
    header_max_elements: int = 500_000
    max_fragments: int = 2_000_000
    inflated_max_bytes: int = 1024 * _MIB
    inflated_max_ratio: int = 200
    frame_max_pixels: int = 64_000_000


class Element(NamedTuple):
    """The place of an element; offsets are in bytes from the beginning of the file.

    Attributes:
        tag: Group and element number as one integer.
        vr: Two letters, empty in Implicit VR.
        begin: First byte of its tag.
        value_begin: First byte of its value.
        end: Behind its value and, with undefined length, its delimiter.
        is_sequence: Its value consists of items of elements.
        is_undefined_length: A delimiter closes it.
    """

    tag: int
    vr: bytes
    begin: int
    value_begin: int
    end: int
    is_sequence: bool = False
    is_undefined_length: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLayout:
    """The structure of one file, proven by a walk over all of its elements.

    Offsets are in bytes from the beginning of the file; in a deflated dataset, from the beginning
    of a file with the inflated dataset behind its meta header.

    Attributes:
        transfer_syntax_uid: Of the meta header; without one, that of the first element (PS3.5 10).
        is_implicit_vr: How the dataset is encoded, which a meta header may contradict.
        is_little_endian: Byte order of the dataset.
        is_deflated: The dataset is compressed as a whole (PS3.5 A.5).
        has_preamble: The file starts with 128 bytes and `DICM` (PS3.10 7.1).
        meta_offset: First element of group 0002, None without a meta header.
        dataset_offset: First element of the dataset.
        end_offset: Byte behind the last element; only zero bytes follow.
        file_size: Size of the file itself, in bytes.
        pixel_data_offset: First byte of the value of PixelData, FloatPixelData or
            DoubleFloatPixelData of the top level; None without.
        pixel_data_length: Bytes of that value, with item headers when encapsulated.
        pixel_data_is_encapsulated: The value is a sequence of fragments (PS3.5 A.4).
        fragment_count: Fragments behind the basic offset table.
        deepest_nesting: Sequences around the deepest element.
        element_count: Elements and items, fragments not included.
        is_whole: False when only the beginning of the file was read: nothing is known about what
            follows the head of its pixel data.
        kept: The elements of the top level that the walk was asked to keep, in their order.
    """

    transfer_syntax_uid: str
    is_implicit_vr: bool
    is_little_endian: bool
    is_deflated: bool
    has_preamble: bool
    meta_offset: int | None
    dataset_offset: int
    end_offset: int
    file_size: int
    pixel_data_offset: int | None = None
    pixel_data_length: int | None = None
    pixel_data_is_encapsulated: bool = False
    fragment_count: int = 0
    deepest_nesting: int = 0
    element_count: int = 0
    is_whole: bool = True
    kept: Sequence[Element] = ()
