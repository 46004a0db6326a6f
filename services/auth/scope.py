"""Scopes: the studies that a principal may see.

Objects outside of a scope are treated as if they were not stored. Lists and look-ups add the scope
to their queries (`services.query.visibility`), and events use `Scope.covers`.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scope:
    """A set of studies, by identifier or by label.

    Attributes:
        study_ids: Orthanc's identifiers; None: no limit by identifier.
        labels: A study with any of these belongs to the scope; None: no limit by label.
    """

    study_ids: frozenset[str] | None = None
    labels: frozenset[str] | None = None

    @property
    def is_all(self) -> bool:
        """Whether every study belongs to it."""
        return self.study_ids is None and self.labels is None

    def covers(self, study_id: str, labels: Iterable[str]) -> bool:
        """Return whether a study belongs to it.

        Args:
            study_id: Orthanc's identifier.
            labels: All labels of the study.
        """
        if self.study_ids is not None and study_id not in self.study_ids:
            return False
        return self.labels is None or not self.labels.isdisjoint(labels)

    def visible_labels(self, labels: Iterable[str]) -> list[str]:
        """Return the labels that its holder may see, in their order.

        Labels may be names of tenants and projects. A caller who is limited to labels sees these
        labels; one who is limited to studies, such as the holder of a share, sees none.
        """
        if self.study_ids is not None:
            return []
        return [one for one in labels if self.labels is None or one in self.labels]


ALL = Scope()
"""Everything that is stored."""

NOTHING = Scope(study_ids=frozenset())
"""No study at all: the scope of callers who could not be identified."""
