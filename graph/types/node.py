"""Objects that can be found again by their global identifier."""

import strawberry


@strawberry.interface(description="An object that `node` finds again by its `id`.")
class Node:
    """What the four DICOM levels have in common."""

    id: strawberry.ID = strawberry.field(
        description="Global identifier: opaque, stable, for `node` and the delete mutations."
    )
