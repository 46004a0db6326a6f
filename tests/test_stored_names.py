"""Stored names come from the documents (`models.stored.stored_name`), not from literals."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from models import DOCUMENTS, Thumbnail
from models.attributes import StudyStatement
from models.stored import NamedModel
from tests.documentation import ROOT

_KINDS: list[type[NamedModel]] = [*DOCUMENTS, StudyStatement, Thumbnail]
_NAMES = {
    info.alias
    for kind in _KINDS
    for field, info in kind.model_fields.items()
    # A name of one word, such as `modality`, is a key of much else as well; `_id` is MongoDB's.
    if info.alias not in {field, "_id"}
}
_OTHER_NAMES = {
    "services/dicom/patient_override.py": "arguments of the GraphQL API",
    "services/frames/variant.py": "arguments of the GraphQL API",
    "services/modalities/declaration.py": "arguments of the GraphQL API",
    "services/modalities/forwarding.py": "arguments of the GraphQL API",
    "services/modalities/query.py": "arguments of the GraphQL API",
    "services/modalities/retrieve.py": "arguments of the GraphQL API",
    "services/migration/local_files.py": "fields of the old system's records",
    "services/settings.py": "members of LABEL_RULES",
    "services/migration/source.py": "fields of the old system's records",
}
_TO_DO = ("services/dicomweb/",)
"""Packages that still have literals."""

_MODULES = [
    path
    for path in sorted((ROOT / "services").rglob("*.py"))
    if not (name := path.relative_to(ROOT).as_posix()).startswith(_TO_DO)
    and name not in _OTHER_NAMES
]


@pytest.mark.parametrize("module", _MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_has_no_literals_of_stored_names(module: Path) -> None:
    assert list(literals(module.read_text())) == []


def test_literals_are_found_in_filters_pipelines_and_paths() -> None:
    source = '"""studyID"""\nfind({"patientID": 1, "x": "$studyDate"}, f"{a}.frameIndex", "rows")'
    assert sorted(literals(source)) == [(2, "$studyDate"), (2, ".frameIndex"), (2, "patientID")]


def literals(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of string literals that name a stored field; not of docstrings."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = node.value.removeprefix("$").split(".")
            # `filter.studyDate` in a message is a path of the GraphQL API.
            is_path = node.value.startswith(("$", "."))
            looked_at = names if is_path else names[:1]
            if id(node) not in docstrings and not _NAMES.isdisjoint(looked_at):
                yield node.lineno, node.value
