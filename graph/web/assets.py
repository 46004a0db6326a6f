"""The files of the web pages, read once into memory: nothing else can be asked for."""

import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import orjson

from services.dicom.dictionary import element_names

_FOLDER = Path(__file__).parent
_PACKAGES = _FOLDER / "node_modules"
_DIGEST_CHARACTERS = 16
"""64 bits: enough to distinguish versions of our own files."""

GRAPHIQL_FILES: Mapping[str, str] = {
    "react.js": "react/umd/react.production.min.js",
    "react-dom.js": "react-dom/umd/react-dom.production.min.js",
    "graphiql.js": "graphiql/graphiql.min.js",
    "graphiql.css": "graphiql/graphiql.min.css",
    "explorer.js": "@graphiql/plugin-explorer/dist/index.umd.js",
    "explorer.css": "@graphiql/plugin-explorer/dist/style.css",
}
"""What GraphiQL needs of the npm packages in package.json: our name by the file's path there."""


_NOT_OF_THE_PAGE = frozenset({"app.js", "graphiql.js"})
"""Its entry, and the script of another page."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One file.

    Attributes:
        body: Its bytes.
        media_type: For `Content-Type`.
    """

    body: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """Files that change together.

    Attributes:
        digest: Changes when any file does: files under an address with it never change.
        files: By name; folders are separated by `/`.
    """

    digest: str
    files: Mapping[str, Asset]


@cache
def page_bundle() -> Bundle:
    """Return the files of the study browser and our own ones of GraphiQL's page. Reads files."""
    folder = _FOLDER / "static"
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    names = Asset(orjson.dumps(element_names()), "application/json")
    return _bundle(_read(paths) | {"element-names.json": names})


@cache
def graphiql_bundle() -> Bundle | None:
    """Return GraphiQL's files, None where `make setup` has not installed them. Reads files."""
    paths = {name: _PACKAGES / path for name, path in GRAPHIQL_FILES.items()}
    return _bundle(_read(paths)) if all(path.is_file() for path in paths.values()) else None


@cache
def module_preloads(address: str) -> str:
    """Return links by which a browser asks for all modules of the page at once. Reads files.

    Without them it finds one module's imports after the other, a round trip each.

    Args:
        address: Of the folder of the page's files.
    """
    names = sorted(name for name in page_bundle().files if _is_module(name))
    return "".join(f'<link rel="modulepreload" href="{address}/{name}">\n    ' for name in names)


def _is_module(name: str) -> bool:
    return name.endswith(".js") and name not in _NOT_OF_THE_PAGE


@cache
def template(name: str) -> str:
    """Return the text of one of our HTML files. Reads it once.

    Args:
        name: Of a file in this folder.
    """
    return (_FOLDER / name).read_text(encoding="utf-8")


def _read(paths: Mapping[str, Path]) -> dict[str, Asset]:
    return {
        name: Asset(path.read_bytes(), _media_type(name))
        for name, path in paths.items()
        if path.is_file()
    }


def _bundle(files: Mapping[str, Asset]) -> Bundle:
    digest = hashlib.sha256()
    for name, asset in sorted(files.items()):
        digest.update(f"{name}\0{len(asset.body)}\0".encode())
        digest.update(asset.body)
    return Bundle(digest.hexdigest()[:_DIGEST_CHARACTERS], files)


def _media_type(name: str) -> str:
    # The operating system's table may call JavaScript text/plain: a module would not run then.
    if name.endswith(".js"):
        return "text/javascript"
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
