"""Orthanc's answers as dataclasses; each `from_json` is the only reader of its JSON."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

Json = Mapping[str, Any]

KNOWN_VULNERABLE_BEFORE = (1, 12, 11)
"""Releases before this one have published vulnerabilities in their DICOM and image parsers."""

_BINDS_ADDRESSES_SINCE = (1, 12, 10)


_GETS_SINCE = (1, 12, 7)


class Capability(StrEnum):
    """What only some releases or installations of Orthanc can do."""

    LABELS = "LABELS"
    FILTERED_CHANGES = "FILTERED_CHANGES"
    EXTENDED_FIND = "EXTENDED_FIND"
    RETRIEVE_GET = "RETRIEVE_GET"
    WORKLIST_FOLDER = "WORKLIST_FOLDER"
    WORKLIST_REST = "WORKLIST_REST"


@dataclass(frozen=True, slots=True)
class SystemInfo:
    """`GET /system`."""

    version: str
    api_version: int
    dicom_aet: str
    has_labels: bool = False
    dicom_port: int | None = None
    has_extended_changes: bool = False
    has_extended_find: bool = False

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Read the answer of `GET /system`."""
        return cls(
            version=str(json["Version"]),
            api_version=int(json.get("ApiVersion", 0)),
            dicom_aet=str(json.get("DicomAet", "")),
            has_labels=bool(json.get("HasLabels", False)),
            dicom_port=int(json["DicomPort"]) if json.get("DicomPort") else None,
            has_extended_changes=bool(json.get("HasExtendedChanges", False)),
            has_extended_find=bool(json.get("HasExtendedFind", False)),
        )

    def capabilities(self, plugins: Collection[str]) -> list[Capability]:
        """Return what this Orthanc can do.

        Args:
            plugins: Names of its plugins.
        """
        can = {
            Capability.LABELS: self.has_labels,
            Capability.FILTERED_CHANGES: self.has_extended_changes,
            Capability.EXTENDED_FIND: self.has_extended_find,
            Capability.RETRIEVE_GET: not self._is_before(_GETS_SINCE),
            Capability.WORKLIST_FOLDER: "worklists" in plugins,
            Capability.WORKLIST_REST: "orthanc-worklists" in plugins,
        }
        return [capability for capability, is_there in can.items() if is_there]

    @property
    def has_known_vulnerabilities(self) -> bool:
        """Whether this release should not face untrusted files; development builds are trusted."""
        return self._is_before(KNOWN_VULNERABLE_BEFORE)

    def vulnerability_warning(self, *, is_embedded: bool) -> str | None:
        """Say that this release should be upgraded, and how; None when it need not be.

        Args:
            is_embedded: This server runs it.
        """
        if not self.has_known_vulnerabilities:
            return None
        safe = ".".join(map(str, KNOWN_VULNERABLE_BEFORE))
        how = "make newer-orthanc (or docs/orthanc.md)" if is_embedded else "docs/orthanc.md"
        return (
            f"Orthanc {self.version} has known vulnerabilities in how it reads files. Upgrade to "
            f"{safe} or newer: {how}."
        )

    @property
    def listens_everywhere(self) -> bool:
        """Whether this release does not know HttpBindAddresses."""
        return self._is_before(_BINDS_ADDRESSES_SINCE)

    def _is_before(self, release: tuple[int, ...]) -> bool:
        parts = self.version.split(".")
        if not all(part.isdigit() for part in parts):
            return False
        return tuple(int(part) for part in parts) < release


@dataclass(frozen=True, slots=True)
class JobInfo:
    """`GET /jobs/{id}`: a job of Orthanc, without its content, which holds PatientIDs.

    Attributes:
        progress: 0 to 100.
        error_message: Orthanc's text for the code; None when there is no error.
    """

    id: str
    type: str
    state: str
    progress: int
    created_at: datetime
    error_code: int
    error_message: str | None

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Read a job."""
        error_code = int(json.get("ErrorCode", 0))
        created = str(json["CreationTime"])
        return cls(
            id=str(json["ID"]),
            type=str(json["Type"]),
            state=str(json["State"]),
            progress=int(json.get("Progress", 0)),
            created_at=datetime.strptime(created, "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC),
            error_code=error_code,
            error_message=str(json.get("ErrorDescription", "")) if error_code else None,
        )


@dataclass(frozen=True, slots=True)
class CommitmentReport:
    """`GET /storage-commitment/{uid}`.

    Attributes:
        is_pending: The modality has not answered yet.
        is_lost: Orthanc does not know any more.
        kept: SOPInstanceUIDs of what the modality keeps.
        failures: FailureReason (0008,1197) of what is not kept, by SOPInstanceUID.
    """

    is_pending: bool
    is_lost: bool
    kept: frozenset[str] = frozenset()
    failures: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Read the answer of `GET /storage-commitment/{uid}`."""
        return cls(
            is_pending=json.get("Status") == "Pending",
            is_lost=False,
            kept=frozenset(str(one["SOPInstanceUID"]) for one in json.get("Success", ())),
            failures={
                str(one["SOPInstanceUID"]): int(one.get("FailureReason", 0))
                for one in json.get("Failures", ())
            },
        )


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """`POST /instances`: where the file went, and whether it was there before."""

    instance_id: str
    study_id: str
    series_id: str
    already_stored: bool

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Read the answer of `POST /instances`."""
        return cls(
            instance_id=json["ID"],
            study_id=json["ParentStudy"],
            series_id=json["ParentSeries"],
            already_stored=json["Status"] == "AlreadyStored",
        )


@dataclass(frozen=True, slots=True)
class StoredFile:
    """`GET /instances/{id}` or an entry of `POST /tools/bulk-content`.

    Attributes:
        file_uuid: Orthanc's name of the file; a new one whenever the file is stored again.
        metadata: Orthanc's metadata by name (TransferSyntax, PixelDataOffset ...); empty when
            they were not asked for.
    """

    instance_id: str
    series_id: str
    file_uuid: str
    file_size_bytes: int
    metadata: Mapping[str, str]

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Read an instance resource."""
        return cls(
            instance_id=json["ID"],
            series_id=json["ParentSeries"],
            file_uuid=json["FileUuid"],
            file_size_bytes=int(json["FileSize"]),
            metadata=json.get("Metadata", {}),
        )

    @property
    def revision(self) -> str:
        """8 lower-case hex digits that change when the stored file is replaced."""
        return self.file_uuid[:8].lower()

    @property
    def pixel_data_offset(self) -> int | None:
        """Byte offset of the PixelData element in the file, None when there is none."""
        offset = self.metadata.get("PixelDataOffset", "")
        return int(offset) if offset.isdigit() and int(offset) > 0 else None


@dataclass(frozen=True, slots=True)
class StudyListing:
    """An entry of `GET /studies?expand`."""

    study_id: str
    series_ids: Sequence[str]
    last_update: str
    is_stable: bool

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Read a study resource."""
        return cls(
            study_id=json["ID"],
            series_ids=tuple(json["Series"]),
            last_update=json.get("LastUpdate", ""),
            is_stable=bool(json.get("IsStable", False)),
        )


@dataclass(frozen=True, slots=True)
class SeriesListing:
    """An entry of `GET /series?expand`."""

    series_id: str
    study_id: str
    instance_ids: Sequence[str]

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Read a series resource."""
        return cls(
            series_id=json["ID"],
            study_id=json["ParentStudy"],
            instance_ids=tuple(json["Instances"]),
        )


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of `GET /changes`."""

    sequence: int
    change_type: str
    resource_id: str
    date: str = ""

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Read an entry of `Changes`."""
        return cls(
            sequence=int(json["Seq"]),
            change_type=json["ChangeType"],
            resource_id=json["ID"],
            date=json.get("Date", ""),
        )


@dataclass(frozen=True, slots=True)
class ChangePage:
    """`GET /changes`: a page of the change feed.

    Attributes:
        last: Sequence number to continue from; smaller than asked when the database was replaced.
        is_last_page: Nothing more is waiting.
    """

    changes: Sequence[Change]
    last: int
    is_last_page: bool

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Read the answer of `GET /changes`."""
        return cls(
            changes=tuple(Change.from_json(change) for change in json["Changes"]),
            last=int(json["Last"]),
            is_last_page=bool(json["Done"]),
        )


@dataclass(frozen=True, slots=True)
class Statistics:
    """`GET /statistics`: how much Orthanc holds."""

    patients: int
    studies: int
    series: int
    instances: int

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Read the answer of `GET /statistics`."""
        return cls(
            patients=int(json["CountPatients"]),
            studies=int(json["CountStudies"]),
            series=int(json["CountSeries"]),
            instances=int(json["CountInstances"]),
        )
