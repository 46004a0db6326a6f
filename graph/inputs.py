"""Arguments of root fields: paging, filters, orders, ids."""

import dataclasses
from collections.abc import Iterable
from datetime import UTC, date, datetime
from enum import Enum
from typing import Annotated, Optional

import strawberry

from graph.types.job import JobKind, JobState
from graph.types.scalars import Date, Time
from graph.types.worklist import WorklistStatus
from services.anonymization.options import AnonymizationOptions
from services.auth.scope import Scope
from services.errors import InvalidInput
from services.jobs.store import JobCriteria
from services.modalities.query import RemoteCriteria, WorklistQuery
from services.query.filters import PatientCriteria, StudyCriteria, StudyExpression
from services.query.paging import Order
from services.worklist.entry import EntryValues
from services.worklist.service import WorklistCriteria

First = Annotated[int, strawberry.argument(description="How many at most, from `after` on.")]
After = Annotated[
    str | None, strawberry.argument(description="Continue behind this cursor: an `endCursor`.")
]

NodeId = Annotated[strawberry.ID, strawberry.argument(name="id", description="Its field `id`.")]


@strawberry.input(description="A range of days including both ends; a missing end is open.")
class DateRange:
    """Days, both inclusive."""

    from_: Date | None = strawberry.field(
        name="from", default=None, description="First day of the range."
    )
    to: Date | None = strawberry.field(default=None, description="Last day of the range.")


@strawberry.input(
    description="Which studies to list. Parts that are given must all match; null parts don't "
    "count."
)
class StudyFilter:
    """Which studies to list."""

    patient_id: str | None = strawberry.field(
        default=None, description="Exactly this PatientID; padding is ignored."
    )
    patient_name: str | None = strawberry.field(
        default=None,
        description="Beginnings of words of the patient's name, in any order; case and accents do "
        "not matter.",
    )
    accession_number: str | None = strawberry.field(
        default=None, description="Exactly this AccessionNumber."
    )
    study_instance_uids: list[str] | None = strawberry.field(
        default=None,
        description="Any of these StudyInstanceUIDs; at most 500. An empty list matches nothing.",
    )
    study_date: DateRange | None = strawberry.field(
        default=None, description="StudyDate within this range; studies without a date never are."
    )
    modalities: list[str] | None = strawberry.field(
        default=None,
        description="A series of any of these modalities, as `CT` or `ct`; at most 500. An empty "
        "list matches nothing.",
    )
    text: str | None = strawberry.field(
        default=None,
        description="Beginnings of words; every one must occur in patient name, patient ID, "
        "accession number or study description.",
    )
    updated_since: datetime | None = strawberry.field(
        default=None,
        description="Changed at this moment or later; without a zone it is taken as UTC.",
    )
    patient_sex: str | None = strawberry.field(
        default=None, description="Exactly this PatientSex, as `F` or `f`."
    )
    patient_birth_date: DateRange | None = strawberry.field(
        default=None,
        description="PatientBirthDate within this range; patients without one never are.",
    )
    study_description: str | None = strawberry.field(
        default=None, description="Beginnings of words of the study description, in any order."
    )
    referring_physician_name: str | None = strawberry.field(
        default=None,
        description="Beginnings of words of the referring physician's name, in any order.",
    )
    institution_name: str | None = strawberry.field(
        default=None, description="Beginnings of words of the institution's name, in any order."
    )
    body_part_examined: str | None = strawberry.field(
        default=None,
        description="A series of exactly this BodyPartExamined, as `CHEST` or `chest`.",
    )
    has_frames: bool | None = strawberry.field(
        default=None, description="Whether there is a frame to show."
    )

    labels: list[str] | None = strawberry.field(
        default=None,
        description="Any of these labels; at most 500. An empty list is no filter.",
    )
    without_labels: bool | None = strawberry.field(
        default=None, description="Whether the study has no label."
    )

    def to_criteria(self, scope: Scope, where: "StudyWhere | None" = None) -> StudyCriteria:
        """Return what the search service takes, for a caller of this scope.

        Args:
            scope: Of the caller.
            where: Must match as well.
        """
        days = self.study_date or DateRange()
        birth_days = self.patient_birth_date or DateRange()
        return StudyCriteria(
            scope=scope,
            labels=self.labels,
            without_labels=self.without_labels,
            where=None if where is None else where.to_expression(scope),
            patient_id=self.patient_id,
            patient_name=self.patient_name,
            accession_number=self.accession_number,
            study_instance_uids=self.study_instance_uids,
            study_date_from=_day(days.from_),
            study_date_to=_day(days.to),
            modalities=self.modalities,
            text=self.text,
            updated_since=_in_utc(self.updated_since),
            patient_sex=self.patient_sex,
            birth_date_from=_day(birth_days.from_),
            birth_date_to=_day(birth_days.to),
            study_description=self.study_description,
            referring_physician_name=self.referring_physician_name,
            institution_name=self.institution_name,
            body_part_examined=self.body_part_examined,
            has_frames=self.has_frames,
        )


@strawberry.input(
    description="Filters of studies combined. Parts that are given must all match; null parts "
    "don't count. At most 64 of these objects, at most 8 inside each other."
)
class StudyWhere:
    """Filters combined."""

    and_: list["StudyWhere"] | None = strawberry.field(
        name="and", default=None, description="Each of these must match."
    )
    or_: list["StudyWhere"] | None = strawberry.field(
        name="or",
        default=None,
        description="At least one of these must match; an empty list matches nothing.",
    )
    not_: Optional["StudyWhere"] = strawberry.field(
        name="not", default=None, description="This must not match."
    )
    matches: StudyFilter | None = strawberry.field(
        default=None, description="This filter must match."
    )

    def to_expression(self, scope: Scope) -> StudyExpression:
        """Return what the search service takes, for a caller of this scope."""
        return StudyExpression(
            all_of=_expressions(self.and_, scope),
            any_of=_expressions(self.or_, scope),
            none_of=None if self.not_ is None else self.not_.to_expression(scope),
            matches=None if self.matches is None else self.matches.to_criteria(scope),
        )


def _expressions(parts: list[StudyWhere] | None, scope: Scope) -> list[StudyExpression] | None:
    return None if parts is None else [part.to_expression(scope) for part in parts]


@strawberry.input(description="One frame of an instance.")
class FrameRef:
    """One frame of an instance."""

    instance_id: strawberry.ID = strawberry.field(
        name="instanceId", description="The `id` of the instance."
    )
    index: int = strawberry.field(default=0, description="0-based within the instance.")


@strawberry.input(description="Which patients to list. Parts that are given must all match.")
class PatientFilter:
    """Which patients to list."""

    patient_id: str | None = strawberry.field(
        default=None, description="Exactly this PatientID; padding is ignored."
    )
    patient_name: str | None = strawberry.field(
        default=None,
        description="Prefixes of words of the name, in any order, ignoring case and accents.",
    )

    def to_criteria(self, scope: Scope) -> PatientCriteria:
        """Return what the search service takes, for a caller of this scope."""
        return PatientCriteria(
            scope=scope, patient_id=self.patient_id, patient_name=self.patient_name
        )


@strawberry.enum(description="Which end of an order comes first.")
class OrderDirection(Enum):
    """Direction of an order."""

    ASC = strawberry.enum_value("ASC", description="Oldest, or A, first.")
    DESC = strawberry.enum_value("DESC", description="Newest, or Z, first.")


@strawberry.enum(description="What studies can be ordered by.")
class StudyOrderField(Enum):
    """Orders of studies, by their stored fields."""

    STUDY_DATE = strawberry.enum_value(
        "orderStudyDate", description="StudyDate and StudyTime; no date counts as the oldest."
    )
    PATIENT_NAME = strawberry.enum_value(
        "orderPatientName", description="PatientName, without case and accents."
    )
    UPDATED_AT = strawberry.enum_value("updatedAt", description="When the study last changed.")
    CREATED_AT = strawberry.enum_value(
        "createdAt", description="When this server first saw the study."
    )
    PATIENT_ID = strawberry.enum_value("patientID", description="PatientID.")
    ACCESSION_NUMBER = strawberry.enum_value(
        "orderAccessionNumber", description="AccessionNumber; none sorts before all."
    )


@strawberry.input(description="Order of a list of studies.")
class StudyOrder:
    """Order of a list of studies."""

    field: StudyOrderField = strawberry.field(
        default=StudyOrderField.STUDY_DATE, description="What to order by."
    )
    direction: OrderDirection = strawberry.field(
        default=OrderDirection.DESC, description="Which end comes first."
    )

    def to_order(self) -> Order:
        """Return what the search service takes."""
        return Order(str(self.field.value), ascending=self.direction is OrderDirection.ASC)


@strawberry.input(
    description="What is searched for at a modality; at least one key. Texts must match exactly "
    "unless they hold `*` (any characters) or `?` (any one)."
)
class RemoteFilter:
    """What is searched for at a modality."""

    patient_id: str | None = strawberry.field(default=None, description="PatientID.")
    patient_name: str | None = strawberry.field(
        default=None, description="PatientName, as `Meier^*`; most archives ignore case."
    )
    accession_number: str | None = strawberry.field(default=None, description="AccessionNumber.")
    study_instance_uid: str | None = strawberry.field(
        default=None, description="StudyInstanceUID, without `*` and `?`."
    )
    study_date: DateRange | None = strawberry.field(
        default=None, description="StudyDate within this range."
    )
    modalities: list[str] | None = strawberry.field(
        default=None, description="A series of any of these modalities, as `CT`."
    )
    study_description: str | None = strawberry.field(default=None, description="StudyDescription.")

    def to_criteria(self) -> RemoteCriteria:
        """Return what the service takes."""
        days = self.study_date or DateRange()
        return RemoteCriteria(
            patient_id=self.patient_id,
            patient_name=self.patient_name,
            accession_number=self.accession_number,
            study_instance_uid=self.study_instance_uid,
            study_date_from=_day(days.from_),
            study_date_to=_day(days.to),
            modalities=self.modalities,
            study_description=self.study_description,
        )


@strawberry.input(description="What a new share shows, and for how long.")
class CreateShareInput:
    """What a new share shows, and for how long."""

    name: str = strawberry.field(description="Who or what it is for; 1 to 128 characters.")
    study_ids: list[strawberry.ID] = strawberry.field(
        description="The `id`s of the studies that it shows; 1 to 100."
    )
    expires_at: datetime = strawberry.field(
        description="When it ends, at most SHARE_MAX_DAYS (90) ahead; without a zone it is taken "
        "as UTC."
    )
    may_download: bool = strawberry.field(
        default=False, description="Whether archives and files may be downloaded."
    )


@strawberry.input(
    description="Which entries of the worklist. Parts that are given must all match; null parts "
    "don't count."
)
class WorklistFilter:
    """Which entries of the worklist."""

    patient_id: str | None = strawberry.field(
        default=None, description="Exactly this PatientID; padding is ignored."
    )
    accession_number: str | None = strawberry.field(
        default=None, description="Exactly this AccessionNumber."
    )
    modalities: list[str] | None = strawberry.field(
        default=None,
        description="Any of these modalities, as `CT` or `ct`. An empty list matches nothing.",
    )
    scheduled_station_ae_title: str | None = strawberry.field(
        default=None, description="Exactly this AE title of a scanner."
    )
    scheduled_procedure_step_start_date: DateRange | None = strawberry.field(
        default=None, description="Planned for a day of this range."
    )
    statuses: list[WorklistStatus] | None = strawberry.field(
        default=None, description="Any of these. An empty list matches nothing."
    )

    def to_query(self) -> WorklistQuery:
        """Return what is asked of another worklist.

        Raises:
            InvalidInput: It narrows by status.
        """
        if self.statuses is not None:
            message = "statuses: other worklists do not know them."
            raise InvalidInput(message, argument="filter.statuses")
        days = self.scheduled_procedure_step_start_date or DateRange()
        return WorklistQuery(
            patient_id=self.patient_id,
            accession_number=self.accession_number,
            modalities=self.modalities,
            station_ae_title=self.scheduled_station_ae_title,
            date_from=_day(days.from_),
            date_to=_day(days.to),
        )

    def to_criteria(self) -> WorklistCriteria:
        """Return what the worklist takes."""
        days = self.scheduled_procedure_step_start_date or DateRange()
        return WorklistCriteria(
            patient_id=self.patient_id,
            accession_number=self.accession_number,
            modalities=self.modalities,
            scheduled_station_ae_title=self.scheduled_station_ae_title,
            start_date_from=_day(days.from_),
            start_date_to=_day(days.to),
            statuses=self.statuses,
        )


@strawberry.input(
    description="A planned examination, by DICOM keyword. Texts are at most as long as DICOM "
    "allows; empty ones count as null. A UID and IDs that are null are made for a new entry, and "
    "stay as they are when an entry is updated."
)
class WorklistEntryInput:
    """A planned examination."""

    accession_number: str = strawberry.field(
        description="AccessionNumber, at most 16 characters: the order. No open entry of another "
        "patient may have it."
    )
    patient_id: str = strawberry.field(description="PatientID, at most 64 characters.")
    issuer_of_patient_id: str | None = strawberry.field(
        default=None,
        description="IssuerOfPatientID, at most 64 characters: the same PatientID of another "
        "issuer is another patient's.",
    )
    patient_name: str = strawberry.field(
        description="PatientName: `family^given^middle^prefix^suffix`, in up to three groups "
        "(`Yamada^Tarou=山田^太郎`) of at most 64 characters."
    )
    patient_birth_date: Date | None = strawberry.field(
        default=None, description="PatientBirthDate."
    )
    patient_sex: str | None = strawberry.field(
        default=None, description="PatientSex: `M`, `F` or `O`."
    )
    study_instance_uid: str | None = strawberry.field(
        default=None,
        description="StudyInstanceUID that the scanner writes into its images. No study or entry "
        "of another patient may have it.",
    )
    referring_physician_name: str | None = strawberry.field(
        default=None, description="ReferringPhysicianName."
    )
    requested_procedure_id: str | None = strawberry.field(
        default=None, description="RequestedProcedureID, at most 16 characters."
    )
    requested_procedure_description: str | None = strawberry.field(
        default=None, description="RequestedProcedureDescription, at most 64 characters."
    )
    modality: str = strawberry.field(description="Modality of the scanner, as `CT`.")
    scheduled_station_ae_title: str | None = strawberry.field(
        default=None,
        description="AE title of the scanner. Without it, scanners that ask for their own AE title "
        "do not get the entry.",
    )
    scheduled_procedure_step_id: str | None = strawberry.field(
        default=None,
        description="ScheduledProcedureStepID, at most 16 characters; one for each open entry of "
        "an AccessionNumber.",
    )
    scheduled_procedure_step_start_date: Date = strawberry.field(
        description="Day for which it is planned."
    )
    scheduled_procedure_step_start_time: Time | None = strawberry.field(
        default=None,
        description="Time of day, local to the scanner. Without it, scanners that ask for a range "
        "of times do not get the entry.",
    )
    scheduled_procedure_step_description: str | None = strawberry.field(
        default=None, description="What the scanner is to do, at most 64 characters."
    )
    scheduled_performing_physician_name: str | None = strawberry.field(
        default=None, description="ScheduledPerformingPhysicianName."
    )

    def to_values(self) -> EntryValues:
        """Return what the worklist takes."""
        return EntryValues(**dataclasses.asdict(self))


def _day(text: Date | None) -> date | None:
    return None if text is None else date.fromisoformat(text)


def _in_utc(moment: datetime | None) -> datetime | None:
    if moment is None or moment.tzinfo is not None:
        return moment
    return moment.replace(tzinfo=UTC)


@strawberry.input(
    description="Which jobs to list. Parts that are given must all match; null parts don't count."
)
class JobFilter:
    """Which jobs to list."""

    kinds: list[JobKind] | None = strawberry.field(
        default=None, description="Any of these kinds. An empty list matches nothing."
    )
    states: list[JobState] | None = strawberry.field(
        default=None, description="Any of these states. An empty list matches nothing."
    )
    study_instance_uid: str | None = strawberry.field(
        default=None, description="About the study of this StudyInstanceUID."
    )
    modality: str | None = strawberry.field(
        default=None, description="With the modality of this name."
    )

    def to_criteria(self) -> JobCriteria:
        """Return what the list takes."""
        return JobCriteria(
            kinds=self.kinds,
            states=self.states,
            study_instance_uid=self.study_instance_uid,
            modality=self.modality,
        )


@strawberry.input(description="A new value of an attribute.")
class TagValue:
    """A new value."""

    keyword: str = strawberry.field(description="Of the attribute (PS3.6), as `StudyDescription`.")
    value: str = strawberry.field(
        description="As DICOM writes it: `20261127`, `Doe^Jane`, `1\\\\2`; empty: no value."
    )


@strawberry.input(description="How a study is anonymised.")
class AnonymizeInput:
    """How a study is anonymised."""

    patient_id: str | None = strawberry.field(
        default=None,
        description="PatientID of the copy. Default: a generated one, always the same for one "
        "patient, so that the patient's studies stay together. It must not be that of a real "
        "patient.",
    )
    patient_name: str | None = strawberry.field(
        default=None, description="PatientName of the copy. Default: the PatientID."
    )
    keep: list[str] | None = strawberry.field(
        default=None,
        description="Keywords of attributes to keep, such as `StudyDate`, if their values contain "
        "no word of the patient's identity. Names, identifiers, dates of birth and UIDs can't "
        "be kept.",
    )
    replace: list[TagValue] | None = strawberry.field(
        default=None, description="Attributes with new values."
    )
    confirm_burned_in: bool = strawberry.field(
        default=False,
        description="A person has looked at the images that may show the patient's name, and they "
        "do not. Without it such a study is refused: `BURNED_IN_ANNOTATION`.",
    )

    def to_options(self) -> AnonymizationOptions:
        """Return what the service takes."""
        return AnonymizationOptions(
            patient_id=filled_in(self.patient_id),
            patient_name=filled_in(self.patient_name),
            keep=self.keep or (),
            replace=values_of(self.replace or ()),
            confirm_burned_in=self.confirm_burned_in,
        )


def values_of(tags: Iterable[TagValue]) -> dict[str, str]:
    """Return new values by keyword."""
    return {tag.keyword: tag.value for tag in tags}


def filled_in(text: str | None) -> str | None:
    """Return a text of a form; one that is empty or blank was not filled in."""
    return text if text and text.strip() else None
