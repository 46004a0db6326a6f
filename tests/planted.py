"""Files that hold identifiers of a patient in forty places, for tests of anonymisation."""

import io
from collections.abc import Iterator

from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import UID, BasicTextSRStorage, generate_uid

PLANTED = (
    "Plantagenet", "Eleanora", "金雀花", "QZ77190456", "19420317", "071500", "OTHER-551-ID",
    "Oldname-Nee", "Rosengasse", "Mothername", "+41-555-0199", "ISSUER-ZRH-9", "AccNr-88001",
    "StudyNr-4412", "Hippocrates", "Galenos", "Operatrix", "Reading-Reader", "Kantonsspital-Q",
    "Hospitalstrasse", "Nephrology-West", "STATION-X9", "SERIAL-90210", "AE-SENDER-7",
    "Ward-7b-Bed-2", "Seen-by-Dr-Quux", "her-brother-Piers", "private-Plant", "private-nested",
    "overlay-note", "trailing-Plant", "preamble-Plant", "sop-comment-P", "unknown-public-P",
    "Scheduler-Sam", "formername-P", "code-meaning-P", "sr-text-Plant", "sr-person-Plant",
    "20250611", "admission-A-77", "image-comment-P", "VendorModel-Z", "SoftRev-5.55",
    "in-a-number-P", "audio-comment-P",
)  # fmt: skip
"""What must not be in any byte of an anonymised file."""


def planted_image(study_uid: str, series_uid: str, number: int) -> FileDataset:
    """Make a CT image that holds nearly all of `PLANTED`.

    Args:
        study_uid: StudyInstanceUID.
        series_uid: SeriesInstanceUID.
        number: InstanceNumber, 1-based.
    """
    ds = dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    ds.preamble = b"preamble-Plant".ljust(128, b"\0")
    ds.file_meta.SourceApplicationEntityTitle = "AE-SENDER-7"
    ds.file_meta.PrivateInformationCreatorUID = UID("1.2.3")
    ds.file_meta.PrivateInformation = b"private-Plant "
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study_uid, series_uid
    ds.SOPInstanceUID = generate_uid()
    ds.file_meta.MediaStorageSOPInstanceUID = UID(str(ds.SOPInstanceUID))
    ds.InstanceNumber = number
    _plant_patient(ds)
    _plant_visit(ds)
    _plant_texts(ds)
    _plant_sequences(ds)
    _plant_odd_places(ds)
    return ds


def _plant_patient(ds: Dataset) -> None:
    ds.PatientName = "Plantagenet^Eleanora=金雀花^埃莉"
    ds.PatientID = "QZ77190456"
    ds.PatientBirthDate, ds.PatientBirthTime = "19420317", "071500"
    ds.OtherPatientIDs = "OTHER-551-ID"
    ds.PatientBirthName = "Oldname-Nee"
    ds.PatientAddress = "Rosengasse 7"
    ds.PatientMotherBirthName = "Mothername"
    ds.PatientTelephoneNumbers = "+41-555-0199"
    ds.IssuerOfPatientID = "ISSUER-ZRH-9"
    ds.AdditionalPatientHistory = "her-brother-Piers had the same"
    ds.PatientComments = "Plantagenet"


def _plant_visit(ds: Dataset) -> None:
    ds.AccessionNumber, ds.StudyID = "AccNr-88001", "StudyNr-4412"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20250611"
    ds.InstanceCreationDate = ds.DateOfLastCalibration = "20250611"
    ds.ReferringPhysicianName, ds.PerformingPhysicianName = "Hippocrates^A", "Galenos^B"
    ds.OperatorsName, ds.NameOfPhysiciansReadingStudy = "Operatrix^C", "Reading-Reader"
    ds.InstitutionName, ds.InstitutionAddress = "Kantonsspital-Q", "Hospitalstrasse 1"
    ds.InstitutionalDepartmentName = "Nephrology-West"
    ds.StationName, ds.DeviceSerialNumber = "STATION-X9", "SERIAL-90210"
    ds.ManufacturerModelName, ds.SoftwareVersions = "VendorModel-Z", "SoftRev-5.55"
    ds.CurrentPatientLocation, ds.AdmissionID = "Ward-7b-Bed-2", "admission-A-77"
    ds.RetrieveAETitle = "AE-SENDER-7"


def _plant_texts(ds: Dataset) -> None:
    ds.StudyDescription = "CT Plantagenet, Seen-by-Dr-Quux"
    ds.SeriesDescription = ds.ProtocolName = "Seen-by-Dr-Quux"
    ds.ImageComments = "image-comment-P"
    ds.ContentDescription = "Eleanora"
    ds.SegmentLabel = "Plantagenet lesion"
    ds.RescaleType = "HU"
    ds.ConvolutionKernel = "Plantagenet"
    ds.BodyPartExamined = "PLANTAGENET"


def _plant_sequences(ds: Dataset) -> None:
    request = Dataset()
    request.ScheduledProcedureStepDescription = "Scheduler-Sam"
    request.RequestedProcedureID = "AccNr-88001"
    ds.RequestAttributesSequence = Sequence([request])
    other = Dataset()
    other.PatientID = "OTHER-551-ID"
    ds.OtherPatientIDsSequence = Sequence([other])
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "T-1", "99Q"
    code.CodeMeaning = "code-meaning-P of Plantagenet"
    code.add_new(0x00090010, "LO", "PLANT 1.0")
    code.add_new(0x00091001, "LO", "private-nested")
    ds.AnatomicRegionSequence = Sequence([code])
    changed, former = Dataset(), Dataset()
    former.PatientName = "formername-P"
    changed.ModifiedAttributesSequence = Sequence([former])
    ds.OriginalAttributesSequence = Sequence([changed])
    reference = Dataset()
    reference.ReferencedSOPClassUID = ds.SOPClassUID
    reference.ReferencedSOPInstanceUID = ds.SOPInstanceUID
    ds.ReferencedImageSequence = Sequence([reference])


def _plant_odd_places(ds: Dataset) -> None:
    ds.add_new(0x00290010, "LO", "PLANT 1.0")
    ds.add_new(0x00291001, "OB", b"private-Plant ")
    ds.add_new(0x60000010, "US", 8)
    ds.add_new(0x60000011, "US", 8)
    ds.add_new(0x60003000, "OW", b"overlay-note")
    ds.add_new(0x60004000, "LT", "overlay-note")
    ds.add_new(0x00084000, "LT", "sop-comment-P")  # IdentifyingComments, retired
    ds.add_new(0x00084ABC, "LO", "unknown-public-P")
    ds.add_new(0x50002500, "LO", "audio-comment-P")  # CurveLabel, retired
    number = b"in-a-number-P "
    strength = Tag("MagneticFieldStrength")
    ds[strength] = RawDataElement(strength, "DS", len(number), number, 0, False, True)
    ds.add_new(0xFFFCFFFC, "OB", b"trailing-Plant")


def planted_report(study_uid: str) -> FileDataset:
    """Make a structured report that holds the rest of `PLANTED`."""
    ds = planted_image(study_uid, generate_uid(), 1)
    for keyword in ("PixelData", "Rows", "Columns", "BodyPartExamined"):
        delattr(ds, keyword)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    ds.Modality = "SR"
    text, person = Dataset(), Dataset()
    text.ValueType, text.TextValue = "TEXT", "sr-text-Plant: the patient, Plantagenet"
    person.ValueType, person.PersonName = "PNAME", "sr-person-Plant"
    inner = Dataset()
    inner.ValueType, inner.ContentSequence = "CONTAINER", Sequence([person])
    ds.ValueType, ds.ContentSequence = "CONTAINER", Sequence([text, inner])
    return ds


def written(ds: FileDataset) -> bytes:
    """Return the bytes of a file."""
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def found_in(content: bytes) -> Iterator[str]:
    """Yield what was planted and is in the bytes of a file, whatever its case and encoding."""
    folded = content.lower()
    for word in PLANTED:
        encodings = ("utf-8", "utf-16-le", "utf-16-be", "gb18030")
        if any(word.lower().encode(encoding) in folded for encoding in encodings):
            yield word
