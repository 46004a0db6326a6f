"""Global object identifiers: opaque to callers, Orthanc's identifier and the type inside."""

import base64
import binascii
from typing import Literal, get_args

import strawberry

from services.errors import InvalidInput
from services.orthanc.identifiers import is_orthanc_id

TypeName = Literal["Patient", "Study", "Series", "Instance"]


def encode_node_id(type_name: TypeName, orthanc_id: str) -> strawberry.ID:
    """Make the `id` of an object."""
    return strawberry.ID(base64.urlsafe_b64encode(f"{type_name}:{orthanc_id}".encode()).decode())


def decode_node_id(node_id: str) -> tuple[TypeName, str] | None:
    """Read type and Orthanc identifier from an `id`; None when we did not make it."""
    try:
        text = base64.b64decode(node_id, altchars="-_", validate=True).decode("ascii")
    except (binascii.Error, UnicodeError, ValueError):
        return None
    name, _, orthanc_id = text.partition(":")
    for type_name in get_args(TypeName):
        # One spelling for one object: base64 has several for the same bytes.
        if (
            name == type_name
            and is_orthanc_id(orthanc_id)
            and encode_node_id(type_name, orthanc_id) == node_id
        ):
            return type_name, orthanc_id
    return None


def require_node_id(type_name: TypeName, node_id: str) -> str:
    """Read the Orthanc identifier from the `id` of an object of one type.

    Raises:
        InvalidInput: It is no such `id`.
    """
    decoded = decode_node_id(node_id)
    if decoded is None or decoded[0] != type_name:
        raise InvalidInput(f"That is not the id of a {type_name}. Take it from its field `id`.")
    return decoded[1]
