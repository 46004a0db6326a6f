"""What a comparison finds, done or only told."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from services.sync.differences import batches
from services.sync.faults import of_these
from services.sync.isolating import PATIENCE, Isolation
from services.sync.reconciling import BATCH_INSTANCES, Reconciler
from services.sync.roll_ups import RollUps


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a comparison found and did, or would do.

    Attributes:
        indexed: Instances that Orthanc holds and that were missing or replaced.
        removed: Instances that Orthanc has no more.
        recounted: Studies whose counts or parents were wrong.
        faults: Reasons by instance id of what Orthanc holds and could not be indexed; what was
            passed by because it failed before is told only where nothing was repaired.
    """

    indexed: int = 0
    removed: int = 0
    recounted: int = 0
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def up_to_date(self) -> bool:
        """Whether nothing had to be done."""
        return not (self.indexed or self.removed or self.recounted)


class Repairs:
    """Carries out what a comparison finds; without `repair` it only counts."""

    def __init__(
        self, reconciler: Reconciler, isolation: Isolation, roll_ups: RollUps, *, repair: bool
    ) -> None:
        self._reconciler = reconciler
        self._isolation = isolation
        self._roll_ups = roll_ups
        self._repair = repair
        # Sets, because a comparison that repairs nothing meets the same difference twice.
        self._indexed: set[str] = set()
        self._removed: set[str] = set()
        self._recounted: set[str] = set()
        self._faults: dict[str, str] = {}

    async def reconcile(self, instance_ids: Iterable[str], *, patience: int = PATIENCE) -> bool:
        """Deal with instances that may differ.

        Args:
            instance_ids: The instances in question.
            patience: As in `Isolation.reconcile`.

        Returns:
            Whether they were in agreement and none is faulty.
        """
        is_same = True
        # In an order of their own: a batch that fails is known again by its first instance.
        for batch in batches(sorted(instance_ids), BATCH_INSTANCES):
            is_same &= await (
                self._reconcile(batch, patience) if self._repair else self._tell(batch)
            )
        return is_same

    async def roll_up(self, study_ids: Collection[str]) -> bool:
        """Deal with studies whose counts may be wrong.

        Returns:
            Whether they were right.
        """
        wrong = await self._roll_ups.find_wrong(study_ids)
        if wrong and self._repair:
            await self._roll_ups.repair(wrong)
        self._recounted |= wrong
        return not wrong

    def report(self) -> SyncReport:
        """Return what was found until now."""
        return SyncReport(
            indexed=len(self._indexed),
            removed=len(self._removed),
            recounted=len(self._recounted),
            faults=dict(self._faults),
        )

    async def _reconcile(self, batch: list[str], patience: int) -> bool:
        done = await self._isolation.reconcile(batch, patience=patience)
        self._indexed |= done.indexed
        self._removed |= done.removed
        self._faults |= done.faults
        return not (done.indexed or done.removed or done.faults)

    async def _tell(self, batch: list[str]) -> bool:
        differences = await self._reconciler.differences(batch)
        faults = of_these(differences.missing, await self._reconciler.faults.on_record())
        self._faults |= {fault.instance_id: fault.reason for fault in faults}
        self._indexed |= {file.instance_id for file in differences.missing} - self._faults.keys()
        self._removed |= set(differences.gone)
        return not differences
