"""Objects that can be found again by their global identifier."""

from typing import ClassVar

import strawberry

from graph.node_ids import TypeName, encode_node_id


@strawberry.interface(description="An object that `node` finds again by its `id`.")
class Node:
    """What the four DICOM levels have in common."""

    type_name: ClassVar[TypeName]

    @property
    def orthanc_id(self) -> str:
        """Orthanc's identifier of the object."""
        raise NotImplementedError

    @strawberry.field(
        description="Global identifier: opaque, stable, for `node` and the delete mutations."
    )
    def id(self) -> strawberry.ID:
        """Return the global identifier."""
        return encode_node_id(self.type_name, self.orthanc_id)
