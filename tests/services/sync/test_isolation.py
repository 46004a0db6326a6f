"""Instances that stop Orthanc are found; an Orthanc that is slow or away is waited for."""

from collections.abc import Iterable
from unittest.mock import AsyncMock

import pytest

from services.errors import OrthancOutcomeUnknown, OrthancTimedOut, OrthancUnavailable
from services.orthanc.answers import StoredFile
from services.sync import isolation as isolating
from services.sync.faults import MAX_ATTEMPTS
from services.sync.isolation import PoisonIsolator
from services.sync.reconciler import Reconciliation


def make(reconciler: AsyncMock, orthanc: AsyncMock | None = None) -> PoisonIsolator:
    return PoisonIsolator(orthanc or AsyncMock(), reconciler, pause_seconds=0)


def asked(reconciler: AsyncMock) -> list[list[str]]:
    return [call.args[0] for call in reconciler.reconcile.await_args_list]


async def test_an_orthanc_that_is_slow_puts_no_instance_on_record() -> None:
    reconciler = AsyncMock()
    reconciler.reconcile.side_effect = OrthancTimedOut
    isolation = make(reconciler)
    for _ in range(6):
        with pytest.raises(OrthancTimedOut):
            await isolation.reconcile(["a", "b"])
    assert asked(reconciler) == [["a", "b"]] * 6
    reconciler.faults.record.assert_not_awaited()


def stopped_by(poison: str) -> AsyncMock:
    async def reconcile(instance_ids: Iterable[str]) -> Reconciliation:
        if poison in instance_ids:
            raise OrthancOutcomeUnknown
        return Reconciliation(indexed=set(instance_ids))

    reconciler = AsyncMock()
    reconciler.reconcile.side_effect = reconcile
    return reconciler


async def test_suspects_are_told_apart_at_once() -> None:
    reconciler, orthanc = stopped_by("c"), AsyncMock()
    file = StoredFile("c", "series", "uuid", 1, {})
    orthanc.stored_files.return_value = [file]
    done = await make(reconciler, orthanc).reconcile(list("abcd"), patience=0)
    assert asked(reconciler) == [list("abcd"), ["a", "b"], ["c", "d"], ["c"], ["d"]]
    assert (done.indexed, list(done.faults)) == ({"a", "b", "d"}, ["c"])
    reconciler.faults.record.assert_awaited_once_with(
        [file], done.faults, least_attempts=MAX_ATTEMPTS
    )


async def test_a_batch_is_known_again_between_others_that_do_no_harm() -> None:
    reconciler, orthanc = stopped_by("c"), AsyncMock()
    orthanc.stored_files.return_value = []
    isolation = make(reconciler, orthanc)
    for _ in range(3):
        await isolation.reconcile(["x"])
        with pytest.raises(OrthancOutcomeUnknown):
            await isolation.reconcile(["b", "c"])
    done = await isolation.reconcile(["b", "c"])
    assert done.indexed == {"b"}


async def test_an_orthanc_that_stays_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolating, "_RETURN_SECONDS", 0.05)
    reconciler, orthanc = stopped_by("c"), AsyncMock()
    orthanc.system.side_effect = OrthancUnavailable
    with pytest.raises(OrthancUnavailable, match="does not answer"):
        await make(reconciler, orthanc).reconcile(["c"], patience=0)
    reconciler.faults.record.assert_not_awaited()
