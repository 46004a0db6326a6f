"""Finds and repairs parents whose counts or attributes do not match their children."""

import logging
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from services.database import translated_database_faults, translated_index_faults
from services.errors import RecordRefused
from services.index.record import to_stored_precision
from services.index.rollup import find_miscounted_patients, roll_up
from services.index.writes import Parents, find_lineages, find_patients
from services.tasks import HANGING_SECONDS, beat

_log = logging.getLogger(__name__)

_STUDIES_AT_ONCE = 50
"""Studies in one roll-up: one command aggregates their instances, and may take 20 s."""


class RollUps:
    """Checks parents against their children and repairs them: counts and attributes."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._database = database

    async def roll_up(
        self, study_ids: Collection[str], *, with_series: bool = True, dry_run: bool = False
    ) -> set[str]:
        """Recompute studies, their series and their patients from their children.

        Args:
            study_ids: The studies in question.
            with_series: Compare series with their instances as well: 10 us an instance.
            dry_run: Write nothing.

        Returns:
            The studies that were wrong, or whose series or patient was wrong.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        wrong: set[str] = set()
        ordered = sorted(study_ids)
        for start in range(0, len(ordered), _STUDIES_AT_ONCE):
            beat(HANGING_SECONDS)
            chunk = ordered[start : start + _STUDIES_AT_ONCE]
            wrong |= await self._roll_up(chunk, with_series=with_series, dry_run=dry_run)
        if wrong and not dry_run:
            _log.info("%d studies were rolled up again", len(wrong))
        return wrong

    async def roll_up_patients(self, *, dry_run: bool = False) -> set[str]:
        """Repair the patients whose number of studies is wrong.

        Args:
            dry_run: Write nothing.

        Returns:
            The ids of these patients.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_index_faults():
            wrong = set(await find_miscounted_patients(self._database))
            if wrong and not dry_run:
                parents = Parents((), (), wrong)
                await roll_up(self._database, parents, _now(), children_written=False)
        return wrong

    async def _roll_up(
        self, study_ids: Sequence[str], *, with_series: bool, dry_run: bool
    ) -> set[str]:
        with translated_database_faults():
            find = find_lineages if with_series else find_patients
            lineages = await find(self._database, study_ids)
        try:
            with translated_index_faults():
                changed = await roll_up(
                    self._database,
                    Parents.of(lineages),
                    _now(),
                    children_written=False,
                    dry_run=dry_run,
                )
        except RecordRefused as exc:
            if len(study_ids) == 1:
                _log.error("a study can't be rolled up again", exc_info=exc)
                return set(study_ids)
            # A study that MongoDB refuses must not prevent the repair of others.
            alone = [
                await self._roll_up([study_id], with_series=with_series, dry_run=dry_run)
                for study_id in study_ids
            ]
            return set().union(*alone)
        return {
            one.study
            for one in lineages
            if one.series in changed.series
            or one.study in changed.studies
            or one.patient in changed.patients
        }


def _now() -> datetime:
    return to_stored_precision(datetime.now(UTC))
