"""What happens to each attribute: PS3.15 table E.1-1, closed where the table leaves gaps.

The table (edition 2026c, from dicom-anonymizer) names about 650 attributes. It leaves alone what it
does not name, and so do most programs: manufacturers' names, comments of other modules, retired and
unknown attributes, whatever a private group holds. Here an attribute that the table does not name
stays only when its value can't be free text: numbers, codes, binary data, sequences (of which each
item is treated the same), and the texts of `HARMLESS_TEXTS`.
"""

import re
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from pydicom.datadict import (
    dictionary_has_tag,
    dictionary_VR,
    keyword_for_tag,
    tag_for_keyword,
)

EDITION = "2026c"


class Treatment(Enum):
    """What happens to an attribute."""

    KEEP = "keep"
    """It stays unless its value holds a word of the patient's identity."""
    REMOVE = "remove"
    EMPTY = "empty"
    """It stays without a value."""
    DUMMY = "dummy"
    """It gets a value without meaning, of its VR."""
    MAP_UID = "map UID"
    """It gets the UID that stands for its own, the same everywhere."""
    MAP_UNKNOWN_UID = "map unknown UID"
    """The same, unless DICOM itself defines the UID: it names no object then."""
    DESCEND = "descend"
    """A sequence: its items are treated."""


_TABLE: Mapping[object, Treatment] = {
    **dict.fromkeys(table.X_TAGS, Treatment.REMOVE),
    # Where the table leaves a choice: no value, which type 2 and 3 allow, before one without
    # meaning, which type 1 needs.
    **dict.fromkeys([*table.Z_TAGS, *table.X_Z_TAGS, *table.X_Z_D_TAGS], Treatment.EMPTY),
    **dict.fromkeys([*table.D_TAGS, *table.Z_D_TAGS, *table.X_D_TAGS], Treatment.DUMMY),
    **dict.fromkeys([*table.U_TAGS, *table.X_Z_U_STAR_TAGS], Treatment.MAP_UID),
}
"""PS3.15 table E.1-1 by group and element."""

_REMOVED_GROUPS = frozenset(
    {*range(0x5000, 0x5100), *range(0x6000, 0x6100), 0x7F00, 0x4FFE, 0xFFFA}
)
"""Curves, overlays (which may show the patient's name), retired pixel data, signatures."""

_CODES = (
    "CodeValue LongCodeValue URNCodeValue ExtendedCodeValue CodeMeaning ExtendedCodeMeaning "
    "CodingSchemeDesignator CodingSchemeVersion MappingResourceName"
)
_ACQUISITION = (
    "Radiopharmaceutical RadiopharmaceuticalRoute ContrastBolusRoute SequenceName "
    "PulseSequenceName ConvolutionKernel FilterType TypeOfFilters CollimatorGridName "
    "ReceiveCoilName TransmitCoilName ImagedNucleus StackID AttenuationCorrectionMethod "
    "ReconstructionMethod ScatterCorrectionMethod DetectorLinesOfResponseUsed EnergyWindowName "
    "ViewName StageName TriggerSourceOrType CardiacFramingType PVCRejection AcquisitionMode "
    "PhosphorType PlateType OpticalPathIdentifier ReferencedOpticalPathIdentifier "
    "PixelSpacingCalibrationDescription"
)
_PRESENTATION = (
    "RescaleType WindowCenterWidthExplanation LUTExplanation ModalityLUTType HistogramExplanation "
    "DimensionDescriptionLabel SegmentLabel SegmentAlgorithmName AlgorithmName AlgorithmVersion "
    "FontName CSSFontName"
)
HARMLESS_TEXTS = frozenset(f"{_CODES} {_ACQUISITION} {_PRESENTATION}".split())
"""Texts that the table does not name and that programs need to understand an image."""

_TEXT_VRS = frozenset(
    {"AE", "AS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT"}
)
"""VRs that may hold free text, a date or an age."""

_CLASSES = re.compile(r"\w*(SOPClassUID|TransferSyntaxUID|CodingSchemeUID|MappingResourceUID)\w*")
"""Keywords of UIDs that name what something is."""

_WELL_KNOWN_UIDS = "1.2.840.10008."
"""Root of the UIDs that DICOM itself defines (PS3.6 A)."""

_SEQUENCES_OF_CONTENT = frozenset({"ContentSequence"})
_TEXT_VALUE = "TextValue"
_OPTIONAL_DATES = frozenset(
    {"InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime"}
)
"""The table allows a date without meaning; these are of type 3."""

_KEPT_TEXTS = (
    "StudyDescription SeriesDescription ProtocolName PerformedProcedureStepDescription "
    "RequestedProcedureDescription DerivationDescription ContrastBolusAgent ImageComments "
    "AcquisitionProtocolName AcquisitionProtocolDescription AcquisitionDeviceProcessingDescription "
    "Manufacturer ManufacturerModelName SoftwareVersions InstitutionName "
    "InstitutionalDepartmentName"
)
_KEPT_TEXT_SET = frozenset(_KEPT_TEXTS.split())
_KEPT_VRS = frozenset({"AS", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "TM", "US"})
_NEVER_KEPT = frozenset(
    {"PatientBirthDate", "PatientBirthTime", "PatientDeathDateInAlternativeCalendar"}
)


DEFINED_TERMS = frozenset(
    {
        "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422",
        "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT", "XYB", "ORIGINAL", "DERIVED", "PRIMARY",
        "SECONDARY", "AXIAL", "LOCALIZER", "MIXED", "OTHER", "NONE", "VOLUME", "FLOW", "FIELD",
        "HFS", "HFP", "HFDR", "HFDL", "FFS", "FFP", "FFDR", "FFDL", "LFP", "LFS", "RFP", "RFS",
        "AFDR", "AFDL", "PFDR", "PFDL", "YES", "NO", "IDENTITY", "INVERSE", "LINEAR", "SIGMOID",
        "LINEAR_EXACT", "HU", "HU_MOD", "US", "OD", "UNSPECIFIED", "CT", "MR", "PT", "NM", "CR",
        "DX", "MG", "XA", "RF", "SC", "OT", "SEG", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN",
        "RTDOSE", "RTIMAGE", "REG", "ECG", "OP", "OPT", "SM", "GM", "XC", "ES", "IVUS", "IO", "PX",
        "BINARY", "FRACTIONAL", "LABELMAP", "3D", "2D", "SE", "GR", "EP", "IR", "RM", "R", "L",
        "STATIC", "DYNAMIC", "GATED", "WHOLE BODY", "BQML", "CNTS", "START", "ADMIN", "COLOR",
        "ISO_IR 100", "ISO_IR 101", "ISO_IR 109", "ISO_IR 110", "ISO_IR 144", "ISO_IR 127",
        "ISO_IR 126", "ISO_IR 138", "ISO_IR 148", "ISO_IR 203", "ISO_IR 13", "ISO_IR 166",
        "ISO_IR 192", "ISO_IR 6", "ISO 2022 IR 6", "ISO 2022 IR 13", "ISO 2022 IR 58",
        "ISO 2022 IR 87", "ISO 2022 IR 100", "ISO 2022 IR 101", "ISO 2022 IR 109",
        "ISO 2022 IR 110", "ISO 2022 IR 144", "ISO 2022 IR 127", "ISO 2022 IR 126",
        "ISO 2022 IR 138", "ISO 2022 IR 148", "ISO 2022 IR 149", "ISO 2022 IR 159",
        "ISO 2022 IR 166", "ISO 2022 IR 203", "GB18030", "GBK", "ISO_IR_192",
    }
)  # fmt: skip
"""Values that DICOM defines and that decide how an image is read, decoded and shown. They stay
although a patient is called Chrome, Primary or Iso: without them a picture is wrong or lost."""


def may_be_kept(keyword: str) -> bool:
    """Return whether a caller may ask that an attribute stays.

    Dates, times, ages, sizes, sex, descriptions and the make of the device may; names, identifiers,
    addresses, UIDs and dates of birth may not.

    Args:
        keyword: Of a standard attribute (PS3.6).
    """
    tag = tag_for_keyword(keyword)
    if tag is None or keyword in _NEVER_KEPT:
        return False
    vrs = dictionary_VR(tag).split(" or ")
    return keyword in _KEPT_TEXT_SET or all(vr in _KEPT_VRS for vr in vrs)


@lru_cache(maxsize=4096)
def treatment_of(tag: int, vr: str) -> Treatment:
    """Return what happens to an attribute that no caller asked to keep.

    Args:
        tag: Group and element as one number.
        vr: Of the element in its file.
    """
    group, element = tag >> 16, tag & 0xFFFF
    keyword = keyword_for_tag(tag)
    if group & 1 or not keyword or element == 0 or group in _REMOVED_GROUPS:
        return Treatment.REMOVE
    allowed = dictionary_VR(tag).split(" or ") if dictionary_has_tag(tag) else [vr]
    if vr not in allowed and vr in _TEXT_VRS:
        # A text in the place of a number or a code.
        return Treatment.REMOVE
    if vr == "SQ":
        return _treatment_of_sequence((group, element), keyword)
    return _treatment_of_value((group, element), keyword, vr)


def _treatment_of_sequence(place: tuple[int, int], keyword: str) -> Treatment:
    if keyword in _SEQUENCES_OF_CONTENT:
        return Treatment.DESCEND
    listed = _TABLE.get(place, Treatment.DESCEND)
    by_table = {Treatment.DUMMY: Treatment.REMOVE, Treatment.MAP_UID: Treatment.DESCEND}
    return by_table.get(listed, listed)


def _treatment_of_value(place: tuple[int, int], keyword: str, vr: str) -> Treatment:
    if keyword == _TEXT_VALUE:
        return Treatment.DUMMY
    listed = _TABLE.get(place)
    if listed is not None:
        return Treatment.REMOVE if keyword in _OPTIONAL_DATES else listed
    if vr == "UI" and not _CLASSES.fullmatch(keyword):
        return Treatment.MAP_UNKNOWN_UID
    is_text = vr in _TEXT_VRS and keyword not in HARMLESS_TEXTS
    return Treatment.REMOVE if is_text else Treatment.KEEP


def is_well_known(uid: str) -> bool:
    """Return whether DICOM itself defines a UID: it names nothing of the patient."""
    return uid.startswith(_WELL_KNOWN_UIDS)
