"""Batched reads of one request: one MongoDB command per level of a tree."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import TypeVar

from strawberry.dataloader import DataLoader

from services.search.paging import Page, PageRequest
from services.tree import Slice, StoredFields, Tree

P = TypeVar("P", bound=Hashable)
C = TypeVar("C")

PagedKey = tuple[str, P]
"""A parent's identifier and which part of its children is wanted."""


class Loaders:
    """The loaders, named after what they load and by what.

    Args:
        tree: Reads from MongoDB.
    """

    def __init__(self, tree: Tree) -> None:
        self.patient_by_id = DataLoader(load_fn=tree.patients)
        self.study_by_id = DataLoader(load_fn=tree.studies)
        self.series_by_id = DataLoader(load_fn=tree.series)
        self.instance_by_id = DataLoader(load_fn=tree.instances)
        self.series_by_study_id = DataLoader(load_fn=tree.series_of_studies)
        self.instances_by_series_id: DataLoader[PagedKey[Slice], list[StoredFields]] = DataLoader(
            load_fn=_by_part(tree.instances_of_series)
        )
        self.studies_by_patient_id: DataLoader[PagedKey[PageRequest], Page] = DataLoader(
            load_fn=_by_part(tree.studies_of_patients)
        )


def _by_part(
    load: Callable[[Sequence[str], P], Awaitable[list[C]]],
) -> Callable[[list[PagedKey[P]]], Awaitable[list[C]]]:
    """Load the parents that want the same part together; usually that is all of them."""

    async def load_all(keys: list[PagedKey[P]]) -> list[C]:
        parents: dict[P, list[str]] = defaultdict(list)
        for parent_id, part in keys:
            parents[part].append(parent_id)
        children: dict[PagedKey[P], C] = {}
        for part, parent_ids in parents.items():
            for parent_id, found in zip(parent_ids, await load(parent_ids, part), strict=True):
                children[parent_id, part] = found
        return [children[key] for key in keys]

    return load_all
