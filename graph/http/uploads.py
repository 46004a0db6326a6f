"""GraphQL multipart requests: preflight, `operations`, `map`, and the files as variables.

The GraphQL multipart request specification, version 2.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import orjson
from cross_web import AsyncHTTPRequestAdapter, StarletteRequestAdapter
from starlette.requests import HTTPConnection, Request

from graph.authentication import principal_of
from graph.http.multipart import Form, UploadedFile, UploadLimits, read_form
from graph.state import runtime_of
from services.auth.roles import Role, authorize
from services.errors import Forbidden, InvalidInput
from services.ingest.progress import parse_upload_id
from services.settings import Settings

PREFLIGHT_HEADERS = ("graphql-preflight", "apollo-require-preflight", "x-apollo-operation-name")
"""A page of another origin can't set any of these without a preflight (Fetch standard, 4.10)."""

UPLOAD_ID_HEADER = "upload-id"
"""Several requests may belong to one upload."""

_STACK = "orthanc_graphql.uploads"
"""Key of the request's scope: the files to close after the operation."""

_VARIABLES = "variables"
_MAX_PATH_PARTS = 8


def upload_limits(settings: Settings) -> UploadLimits:
    """Return the limits of GraphQL uploads."""
    return UploadLimits(
        max_bytes=settings.upload_max_bytes,
        max_files=settings.upload_max_files,
        idle_seconds=settings.upload_idle_seconds,
    )


def upload_id_of(connection: HTTPConnection) -> str | None:
    """Return how the sender named an upload, by which `uploadProgress` finds it.

    Raises:
        InvalidInput: It is no valid identifier.
    """
    text = connection.headers.get(UPLOAD_ID_HEADER)
    return None if text is None else parse_upload_id(text)


def check_preflight(request: Request) -> None:
    """Refuse a form that a page of another origin may have sent (CSRF), before its body is read.

    Raises:
        Forbidden: None of `PREFLIGHT_HEADERS` is set.
    """
    if not any(name in request.headers for name in PREFLIGHT_HEADERS):
        message = "Set the header GraphQL-Preflight (any value) on multipart requests."
        raise Forbidden(message)


@asynccontextmanager
async def read_operation(request: Request, limits: UploadLimits) -> AsyncIterator[dict[str, Any]]:
    """Read a multipart request; its files exist as long as the context.

    Yields:
        The operation, with an `UploadedFile` at each path of `map`.

    Raises:
        Forbidden: No preflight header.
        LimitExceeded: Too large, or too many files.
        InvalidInput: `operations` or `map` are malformed.
        UploadIdle: No data arrived for too long.
    """
    check_preflight(request)
    async with read_form(request, limits) as form:
        yield mapped_operation(form)


@asynccontextmanager
async def uploads_open(request: Request) -> AsyncIterator[None]:
    """Keep the files that `parse_upload` opens until the operation is executed."""
    async with AsyncExitStack() as stack:
        request.scope[_STACK] = stack
        yield


async def parse_upload(request: AsyncHTTPRequestAdapter) -> dict[str, Any]:
    """Read a multipart request for Strawberry's `parse_multipart`, inside `uploads_open`.

    Callers without the right to upload are refused before the body is read.

    Raises:
        Error: As `read_operation`; Unauthenticated or Forbidden for callers who may not upload.
    """
    received = starlette_request(request)
    stack: AsyncExitStack = received.scope[_STACK]
    limits = upload_limits(runtime_of(received).settings)
    check_preflight(received)
    authorize(await principal_of(received), Role.UPLOADER)
    return await stack.enter_async_context(read_operation(received, limits))


def starlette_request(request: AsyncHTTPRequestAdapter) -> Request:
    """Return the request that Strawberry has wrapped."""
    return cast("StarletteRequestAdapter", request)._request  # noqa: SLF001  # no public name


def mapped_operation(form: Form) -> dict[str, Any]:
    """Put the files of a form into its operation, each into exactly one variable.

    Raises:
        InvalidInput: `operations` or `map` are malformed.
    """
    operation = _json_object(form, "operations")
    paths = _json_object(form, "map")
    if not isinstance(operation.get(_VARIABLES, {}), dict):
        raise InvalidInput("`variables` of `operations` must be an object.")
    files = {file.field_name: file for file in form.files}
    if len(files) != len(form.files):
        raise InvalidInput("Two files of the form have the same field name.")
    if files.keys() != paths.keys():
        raise InvalidInput("`map` must name every file of the form once, and nothing else.")
    for name, places in paths.items():
        _place(operation, _only_path(places), files[name])
    return operation


def _json_object(form: Form, name: str) -> dict[str, Any]:
    try:
        value = orjson.loads(form.fields[name])
    except KeyError as exc:
        raise InvalidInput(f"The form has no field `{name}`.") from exc
    except ValueError as exc:
        raise InvalidInput(f"The field `{name}` is not valid JSON.") from exc
    if not isinstance(value, dict):
        raise InvalidInput(f"The field `{name}` must be a JSON object; batches are not accepted.")
    return value


def _only_path(places: object) -> Sequence[str]:
    if not isinstance(places, list) or len(places) != 1 or not isinstance(places[0], str):
        raise InvalidInput("`map` must give each file a list of one path.")
    path = places[0].split(".")
    if path[0] != _VARIABLES or not 1 < len(path) <= _MAX_PATH_PARTS:
        raise InvalidInput("A path of `map` must lead to a variable, as `variables.files.0`.")
    return path


def _place(operation: Mapping[str, Any], path: Sequence[str], file: UploadedFile) -> None:
    """Replace a null in `operations` by a file."""
    target: Any = operation
    try:
        for part in path[:-1]:
            target = target[_key(target, part)]
        key = _key(target, path[-1])
        is_free = target[key] is None
    except (KeyError, IndexError, TypeError, ValueError) as exc:
        raise InvalidInput("A path of `map` leads nowhere in `operations`.") from exc
    if not is_free:
        raise InvalidInput("A path of `map` must lead to null in `operations`.")
    target[key] = file


def _key(target: object, part: str) -> str | int:
    if isinstance(target, dict):
        return part
    if isinstance(target, list) and part.isdecimal() and part.isascii():
        return int(part)
    raise TypeError("neither object nor list")
