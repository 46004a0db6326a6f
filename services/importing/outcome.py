"""Outcomes of the files of an import."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.errors import Error
from services.importing.folders import FoundFile
from services.ingest.results import StoreResult, StoreStatus

_NO_DICOM = frozenset({"NOT_DICOM", "EMPTY_FILE", "EMPTY_ARCHIVE"})
"""Codes of files that are not DICOM: a folder of images may hold a README."""

_FAILURES_LISTED = 5
"""Failures that the summary of a run lists; more would hide its figures, and the report has all."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file, or a member of an archive, that is not stored."""

    path: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """The outcome of one file; an archive counts its members.

    Attributes:
        stored: New in Orthanc.
        already_stored: There before, with the same content.
        skipped: No DICOM.
        failed: DICOM that is not stored, whatever the reason.
        instance_ids: Orthanc's, of all that is stored.
    """

    file: FoundFile
    stored: int = 0
    already_stored: int = 0
    skipped: tuple[Refusal, ...] = ()
    failed: tuple[Refusal, ...] = ()
    instance_ids: tuple[str, ...] = ()


def outcome_of(file: FoundFile, results: Iterable[StoreResult]) -> FileOutcome:
    """Sum up the results of one file."""
    stored = already = 0
    skipped: list[Refusal] = []
    failed: list[Refusal] = []
    instance_ids: list[str] = []
    for result in results:
        stored += result.status is StoreStatus.STORED
        already += result.status is StoreStatus.ALREADY_STORED
        if result.error is not None:
            refusal = refuse(_place(file, result.file_name), result.error)
            (skipped if refusal.code in _NO_DICOM else failed).append(refusal)
        elif result.ids is not None:
            instance_ids.append(result.ids.instance)
    return FileOutcome(file, stored, already, tuple(skipped), tuple(failed), tuple(instance_ids))


def refuse(place: str, error: Error) -> Refusal:
    """Describe why something is not stored."""
    return Refusal(place, error.code, error.message)


def _place(file: FoundFile, name: str) -> str:
    member = name.partition("/")[2]
    return f"{file.path}/{member}" if member else str(file.path)


@dataclass(slots=True)
class Tally:
    """Figures of a run, for progress and summary.

    Attributes:
        total: Files to do, as far as they are counted.
        is_total_known: Whether all are counted.
        done: Files done, archives as one; the figures below count their members.
        first_failures: The first few that failed, for the summary.
    """

    total: int = 0
    is_total_known: bool = False
    done: int = 0
    stored: int = 0
    already_stored: int = 0
    skipped: int = 0
    failed: int = 0
    done_bytes: int = 0
    first_failures: list[Refusal] = field(default_factory=list)

    @property
    def done_with_members(self) -> int:
        """What is done, the members of archives instead of these: the sum of the figures."""
        return self.stored + self.already_stored + self.skipped + self.failed

    def add(self, outcome: FileOutcome) -> None:
        """Count one file."""
        self.done += 1
        self.done_bytes += outcome.file.size_bytes
        self.stored += outcome.stored
        self.already_stored += outcome.already_stored
        self.skipped += len(outcome.skipped)
        self.failed += len(outcome.failed)
        room = _FAILURES_LISTED - len(self.first_failures)
        self.first_failures.extend(outcome.failed[:room])
