"""Finding and repairing parents that are not what their children make them."""

import logging
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from services.database import translated_database_faults, translated_index_faults
from services.errors import RecordRefused
from services.index.record import to_stored_precision
from services.index.rollup import find_miscounted_patients, find_wrong_parents, roll_up
from services.index.writes import Parents, find_lineages, find_patients
from services.tasks import HANGING_SECONDS, beat

_log = logging.getLogger(__name__)

_STUDIES_AT_ONCE = 50
"""Their instances are aggregated by one command, which MongoDB ends after 20 s."""


class RollUps:
    """Checks parents against their children and repairs them: counts and attributes."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._database = database

    async def find_wrong(self, study_ids: Collection[str], *, with_series: bool = True) -> set[str]:
        """Return those of some studies that have a parent which a roll-up would change.

        Args:
            study_ids: The studies in question.
            with_series: Compare series with their instances as well: 10 us an instance.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        wrong: set[str] = set()
        for chunk in _chunks(study_ids):
            beat(HANGING_SECONDS)
            with translated_database_faults():
                find = find_lineages if with_series else find_patients
                lineages = await find(self._database, chunk)
                parents = Parents.of(lineages)
                found = await find_wrong_parents(self._database, parents, _now())
            wrong |= {
                one.study
                for one in lineages
                if one.series in found.series
                or one.study in found.studies
                or one.patient in found.patients
            }
        return wrong

    async def repair(self, study_ids: Collection[str]) -> None:
        """Make studies, their series and their patients what their children make them.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        _log.info("%d studies are rolled up again", len(study_ids))
        for chunk in _chunks(study_ids):
            beat(HANGING_SECONDS)
            await self._repair(chunk)

    async def find_miscounted_patients(self) -> set[str]:
        """Return the patients with another number of studies than they say, of all there are.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            return set(await find_miscounted_patients(self._database))

    async def repair_patients(self, patient_ids: Collection[str]) -> None:
        """Make patients what their studies make them.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_index_faults():
            parents = Parents((), (), patient_ids)
            await roll_up(self._database, parents, _now(), children_written=False)

    async def _repair(self, study_ids: Sequence[str]) -> None:
        with translated_database_faults():
            parents = Parents.of(await find_lineages(self._database, study_ids))
        try:
            with translated_index_faults():
                await roll_up(self._database, parents, _now(), children_written=False)
        except RecordRefused as exc:
            # The others must not wait for it.
            if len(study_ids) > 1:
                for study_id in study_ids:
                    await self._repair([study_id])
                return
            _log.error("a study can't be rolled up again", exc_info=exc)


def _chunks(study_ids: Collection[str]) -> list[list[str]]:
    ordered = sorted(study_ids)
    return [
        ordered[start : start + _STUDIES_AT_ONCE]
        for start in range(0, len(ordered), _STUDIES_AT_ONCE)
    ]


def _now() -> datetime:
    return to_stored_precision(datetime.now(UTC))
