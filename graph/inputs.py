"""What lists are filtered and ordered by."""

from datetime import UTC, date, datetime
from enum import Enum

import strawberry

from graph.types.scalars import Date
from services.auth.scope import Scope
from services.query.filters import PatientCriteria, StudyCriteria
from services.query.paging import Order


@strawberry.input(description="A range of days; both ends belong to it, a missing end is open.")
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
        "list is no filter.",
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

    def to_criteria(self, scope: Scope) -> StudyCriteria:
        """Return what the search service takes, for a caller of this scope."""
        days = self.study_date or DateRange()
        return StudyCriteria(
            scope=scope,
            patient_id=self.patient_id,
            patient_name=self.patient_name,
            accession_number=self.accession_number,
            study_instance_uids=self.study_instance_uids,
            study_date_from=_day(days.from_),
            study_date_to=_day(days.to),
            modalities=self.modalities,
            text=self.text,
            updated_since=_in_utc(self.updated_since),
        )


@strawberry.input(description="Which patients to list. Parts that are given must all match.")
class PatientFilter:
    """Which patients to list."""

    patient_id: str | None = strawberry.field(
        default=None, description="Exactly this PatientID; padding is ignored."
    )
    patient_name: str | None = strawberry.field(
        default=None,
        description="Beginnings of words of the name, in any order; case and accents do not "
        "matter.",
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


def _day(text: Date | None) -> date | None:
    return None if text is None else date.fromisoformat(text)


def _in_utc(moment: datetime | None) -> datetime | None:
    if moment is None or moment.tzinfo is not None:
        return moment
    return moment.replace(tzinfo=UTC)
