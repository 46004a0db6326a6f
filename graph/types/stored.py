"""The one way from a stored document to an object of the API.

Plain attributes of a type have the names of the Beanie document that it shows. They are copied
without validation: only this server writes them, and parsing a document into its class takes four
times as long as reading and copying it.
"""

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Self

from graph.context import Level
from graph.relay import encode_node_id
from models import StoredDocument
from models.names import contract_name
from services.errors import InvalidInput, NotFound
from services.query.tree import Slice


def slice_of(first: int | None, offset: int) -> Slice:
    """Check the arguments of a plain list.

    Args:
        first: How many at most; None for all.
        offset: 0-based position of the first.

    Raises:
        InvalidInput: One is negative.
    """
    for name, value in (("first", first), ("offset", offset)):
        if value is not None and value < 0:
            raise InvalidInput("`first` and `offset` are 0 or more.", argument=name)
    return Slice(offset, first)


class FromStored:
    """A type whose plain attributes are those of a stored document.

    Attributes:
        document_class: Declares the attributes and their defaults.
        identified_by: The attribute that shows the document's `_id`.
        type_name: Its name in the schema, and in global identifiers.
    """

    document_class: ClassVar[type[StoredDocument]]
    identified_by: ClassVar[str]
    type_name: ClassVar[Level]

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Make an object of a document.

        Args:
            stored: The document by stored names, as MongoDB returns it.
        """
        get = stored.get
        attributes = _attributes(cls)  # type: ignore[arg-type]  # classes can be hashed
        made = cls.__new__(cls)
        # What the generated __init__ does, without 20 keyword arguments: half the time.
        made.__dict__ = {name: get(key, default) for name, key, default in attributes}
        made.__dict__["id"] = encode_node_id(cls.type_name, stored["_id"])
        return made

    @classmethod
    def from_found(cls, stored: Mapping[str, Any] | None) -> Self:
        """Make an object that something else refers to.

        Raises:
            NotFound: It was deleted since the other one was read.
        """
        if stored is None:
            raise NotFound(f"This {cls.__name__.lower()} was deleted a moment ago.")
        return cls.from_stored(stored)


@cache
def _attributes(shown: type[FromStored]) -> tuple[tuple[str, str, object], ...]:
    """Return attribute, stored name and default of everything that is copied."""
    return tuple(
        _attribute(shown, field.name)
        for field in dataclasses.fields(shown)  # type: ignore[arg-type]  # Strawberry types are dataclasses
        if field.init and field.name != "id"
    )


def _attribute(shown: type[FromStored], name: str) -> tuple[str, str, object]:
    if name == shown.identified_by:
        return name, "_id", None
    declared = shown.document_class.model_fields[name]
    default = None if declared.is_required() else declared.get_default(call_default_factory=True)
    return name, contract_name(name), default
