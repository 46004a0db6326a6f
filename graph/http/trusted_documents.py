"""Trusted documents: operations that clients name instead of sending their text.

Relay, graphql-codegen and Apollo write the manifests when a front end is built. Requests name a
document by `documentId` (GraphQL over HTTP, appendix "Persisted Documents") or by Apollo's
`extensions.persistedQuery`.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
from graphql import GraphQLError, GraphQLSchema, GraphQLSyntaxError, parse, validate

from services.errors import InvalidInput

_log = logging.getLogger(__name__)

DOCUMENT_ID = "documentId"
PERSISTED_QUERY = "persistedQuery"

_APOLLO_FORMAT = "apollo-persisted-query-manifest"
_SHA256 = "sha256:"
_NAMED_MAX = 5
"""Most documents that one warning names."""


class DocumentRefused(Exception):
    """A request that names an unknown document, or sends one that is not trusted.

    Attributes:
        error: For the caller.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.error = GraphQLError(message, extensions={"code": code})


@dataclass(frozen=True, slots=True)
class TrustedDocuments:
    """The documents of the manifests.

    Attributes:
        texts: By identifier: the manifest's own, and the SHA-256 of the text in lower-case hex
            digits, alone and after `sha256:`.
        is_configured: Whether there is a manifest.
        are_exclusive: Whether other documents are refused (TRUSTED_DOCUMENTS_ONLY).
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    is_configured: bool = False
    are_exclusive: bool = False

    def with_own(self, texts: Iterable[str]) -> "TrustedDocuments":
        """Return these documents together with those of our own pages."""
        return replace(self, texts={**self.texts, **_by_digest(texts)})

    def resolve(
        self, text: str | None, document_id: object, extensions: Mapping[str, Any] | None
    ) -> str | None:
        """Return the text of an operation.

        Args:
            text: As sent; None if only an identifier was sent.
            document_id: The parameter `documentId`; None if it is absent.
            extensions: Of the request; `persistedQuery` is Apollo's identifier.

        Returns:
            None if there is neither text nor identifier.

        Raises:
            DocumentRefused: The identifier is unknown or does not match the text, or the text is
                not trusted and must be.
        """
        if document_id is not None:
            found = self.texts.get(document_id) if isinstance(document_id, str) else None
            if found is None:
                raise DocumentRefused(
                    "PERSISTED_DOCUMENT_NOT_FOUND", "There is no document with this documentId."
                )
            if text not in {None, found}:
                raise DocumentRefused(
                    InvalidInput.code, "`query` is not the document that `documentId` names."
                )
            return found
        persisted = (extensions or {}).get(PERSISTED_QUERY)
        if isinstance(persisted, Mapping):
            text = self._persisted(text, persisted)
        if text is not None and self.are_exclusive and _digest(text) not in self.texts:
            raise DocumentRefused(
                "DOCUMENT_NOT_TRUSTED",
                "This server executes trusted documents only (TRUSTED_DOCUMENTS_ONLY).",
            )
        return text

    def _persisted(self, text: str | None, persisted: Mapping[str, Any]) -> str:
        """Look up a document by Apollo's protocol, whose clients expect its error messages."""
        digest = persisted.get("sha256Hash")
        if text is not None:
            if self.is_configured and digest != _digest(text):
                raise DocumentRefused(InvalidInput.code, "provided sha does not match query")
            return text
        if not self.is_configured:
            # Apollo's clients then send the text.
            raise DocumentRefused("PERSISTED_QUERY_NOT_SUPPORTED", "PersistedQueryNotSupported")
        found = self.texts.get(digest) if isinstance(digest, str) else None
        if found is None:
            raise DocumentRefused("PERSISTED_QUERY_NOT_FOUND", "PersistedQueryNotFound")
        return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read_trusted_documents(path: Path | None, *, only: bool) -> TrustedDocuments:
    """Read the manifests. Blocks.

    Args:
        path: A manifest, or a folder of manifests (`*.json`); None: there is none.
        only: Whether other documents are refused.

    Raises:
        InvalidInput: A file can't be read or is not a manifest, or two documents have the same
            identifier.
    """
    if path is None:
        return TrustedDocuments()
    texts: dict[str, str] = {}
    for file in _files(path):
        for name, text in _manifest(file):
            if texts.setdefault(name, text) != text:
                raise InvalidInput(f"{file}: two documents have the identifier {name[:80]!r}.")
    return TrustedDocuments(
        texts | _by_digest(texts.values()), is_configured=True, are_exclusive=only
    )


def _by_digest(texts: Iterable[str]) -> dict[str, str]:
    digests = [(_digest(text), text) for text in texts]
    return dict(digests) | {_SHA256 + digest: text for digest, text in digests}


def _files(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.json"))
    if not found:
        raise InvalidInput(f"{path} has no manifest (*.json).")
    return found


def _manifest(path: Path) -> Iterator[tuple[str, str]]:
    """Yield identifier and text of each document of a file."""
    try:
        manifest = orjson.loads(path.read_bytes())
    except OSError as exc:
        raise InvalidInput(f"{path} can't be read: {exc.strerror}.") from exc
    except ValueError as exc:
        raise InvalidInput(f"{path} is not valid JSON.") from exc
    message = (
        f"{path} is not a manifest of trusted documents: an object of texts by identifier (Relay, "
        f"graphql-codegen), or Apollo's with `format` and `operations`."
    )
    if not isinstance(manifest, dict):
        raise InvalidInput(message)
    entries: Iterable[Any] = manifest.items()
    if manifest.get("format") == _APOLLO_FORMAT:
        operations = manifest.get("operations")
        if not isinstance(operations, list) or not all(isinstance(o, dict) for o in operations):
            raise InvalidInput(message)
        entries = ((one.get("id"), one.get("body")) for one in operations)
    for name, text in entries:
        if not (isinstance(name, str) and name and isinstance(text, str) and text.strip()):
            raise InvalidInput(message)
        yield name, text


def warn_of_invalid(documents: TrustedDocuments, schema: GraphQLSchema) -> None:
    """Log which documents are invalid in the schema of this release: their front ends would fail.

    Args:
        documents: The trusted documents.
        schema: The schema of this release.
    """
    invalid = []
    for text in set(documents.texts.values()):
        try:
            document = parse(text)
        except GraphQLSyntaxError as exc:
            invalid.append(exc.message)
            continue
        errors = validate(schema, document, max_errors=1)
        invalid += [error.message for error in errors[:1]]
    if invalid:
        shown = "; ".join(sorted(invalid)[:_NAMED_MAX])
        _log.warning("%d trusted documents are invalid: %s", len(invalid), shown)
