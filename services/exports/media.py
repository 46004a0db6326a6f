"""The DICOMDIR of a set of files (PS3.3 F, PS3.10), made of their headers."""

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.uid import UID, ExplicitVRLittleEndian

from services.dicom.person_names import names_agree
from services.jobs.handler import JobError


class NotOnMedia(JobError):
    """A file has no place in a DICOMDIR."""

    code = "NOT_ON_MEDIA"
    default_message = (
        "This file has no place in a DICOMDIR: an attribute that its record requires is missing."
    )


@dataclass(slots=True)
class Media:
    """A DICOMDIR that grows; blocking, for one thread at a time.

    Attributes:
        names: Path of each file by its SOPInstanceUID, known after `finish`.
    """

    names: dict[str, str] = field(default_factory=dict)
    _patients: dict[str, str] = field(default_factory=dict)
    _uids: set[str] = field(default_factory=set)
    _files: FileSet = field(default_factory=FileSet)

    def add(self, header: Dataset, transfer_syntax_uid: str) -> None:
        """Add a file by its header.

        Args:
            header: All elements before its pixel data.
            transfer_syntax_uid: Of the file.

        Raises:
            NotOnMedia: An attribute that its record requires is missing, or what is there already
                would stand for it as well: a file of the same UID, or another person.
        """
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
        header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        record = _record_of(header)
        uid = str(record.SOPInstanceUID)
        # The library passes by both in silence.
        if uid in self._uids:
            raise NotOnMedia("Another file of this export has the same SOPInstanceUID.")
        patient_id, name = (str(record.get(key) or "") for key in ("PatientID", "PatientName"))
        known = self._patients.get(patient_id, "")
        if not names_agree(known, name):
            raise NotOnMedia("Another file of this export has the same PatientID and another name.")
        try:
            self._files.add(record)
        except Exception as exc:
            # The library raises what it meets, and quotes values.
            raise NotOnMedia(detail=type(exc).__name__) from exc
        self._uids.add(uid)
        self._patients[patient_id] = known or name

    def close(self) -> None:
        """Remove the library's temporary folder, which holds the headers."""
        # It has no method for that, and leaves it to the garbage collector.
        self._files._stage["t"].cleanup()  # noqa: SLF001

    def finish(self) -> bytes:
        """Return the DICOMDIR; nothing can be added any more."""
        with TemporaryDirectory(prefix="dicomdir-") as folder:
            self._files.write(Path(folder), use_existing=False)
            for instance in self._files:
                name = Path(instance.path).relative_to(folder)
                self.names[str(instance.SOPInstanceUID)] = name.as_posix()
            return (Path(folder) / "DICOMDIR").read_bytes()


_RECORD_TAGS = (
    "SpecificCharacterSet", "PatientID", "PatientName", "StudyDate", "StudyTime", "StudyID",
    "StudyInstanceUID", "StudyDescription", "AccessionNumber", "SeriesInstanceUID", "Modality",
    "SeriesNumber", "InstanceNumber", "SOPClassUID", "SOPInstanceUID", "ContentDate", "ContentTime",
    "ContentLabel", "ContentDescription", "ContentCreatorName", "PresentationCreationDate",
    "PresentationCreationTime", "ReferencedSeriesSequence", "ConceptNameCodeSequence",
    "CompletionFlag", "VerificationFlag", "VerificationDateTime", "ContentSequence",
    "StructureSetLabel", "StructureSetDate", "StructureSetTime", "RTPlanLabel", "RTPlanDate",
    "RTPlanTime", "DoseSummationType", "DoseComment", "TreatmentDate", "TreatmentTime",
    "DocumentTitle", "MIMETypeOfEncapsulatedDocument", "HL7InstanceIdentifier",
    "BlendingSequence",  "Rows", "Columns",
)  # fmt: skip
"""What directory records are made of (PS3.3 F.5)."""


_ABSENT = {
    "StudyDate": "19000101",
    "StudyTime": "000000",
    "StudyID": "0",
    "SeriesNumber": "0",
    "InstanceNumber": "0",
}
"""What records have to have and files need not: anonymised ones have none of the first three."""


def _record_of(header: Dataset) -> Dataset:
    """Return what the record of a file needs of its header, written as the library can."""
    record = Dataset()
    for keyword in _RECORD_TAGS:
        if keyword in header:
            record.add(header[keyword])
    for keyword, value in _ABSENT.items():
        if not record.get(keyword):
            setattr(record, keyword, value)
    record.file_meta = header.file_meta
    if not record.file_meta.TransferSyntaxUID.is_encapsulated:
        record.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return record
