"""Every operation and every route, times everybody who may come: who gets in."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast
from unittest.mock import AsyncMock

import httpx
import pytest
import strawberry
from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    get_named_type,
    is_leaf_type,
    is_required_argument,
    is_required_input_field,
)
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graph.app import create_app
from graph.context import Context
from graph.schema import build_schema
from services.audit import Audit
from services.auth.authenticator import Authenticator
from services.auth.roles import Principal, Role
from services.auth.scope import NOTHING
from services.query.tree import Trees
from services.runtime import Runtime
from services.settings import Settings
from services.sharing.service import Sharing
from tests.tokens import made_token, read_cache_of

EVERYBODY = None
FIELDS: dict[str, Role] = {
    "Query.node": Role.VIEWER,
    "Query.nodes": Role.VIEWER,
    "Query.frames": Role.VIEWER,
    "Query.patient": Role.VIEWER,
    "Query.patients": Role.VIEWER,
    "Query.study": Role.VIEWER,
    "Query.studies": Role.VIEWER,
    "Query.series": Role.VIEWER,
    "Query.instance": Role.VIEWER,
    "Query.viewer": Role.VIEWER,
    "Query.server": Role.VIEWER,
    "Query.labels": Role.VIEWER,
    "Query.shares": Role.UPLOADER,
    "Query.job": Role.VIEWER,
    "Query.jobs": Role.VIEWER,
    "Query.orthancJobs": Role.ADMIN,
    "Query.worklist": Role.VIEWER,
    "Query.modalities": Role.VIEWER,
    "Query.forwardingRules": Role.ADMIN,
    "Query.modality": Role.VIEWER,
    "Query.remotePatients": Role.UPLOADER,
    "Query.remoteStudies": Role.UPLOADER,
    "Query.remoteWorklist": Role.UPLOADER,
    "Query.backups": Role.ADMIN,
    "Mutation.uploadDicom": Role.UPLOADER,
    "Mutation.addLabels": Role.UPLOADER,
    "Mutation.removeLabels": Role.UPLOADER,
    "Mutation.createShare": Role.UPLOADER,
    "Mutation.revokeShare": Role.UPLOADER,
    "Mutation.anonymizeStudy": Role.UPLOADER,
    "Mutation.modifyStudy": Role.ADMIN,
    "Mutation.exportStudies": Role.VIEWER,
    "Mutation.exportToFolder": Role.ADMIN,
    "Mutation.cancelJob": Role.VIEWER,
    "Mutation.cancelJobs": Role.ADMIN,
    "Mutation.retryJob": Role.VIEWER,
    "Mutation.cancelOrthancJob": Role.ADMIN,
    "Mutation.createBackup": Role.ADMIN,
    "Mutation.verifyBackup": Role.ADMIN,
    "Mutation.createWorklistEntry": Role.UPLOADER,
    "Mutation.updateWorklistEntry": Role.UPLOADER,
    "Mutation.setWorklistStatus": Role.UPLOADER,
    "Mutation.deleteWorklistEntry": Role.UPLOADER,
    "Mutation.declareForwardingRule": Role.ADMIN,
    "Mutation.removeForwardingRule": Role.ADMIN,
    "Mutation.declareModality": Role.ADMIN,
    "Mutation.removeModality": Role.ADMIN,
    "Mutation.echoModality": Role.UPLOADER,
    "Mutation.retrieveStudies": Role.UPLOADER,
    "Mutation.sendStudies": Role.UPLOADER,
    "Mutation.deletePatient": Role.ADMIN,
    "Mutation.deleteStudy": Role.ADMIN,
    "Mutation.deleteSeries": Role.ADMIN,
    "Mutation.deleteInstance": Role.ADMIN,
    "Mutation.synchronize": Role.ADMIN,
    "Subscription.studyEvents": Role.VIEWER,
    "Subscription.jobEvents": Role.VIEWER,
    "Subscription.uploadProgress": Role.UPLOADER,
}
"""The least role of every root field. A new field fails the tests until it stands here."""

ROUTES: dict[tuple[str, str], Role | None] = {
    ("POST", "/api/dicom/upload"): Role.UPLOADER,
    ("PUT", "/api/dicom/instances"): Role.UPLOADER,
    ("GET", "/api/dicom/studies/{study_uid}/frames/{frame_index}"): Role.VIEWER,
    ("GET", "/api/status"): Role.ADMIN,
    # The signature in the URL is the credential.
    ("GET", "/frames/v2/{signed:path}"): EVERYBODY,
    ("GET", "/archives/v2/{signed:path}"): EVERYBODY,
    ("GET", "/exports/v2/{signed:path}"): EVERYBODY,
    ("GET", "/files/v2/{signed:path}"): EVERYBODY,
    ("GET", "/documents/v2/{signed:path}"): EVERYBODY,
    ("GET", "/healthz"): EVERYBODY,
    ("GET", "/readyz"): EVERYBODY,
    # A secret of its own, shared with the embedded Orthanc.
    ("POST", "/internal/orthanc-events"): EVERYBODY,
    # The token of a share in the path is the credential; the page is the same for all tokens.
    ("GET", "/s/{share}"): EVERYBODY,
    ("GET", "/s/{share}/ohif.json"): EVERYBODY,
    # Pages and scripts without patient data.
    ("GET", "/"): EVERYBODY,
    ("GET", "/static/{digest}/{name:path}"): EVERYBODY,
    ("GET", "/graphiql/{digest}/{name:path}"): EVERYBODY,
}
"""The least role of every route but `/graphql`, whose fields decide, and of DICOMweb."""

_STUDY, _SERIES = "/studies/{study}", "/studies/{study}/series/{series}"
_INSTANCE = f"{_SERIES}/instances/{{instance}}"
DICOMWEB: dict[tuple[str, str], Role] = {
    **{
        ("GET", path): Role.VIEWER
        for path in (
            "/studies",
            "/series",
            "/instances",
            f"{_STUDY}/series",
            f"{_STUDY}/instances",
            f"{_SERIES}/instances",
            *(
                f"{level}{what}"
                for level in (_STUDY, _SERIES, _INSTANCE)
                for what in ("", "/metadata", "/rendered", "/thumbnail")
            ),
            f"{_INSTANCE}/frames/{{frames}}",
            f"{_INSTANCE}/frames/{{frames}}/rendered",
            f"{_INSTANCE}/frames/{{frames}}/thumbnail",
            f"{_INSTANCE}/bulkdata/{{path:path}}",
        )
    },
    ("POST", "/studies"): Role.UPLOADER,
    ("POST", _STUDY): Role.UPLOADER,
}
"""The least role of every route of DICOMweb. A share has the same ones, for its viewer."""

SHARED = "/s/{share}/dicomweb"

GUARDED: dict[tuple[str, str], Role] = {
    **{route: needed for route, needed in ROUTES.items() if needed},
    **{(method, f"/dicomweb{path}"): role for (method, path), role in DICOMWEB.items()},
}
"""Every route that asks for a credential of its own."""

CALLERS: dict[str, Role | None] = {
    "no credential": None,
    "wrong token": None,
    "viewer": Role.VIEWER,
    "share": Role.VIEWER,
    "uploader": Role.UPLOADER,
    "admin": Role.ADMIN,
}

_SHARE = Principal("share:0", Role.VIEWER, scope=NOTHING, share_id="0")

_MADE = {role: made_token(role.name, role) for role in Role}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("data"), public_url=None)


@pytest.fixture(scope="module")
def tokens() -> dict[str, str]:
    made = {role.name.lower(): secret for role, (_, secret) in _MADE.items()}
    return {"wrong token": "ogql_" + "x" * 43, "share": "ogqs_" + "x" * 43} | made


@pytest.fixture(scope="module")
async def runtime(settings: Settings) -> Runtime:
    """Credentials and nothing else: who gets past them meets an error, which is no refusal."""
    authenticator = Authenticator(
        await read_cache_of(*(document for document, _ in _MADE.values())),
        find_by_share=AsyncMock(return_value=_SHARE),
    )
    return cast(
        "Runtime",
        _Nothing(
            settings=settings,
            authenticator=authenticator,
            audit=AsyncMock(spec=Audit),
            sharing=AsyncMock(spec=Sharing, record_use=AsyncMock(return_value=False)),
            trees=Trees(page_max_size=1, max_seconds=1),
        ),
    )


@pytest.fixture(scope="module")
def schema(settings: Settings) -> strawberry.Schema:
    return build_schema(settings)


@pytest.fixture(scope="module")
def fields(schema: strawberry.Schema) -> dict[str, GraphQLField]:
    return dict(root_fields(schema))


class _Nothing:
    """Has every attribute; none of them does anything."""

    def __init__(self, **given: object) -> None:
        self.__dict__.update(given)

    def __getattr__(self, name: str) -> "_Nothing":
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing()

    def __getitem__(self, _name: str) -> "_Nothing":
        return self


@pytest.fixture(scope="module")
def app(settings: Settings, runtime: Runtime) -> ASGIApp:
    starlette = create_app(settings, runtime=runtime)

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"runtime": runtime}
        await starlette(scope, receive, send)

    return with_state


def root_fields(schema: strawberry.Schema) -> Iterator[tuple[str, GraphQLField]]:
    core = schema._schema
    for root in (core.query_type, core.mutation_type, core.subscription_type):
        assert root is not None
        for name, field in root.fields.items():
            yield f"{root.name}.{name}", field


def operation(path: str, field: GraphQLField) -> str:
    """Write the shortest operation that asks for a root field."""
    kind, name = path.split(".")
    needed = {n: a for n, a in field.args.items() if is_required_argument(a)}
    arguments = ", ".join(f"{n}: {_literal(argument)}" for n, argument in needed.items())
    called = f"{name}({arguments})" if arguments else name
    selection = "" if is_leaf_type(get_named_type(field.type)) else " { __typename }"
    return f"{kind.lower()} {{ {called}{selection} }}"


def _literal(argument: GraphQLArgument | GraphQLInputField) -> str:
    inner = argument.type.of_type if isinstance(argument.type, GraphQLNonNull) else argument.type
    if isinstance(inner, GraphQLList):
        return "[]"
    if isinstance(inner, GraphQLEnumType):
        return str(next(iter(inner.values)))
    if isinstance(inner, GraphQLInputObjectType):
        needed = {n: f for n, f in inner.fields.items() if is_required_input_field(f)}
        return "{" + ", ".join(f"{n}: {_literal(field)}" for n, field in needed.items()) + "}"
    literals = {
        "Int": "1",
        "Float": "1",
        "Boolean": "true",
        "Date": '"2026-01-01"',
        "DateTime": '"2026-01-01T00:00:00Z"',
    }
    return literals.get(get_named_type(inner).name, '"x"')


async def send(
    app: ASGIApp, method: str, path: str, token: str | None, **content: Any
) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return await http.request(method, path, headers=headers, **content)


def expected_refusal(role: Role | None, needed: Role | None) -> str | None:
    if needed is None or (role is not None and role >= needed):
        return None
    return "UNAUTHENTICATED" if role is None else "FORBIDDEN"


def refusal_in(errors: list[dict[str, Any]]) -> str | None:
    codes = [error.get("extensions", {}).get("code") for error in errors]
    return next((code for code in codes if code in ("UNAUTHENTICATED", "FORBIDDEN")), None)


def test_every_root_field_has_its_role(fields: dict[str, GraphQLField]) -> None:
    assert set(fields) == set(FIELDS)


def test_every_route_has_its_role(settings: Settings) -> None:
    found = {
        (method, route.path)
        for route in create_app(settings).routes
        if isinstance(route, Route) and route.path != "/graphql"
        for method in (route.methods or set()) - {"HEAD"}
    }
    dicomweb = {(method, f"/dicomweb{path}") for method, path in DICOMWEB}
    shared = {(method, f"{SHARED}{path}") for method, path in DICOMWEB}
    assert found == {*ROUTES, *dicomweb, *shared}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("path", [path for path in FIELDS if not path.startswith("Subscription")])
async def test_queries_and_mutations_let_their_roles_in(
    app: ASGIApp,
    fields: dict[str, GraphQLField],
    tokens: dict[str, str],
    path: str,
    caller: str,
) -> None:
    query = operation(path, fields[path])
    response = await send(app, "POST", "/graphql", tokens.get(caller), json={"query": query})
    errors = response.json().get("errors", [])
    assert "GRAPHQL_VALIDATION_FAILED" not in str(errors)
    assert refusal_in(errors) == expected_refusal(CALLERS[caller], FIELDS[path])


@pytest.mark.parametrize("caller", [name for name in CALLERS if name != "wrong token"])
@pytest.mark.parametrize("path", [path for path in FIELDS if path.startswith("Subscription")])
async def test_subscriptions_let_their_roles_in(
    schema: strawberry.Schema,
    fields: dict[str, GraphQLField],
    runtime: Runtime,
    path: str,
    caller: str,
) -> None:
    role = CALLERS[caller]
    context = Context(
        runtime=runtime,
        principal=None if role is None else Principal("x", role),
        base_url="http://localhost",
    )
    result: Any = await schema.subscribe(operation(path, fields[path]), context_value=context)
    first = await anext(result) if hasattr(result, "__anext__") else result
    errors = [
        {
            "extensions": {"code": getattr(error.original_error, "code", None)}
            | (error.extensions or {})
        }
        for error in first.errors or []
    ]
    assert refusal_in(errors) == expected_refusal(role, FIELDS[path])


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("route", GUARDED)
async def test_routes_let_their_roles_in(
    app: ASGIApp, tokens: dict[str, str], route: tuple[str, str], caller: str
) -> None:
    method, template = route
    parts = dict.fromkeys(re.findall(r"{(\w+)", template), "1")
    path = template.replace(":path}", "}").format(**parts)
    response = await send(app, method, path, tokens.get(caller))
    refusal = {401: "UNAUTHENTICATED", 403: "FORBIDDEN"}.get(response.status_code)
    assert refusal == expected_refusal(CALLERS[caller], GUARDED[route])


async def test_an_upload_is_refused_before_it_is_read(app: ASGIApp, tokens: dict[str, str]) -> None:
    happened = []

    async def body() -> AsyncIterator[bytes]:
        happened.append("body")
        yield b"x"

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_noted(message: Message) -> None:
            happened.append(message["type"])
            await send(message)

        await app(scope, receive, send_noted)

    response = await send(watched, "POST", "/api/dicom/upload", tokens["viewer"], content=body())
    assert response.status_code == 403
    assert happened[:2] == ["http.response.start", "http.response.body"]
