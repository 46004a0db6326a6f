from collections.abc import Iterator

import models
from models import DOCUMENTS, NamedDocument, StoredDocument


def kinds(base: type[NamedDocument] = NamedDocument) -> Iterator[type[NamedDocument]]:
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_every_kind_of_document_is_opened_with_the_database() -> None:
    # One that is left out is kept in a collection that bears its parent's name.
    assert set(kinds()) - {StoredDocument} == set(DOCUMENTS)


def test_every_kind_of_document_has_a_collection_of_its_own() -> None:
    names = [vars(kind)["Settings"].name for kind in DOCUMENTS]
    assert len(set(names)) == len(names)
    assert {kind.__name__ for kind in DOCUMENTS} <= set(models.__all__)
