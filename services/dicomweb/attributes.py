"""The attributes that a search answers: where the index has them, and how they are written.

Required attributes: PS3.18 10.6.3.3. All others of the index are answered when `includefield` names
them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

Model = dict[str, Any]
"""A dataset in the DICOM JSON model (PS3.18 F.2)."""

Fields = Mapping[str, Any]
"""A document of the index, by stored names."""


class Level(IntEnum):
    """Levels of a search; a search of one level may match and answer attributes of those above."""

    STUDY = 1
    SERIES = 2
    INSTANCE = 3


@dataclass(frozen=True)
class Attribute:
    """One attribute of the answers.

    Attributes:
        keyword: PS3.6.
        level: Whose document holds it.
        field: Its stored name.
        is_required: Answered without being asked for.
    """

    keyword: str
    level: Level
    field: str
    is_required: bool = False

    @cached_property
    def tag(self) -> str:
        """Eight upper-case hexadecimal digits (PS3.18 F.2.2)."""
        return f"{tag_for_keyword(self.keyword):08X}"

    @cached_property
    def vr(self) -> str:
        """Value representation (PS3.6)."""
        return dictionary_VR(self.keyword)

    def element(self, document: Fields) -> dict[str, Any]:
        """Write the attribute of a document; without `Value` when it has none."""
        stored = document.get(self.field)
        if stored is None or stored == "":
            return {"vr": self.vr}
        written = _WRITTEN.get(self.vr)
        values = [
            one if written is None else written(str(one))
            for one in (stored if isinstance(stored, list) else [stored])
            if one is not None and one != ""
        ]
        return {"vr": self.vr, "Value": values} if values else {"vr": self.vr}


def person_name(text: str) -> dict[str, str]:
    """Write a PN by its component groups (PS3.18 F.2.2)."""
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), text.split("="), strict=False)
    return {name: group for name, group in groups if group}


_WRITTEN: Mapping[str, Callable[[str], Any]] = {
    "DA": lambda text: text.replace("-", ""),
    "TM": lambda text: text.replace(":", ""),
    "PN": person_name,
}
"""How values are written that are stored in another form, by their VR."""

_STUDY, _SERIES, _INSTANCE = Level.STUDY, Level.SERIES, Level.INSTANCE

ATTRIBUTES = (
    Attribute("StudyDate", _STUDY, "studyDate", is_required=True),
    Attribute("StudyTime", _STUDY, "studyTime", is_required=True),
    Attribute("AccessionNumber", _STUDY, "accessionNumber", is_required=True),
    Attribute("ModalitiesInStudy", _STUDY, "modalitiesInStudy", is_required=True),
    Attribute("ReferringPhysicianName", _STUDY, "referringPhysicianName", is_required=True),
    Attribute("PatientName", _STUDY, "patientName", is_required=True),
    Attribute("PatientID", _STUDY, "patientID", is_required=True),
    Attribute("PatientBirthDate", _STUDY, "patientBirthDate", is_required=True),
    Attribute("PatientSex", _STUDY, "patientSex", is_required=True),
    Attribute("StudyInstanceUID", _STUDY, "studyInstanceUID", is_required=True),
    Attribute("StudyID", _STUDY, "studyID", is_required=True),
    Attribute("NumberOfStudyRelatedSeries", _STUDY, "numberOfSeries", is_required=True),
    Attribute("NumberOfStudyRelatedInstances", _STUDY, "numberOfInstances", is_required=True),
    Attribute("StudyDescription", _STUDY, "studyDescription"),
    Attribute("InstitutionName", _STUDY, "institutionName"),
    Attribute("IssuerOfPatientID", _STUDY, "issuerOfPatientID"),
    Attribute("PatientAge", _STUDY, "patientAge"),
    Attribute("Modality", _SERIES, "modality", is_required=True),
    Attribute("SeriesDescription", _SERIES, "seriesDescription", is_required=True),
    Attribute("SeriesInstanceUID", _SERIES, "seriesInstanceUID", is_required=True),
    Attribute("SeriesNumber", _SERIES, "seriesNumber", is_required=True),
    Attribute("NumberOfSeriesRelatedInstances", _SERIES, "numberOfInstances", is_required=True),
    Attribute("SeriesDate", _SERIES, "seriesDate"),
    Attribute("SeriesTime", _SERIES, "seriesTime"),
    Attribute("BodyPartExamined", _SERIES, "bodyPartExamined"),
    Attribute("ProtocolName", _SERIES, "protocolName"),
    Attribute("Manufacturer", _SERIES, "manufacturer"),
    Attribute("StationName", _SERIES, "stationName"),
    Attribute("PerformingPhysicianName", _SERIES, "performingPhysicianName"),
    Attribute("SOPClassUID", _INSTANCE, "sopClassUID", is_required=True),
    Attribute("SOPInstanceUID", _INSTANCE, "sopInstanceUID", is_required=True),
    Attribute("InstanceNumber", _INSTANCE, "instanceNumber", is_required=True),
    Attribute("Rows", _INSTANCE, "rows", is_required=True),
    Attribute("Columns", _INSTANCE, "columns", is_required=True),
    Attribute("BitsAllocated", _INSTANCE, "bitsAllocated", is_required=True),
    Attribute("NumberOfFrames", _INSTANCE, "numberOfFrames", is_required=True),
    Attribute("AvailableTransferSyntaxUID", _INSTANCE, "transferSyntaxUID"),
    Attribute("BitsStored", _INSTANCE, "bitsStored"),
    Attribute("SamplesPerPixel", _INSTANCE, "samplesPerPixel"),
    Attribute("PhotometricInterpretation", _INSTANCE, "photometricInterpretation"),
    Attribute("ImageType", _INSTANCE, "imageType"),
    Attribute("AcquisitionNumber", _INSTANCE, "acquisitionNumber"),
    Attribute("PixelSpacing", _INSTANCE, "pixelSpacing"),
    Attribute("ImagePositionPatient", _INSTANCE, "imagePositionPatient"),
    Attribute("ImageOrientationPatient", _INSTANCE, "imageOrientationPatient"),
    Attribute("FrameOfReferenceUID", _INSTANCE, "frameOfReferenceUID"),
    Attribute("SliceLocation", _INSTANCE, "sliceLocation"),
    Attribute("SliceThickness", _INSTANCE, "sliceThickness"),
)
"""`NumberOfFrames` counts the frames that can be shown; it is left out where there are none."""


_SPECIFIC_CHARACTER_SET = {"00080005": {"vr": "CS", "Value": ["ISO_IR 192"]}}
_ONLINE = {"00080056": {"vr": "CS", "Value": ["ONLINE"]}}
"""InstanceAvailability (PS3.3 C.4.23.1.1): Orthanc has no other."""

_TAG_CHARACTERS = 8


def keyword_of(name: str) -> str | None:
    """Return the keyword of an attribute that a request names by keyword or tag (PS3.18 8.3.4.1).

    Returns:
        None for a name that is neither; sequences by paths are not searched.
    """
    if len(name) == _TAG_CHARACTERS and all(one in "0123456789abcdefABCDEF" for one in name):
        return keyword_for_tag(int(name, 16)) or None
    return name if tag_for_keyword(name) is not None else None


def answered(level: Level, wanted: Iterable[str], *, has_all: bool) -> list[Attribute]:
    """Choose the attributes of an answer.

    Args:
        level: Of the search.
        wanted: Names of `includefield`; those that the index does not have are left out.
        has_all: `includefield=all`.

    Returns:
        The attributes of this level that are required, and those that are wanted, of this level and
        of those above.
    """
    named = {keyword_of(name) for name in wanted}
    return [
        attribute
        for attribute in ATTRIBUTES
        if attribute.level <= level
        and (
            attribute.keyword in named
            or (attribute.level == level and (attribute.is_required or has_all))
            or attribute.keyword in _IDENTIFIERS
        )
    ]


_IDENTIFIERS = frozenset({"StudyInstanceUID", "SeriesInstanceUID"})
"""Answered at the levels below too: without them clients can't retrieve what was found."""


def write_model(
    documents: Mapping[Level, Fields], attributes: Iterable[Attribute], *, address: str
) -> Model:
    """Write what was found in the DICOM JSON model, with its tags in order.

    Args:
        documents: Of the levels that were read.
        attributes: What to answer.
        address: RetrieveURL.
    """
    model: Model = {**_SPECIFIC_CHARACTER_SET, **_ONLINE}
    model["00081190"] = {"vr": "UR", "Value": [address]}
    for attribute in attributes:
        element = attribute.element(documents[attribute.level])
        if attribute.keyword == "NumberOfFrames" and element.get("Value") == [0]:
            continue
        model[attribute.tag] = element
    return dict(sorted(model.items()))
