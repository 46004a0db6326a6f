from collections.abc import Iterator

import pytest

import models
from models import DOCUMENTS, NamedDocument, StoredDocument, StudyDocument, Thumbnail
from models.attributes import StudyStatement
from models.stored import NamedModel, stored_name


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


@pytest.mark.parametrize("kind", [*DOCUMENTS, StudyStatement, Thumbnail])
def test_a_class_tells_the_stored_names_of_its_fields(kind: type[NamedModel]) -> None:
    fields = {field: info.alias for field, info in kind.model_fields.items() if field != "id"}
    assert {field: stored_name(getattr(kind, field)) for field in fields} == fields


def test_a_field_that_is_not_declared_has_no_name() -> None:
    with pytest.raises(AttributeError):
        _ = StudyDocument.patient_idd
