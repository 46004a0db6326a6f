"""What an operation showed, minted and was refused, collected until the audit trail has it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(slots=True)
class Accesses:
    """Filled in by resolvers without I/O: a tree of 2,000 URLs is one record, not 2,000.

    Attributes:
        fields: Root fields that were let through, in their order.
        patient_ids: Orthanc's identifiers of the patients that are in the answer.
        study_ids: Orthanc's identifiers of the studies that are in the answer.
        number_of_objects: Objects of the answer that were counted.
        minted: How many URLs, by the field that minted them.
        refusals: Root field and code of what was refused.
        viewed: Patients and studies of which a view was written down already.
    """

    fields: list[str] = field(default_factory=list)
    patient_ids: set[str] = field(default_factory=set)
    study_ids: set[str] = field(default_factory=set)
    number_of_objects: int = 0
    minted: Counter[str] = field(default_factory=Counter)
    refusals: list[tuple[str, str]] = field(default_factory=list)
    viewed: set[str] = field(default_factory=set)

    def see(self, documents: Iterable[Mapping[str, Any]]) -> None:
        """Take over whom stored documents of any level are about.

        What is below a study that was seen adds nobody: call it where a tree begins, and where it
        leads to other studies.
        """
        for document in documents:
            patient_id = document.get("orthancPatientId")
            if patient_id is None:
                self.patient_ids.add(document["_id"])
                continue
            self.patient_ids.add(patient_id)
            self.study_ids.add(document.get("orthancStudyId") or document["_id"])

    @property
    def is_new_view(self) -> bool:
        """Whether the answer holds somebody whose view is not written down yet."""
        return not self.viewed >= self.patient_ids | self.study_ids

    def take(self) -> "Accesses":
        """Return what was collected and begin anew; `viewed` stays, and learns who was in it."""
        taken = replace(self, viewed=set(self.viewed))
        self.viewed |= self.patient_ids | self.study_ids
        self.fields, self.patient_ids, self.study_ids = [], set(), set()
        self.number_of_objects, self.minted, self.refusals = 0, Counter(), []
        return taken
