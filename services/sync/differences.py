"""How the index differs from Orthanc: pure functions on what both say."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.orthanc.answers import StoredFile


@dataclass(frozen=True, slots=True)
class IndexedInstance:
    """What the index says of an instance."""

    revision: str
    study_id: str


@dataclass(frozen=True, slots=True)
class Differences:
    """How the index differs from Orthanc for some instances.

    Attributes:
        missing: In Orthanc with a revision that is not indexed.
        gone: Indexed, and not in Orthanc.
        unchanged_studies: Studies of the instances that are in agreement.
    """

    missing: Sequence[StoredFile]
    gone: Sequence[str]
    unchanged_studies: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.gone)


def find_differences(
    instance_ids: Iterable[str], held: Iterable[StoredFile], indexed: Mapping[str, IndexedInstance]
) -> Differences:
    """Compare what Orthanc holds with what is indexed.

    Args:
        instance_ids: The instances in question.
        held: Those of them that Orthanc holds.
        indexed: Those of them that are indexed, by instance id.
    """
    by_id = {file.instance_id: file for file in held}
    missing = [
        file
        for file in by_id.values()
        if file.instance_id not in indexed or indexed[file.instance_id].revision != file.revision
    ]
    differing = {file.instance_id for file in missing}
    return Differences(
        missing=missing,
        gone=[
            instance_id
            for instance_id in instance_ids
            if instance_id in indexed and instance_id not in by_id
        ],
        unchanged_studies=frozenset(
            indexed[instance_id].study_id for instance_id in by_id if instance_id not in differing
        ),
    )


def batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    """Cut a sequence into lists of at most `size`."""
    batch: list[str] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
