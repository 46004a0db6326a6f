"""Trusted documents: manifests, identifiers, and what is refused."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from graph.http.trusted_documents import (
    DocumentRefused,
    TrustedDocuments,
    read_trusted_documents,
)
from graph.http.websocket import is_message
from graph.web.assets import page_bundle
from graph.web.documents import page_documents
from services.errors import InvalidInput
from services.settings import Settings
from tests.graph.http.offline import open_app

TEXT = "query Kind { __typename }"
OTHER = "query Other { other: __typename }"
DIGEST = hashlib.sha256(TEXT.encode()).hexdigest()
APOLLO = {
    "format": "apollo-persisted-query-manifest",
    "version": 1,
    "operations": [{"id": DIGEST, "name": "Kind", "type": "query", "body": TEXT}],
}
RELAY = {"0123456789abcdef0123456789abcdef": TEXT}
ANSWER = {"data": {"__typename": "Query"}}
RESPONSE_JSON = "application/graphql-response+json"


def manifest(folder: Path, content: object = APOLLO, name: str = "manifest.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "named",
    [
        {"documentId": f"sha256:{DIGEST}"},
        {"documentId": DIGEST},
        {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": DIGEST}}},
        {"documentId": DIGEST, "operationName": "Kind", "variables": {}, "extensions": {"a": 1}},
        {"documentId": DIGEST, "query": TEXT},
        {"query": TEXT, "extensions": {"persistedQuery": {"version": 1, "sha256Hash": DIGEST}}},
    ],
)
@pytest.mark.parametrize("only", [False, True])
async def test_a_document_is_executed_by_its_identifier(
    tmp_path: Path, method: str, named: dict[str, Any], only: bool
) -> None:
    path = manifest(tmp_path)
    async with open_app(tmp_path, trusted_documents_file=path, trusted_documents_only=only) as http:
        if method == "POST":
            response = await http.post("/graphql", json=named)
        else:
            given = {k: v if isinstance(v, str) else json.dumps(v) for k, v in named.items()}
            response = await http.get("/graphql", params=given)
    assert (response.status_code, response.json()) == (200, ANSWER)


async def test_the_identifiers_of_relay_and_codegen_are_known(tmp_path: Path) -> None:
    async with open_app(tmp_path, trusted_documents_file=manifest(tmp_path, RELAY)) as http:
        for name in (*RELAY, f"sha256:{DIGEST}"):
            response = await http.post("/graphql", json={"documentId": name})
            assert response.json() == ANSWER


@pytest.mark.parametrize(
    ("named", "code", "message"),
    [
        ({"documentId": "sha256:00"}, "PERSISTED_DOCUMENT_NOT_FOUND", "no document"),
        ({"documentId": 1}, "PERSISTED_DOCUMENT_NOT_FOUND", "no document"),
        ({"documentId": DIGEST, "query": OTHER}, "INVALID_INPUT", "is not the document"),
        ({"query": OTHER}, "DOCUMENT_NOT_TRUSTED", "TRUSTED_DOCUMENTS_ONLY"),
        (
            {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "0" * 64}}},
            "PERSISTED_QUERY_NOT_FOUND",
            "PersistedQueryNotFound",
        ),
        (
            {"query": TEXT, "extensions": {"persistedQuery": {"sha256Hash": "0" * 64}}},
            "INVALID_INPUT",
            "provided sha does not match query",
        ),
    ],
)
@pytest.mark.parametrize(("accept", "status"), [("application/json", 200), (RESPONSE_JSON, 400)])
async def test_what_is_not_trusted_is_refused_with_one_error(
    tmp_path: Path, named: dict[str, Any], code: str, *, message: str, accept: str, status: int
) -> None:
    given = {"trusted_documents_file": manifest(tmp_path), "trusted_documents_only": True}
    async with open_app(tmp_path, **given) as http:
        response = await http.post("/graphql", json=named, headers={"Accept": accept})
    assert response.status_code == status
    assert response.headers["content-type"] == accept
    (error,) = response.json()["errors"]
    assert error["extensions"] == {"code": code}
    assert message in error["message"]
    assert "data" not in response.json()


async def test_other_texts_are_executed_unless_documents_are_exclusive(tmp_path: Path) -> None:
    async with open_app(tmp_path, trusted_documents_file=manifest(tmp_path)) as http:
        response = await http.post("/graphql", json={"query": OTHER})
    assert response.json() == {"data": {"other": "Query"}}


async def test_a_folder_of_manifests_is_read_as_one(tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    manifest(folder, APOLLO, "a.json")
    manifest(folder, {"other": OTHER}, "b.json")
    documents = read_trusted_documents(folder, only=True)
    assert documents.resolve(None, "other", None) == OTHER
    assert documents.resolve(None, DIGEST, None) == TEXT


@pytest.mark.parametrize(
    "content",
    [[], "x", {"a": 1}, {"a": ""}, {"": TEXT}, APOLLO | {"operations": [{"id": "a"}]},
     APOLLO | {"operations": [1]}, APOLLO | {"operations": {}}],
)  # fmt: skip
def test_what_is_no_manifest_is_refused_at_the_start(tmp_path: Path, content: object) -> None:
    with pytest.raises(InvalidInput, match="not a manifest of trusted documents"):
        read_trusted_documents(manifest(tmp_path, content), only=False)


def test_unreadable_and_contradicting_manifests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="can't be read"):
        read_trusted_documents(tmp_path / "none.json", only=False)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InvalidInput, match="not valid JSON"):
        read_trusted_documents(tmp_path / "broken.json", only=False)
    folder = tmp_path / "two"
    folder.mkdir()
    with pytest.raises(InvalidInput, match="has no manifest"):
        read_trusted_documents(folder, only=False)
    manifest(folder, {"a": TEXT}, "a.json")
    manifest(folder, {"a": OTHER}, "b.json")
    with pytest.raises(InvalidInput, match="two documents have the identifier 'a'"):
        read_trusted_documents(folder, only=False)


def test_exclusive_documents_need_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="TRUSTED_DOCUMENTS_FILE is required"):
        Settings(_env_file=None, data_dir=tmp_path, trusted_documents_only=True)


async def test_documents_that_the_schema_does_not_know_are_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = manifest(tmp_path, {"a": "{ nothing }", "b": "{", "c": TEXT})
    with caplog.at_level(logging.WARNING):
        async with open_app(tmp_path, trusted_documents_file=path):
            pass
    assert "2 trusted documents are invalid" in caplog.text
    assert "Cannot query field 'nothing'" in caplog.text


def test_the_operations_of_our_own_pages_are_trusted() -> None:
    names = set()
    for name, asset in page_bundle().files.items():
        if name.endswith(".js"):
            script = asset.body.decode()
            names |= {
                line.split()[1].split("(")[0]
                for part in script.replace('"', "\n").replace("`", "\n").split("\n")
                if (line := part.strip()).startswith(("query ", "mutation ", "subscription "))
                and line.endswith(("{", "}", ")"))
            }
    texts = page_documents()
    assert len(names) > 10
    assert [name for name in names if not any(f" {name}" in text for text in texts)] == []


def test_without_manifests_nothing_is_known() -> None:
    documents = TrustedDocuments()
    assert documents.resolve(TEXT, None, None) == TEXT
    assert documents.resolve(None, None, None) is None
    with pytest.raises(DocumentRefused):
        documents.resolve(None, DIGEST, None)


@pytest.mark.parametrize(
    ("payload", "is_valid"),
    [
        ({"query": TEXT}, True),
        ({"documentId": DIGEST}, True),
        ({"extensions": {"persistedQuery": {}}}, True),
        ({}, False),
        ({"query": None}, False),
        ({"documentId": DIGEST, "query": 1}, False),
        ({"query": TEXT, "extensions": 1}, False),
    ],
)
def test_a_websocket_may_name_a_document(payload: dict[str, Any], is_valid: bool) -> None:
    assert is_message({"type": "subscribe", "id": "1", "payload": payload}) is is_valid
