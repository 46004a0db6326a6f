"""GraphQL over HTTP: media types, methods and statuses, as the specification says."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.graph.http.offline import open_app
from tests.graph.problems import problem_of

JSON = "application/json"
RESPONSE_JSON = "application/graphql-response+json"
GOOD = {"query": "{ __typename }"}
ANSWER = {"data": {"__typename": "Query"}}


@pytest.fixture(scope="module")
async def http(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    async with open_app(tmp_path_factory.mktemp("data")) as client:
        yield client


def media_type(response: httpx.Response) -> str:
    return response.headers["content-type"].partition(";")[0]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("*/*", JSON),
        (JSON, JSON),
        (RESPONSE_JSON, RESPONSE_JSON),
        (f"{RESPONSE_JSON}; charset=utf-8, {JSON}; q=0.9", RESPONSE_JSON),
    ],
)
async def test_the_answer_has_the_media_type_that_was_asked_for(
    http: httpx.AsyncClient, accept: str | None, expected: str
) -> None:
    headers = {"Accept": accept} if accept else {}
    response = await http.post("/graphql", json=GOOD, headers=headers)
    assert (response.status_code, media_type(response), response.json()) == (200, expected, ANSWER)


@pytest.mark.parametrize(
    "query", ["{", "{ nothing }", "query ($v: Int!) { __typename @include(if: $v) }"]
)
@pytest.mark.parametrize(("accept", "status"), [(JSON, 200), (RESPONSE_JSON, 400)])
async def test_what_is_not_executed_has_a_status_and_no_data(
    http: httpx.AsyncClient, query: str, accept: str, status: int
) -> None:
    response = await http.post("/graphql", json={"query": query}, headers={"Accept": accept})
    assert (response.status_code, media_type(response)) == (status, accept)
    assert "data" not in response.json()
    assert {e["extensions"]["code"] for e in response.json()["errors"]} <= {
        "GRAPHQL_PARSE_FAILED",
        "GRAPHQL_VALIDATION_FAILED",
    }


async def test_queries_may_come_by_get(http: httpx.AsyncClient) -> None:
    response = await http.get("/graphql", params=GOOD, headers={"Accept": JSON})
    assert (response.status_code, response.json()) == (200, ANSWER)


async def test_mutations_by_get_are_405(http: httpx.AsyncClient) -> None:
    response = await http.get(
        "/graphql",
        params={"query": "mutation { synchronize { __typename } }"},
        headers={"Accept": JSON},
    )
    assert (response.status_code, response.json()["errors"][0]["extensions"]["code"]) == (
        405,
        "METHOD_NOT_ALLOWED",
    )


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_methods_are_405(http: httpx.AsyncClient, method: str) -> None:
    response = await http.request(method, "/graphql", json=GOOD)
    assert response.status_code == 405
    assert set(response.headers["allow"].split(", ")) >= {"GET", "POST"}


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_other_media_types_are_415(http: httpx.AsyncClient, content_type: str) -> None:
    response = await http.post(
        "/graphql", content=b'{"query": "{ __typename }"}', headers={"Content-Type": content_type}
    )
    assert (response.status_code, response.json()["errors"][0]["extensions"]["code"]) == (
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    )


@pytest.mark.parametrize("content_type", ["APPLICATION/JSON", "Application/Json; Charset=UTF-8"])
async def test_a_media_type_is_known_in_any_case(
    http: httpx.AsyncClient, content_type: str
) -> None:
    response = await http.post(
        "/graphql", content=b'{"query": "{ __typename }"}', headers={"Content-Type": content_type}
    )
    assert (response.status_code, response.json()) == (200, ANSWER)


@pytest.mark.parametrize("media_type", ["multipart/form-data", "MULTIPART/Form-Data"])
async def test_a_form_is_known_in_any_case(http: httpx.AsyncClient, media_type: str) -> None:
    fields = {"operations": '{"query": "{ __typename }"}', "map": "{}"}
    form = "".join(
        f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    headers = {"Content-Type": f"{media_type}; boundary=B", "GraphQL-Preflight": "1"}
    response = await http.post("/graphql", content=f"{form}--B--\r\n".encode(), headers=headers)
    assert (response.status_code, response.json()) == (200, ANSWER)


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", ""])
async def test_other_media_types_of_uploads_are_415(
    http: httpx.AsyncClient, content_type: str
) -> None:
    headers = {"Content-Type": content_type}
    response = await http.post("/api/dicom/upload", content=b"{}", headers=headers)
    message = "Send multipart/form-data."
    problem = problem_of(response, success=False, message=message)
    assert problem == (415, "UNSUPPORTED_MEDIA_TYPE", message)


async def test_a_form_without_boundary_is_400(http: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "multipart/form-data"}
    response = await http.post("/api/dicom/upload", content=b"{}", headers=headers)
    message = "Send multipart/form-data with a boundary."
    problem = problem_of(response, success=False, message=message)
    assert problem == (400, "INVALID_INPUT", message)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"\xef\xbb\xbf",
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
        b"\xff",
        b"[]",
        b'"query"',
        b"1",
        b"null",
        b"{}",
        b'{"query": null}',
        b'{"query": 1}',
        b'{"query": ["{ __typename }"]}',
        b'{"query": "{ __typename }", "variables": []}',
        b'{"query": "{ __typename }", "variables": "x"}',
        b'{"query": "{ __typename }", "operationName": 1}',
        b'{"query": "{ __typename }", "extensions": 1}',
        b'[{"query": "{ __typename }"}]',
    ],
)
async def test_bodies_that_are_no_operation_are_400(http: httpx.AsyncClient, body: bytes) -> None:
    response = await http.post("/graphql", content=body, headers={"Content-Type": JSON})
    answer: dict[str, Any] = response.json()
    assert (response.status_code, answer["errors"][0]["extensions"]["code"]) == (
        400,
        "INVALID_INPUT",
    )


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_clients_of_persisted_queries_are_told_to_send_the_text(
    http: httpx.AsyncClient, method: str
) -> None:
    extensions = {"persistedQuery": {"version": 1, "sha256Hash": "a" * 64}}
    sent: dict[str, Any] = (
        {"json": {"extensions": extensions}}
        if method == "POST"
        else {"params": {"extensions": json.dumps(extensions)}}
    )
    response = await http.request(method, "/graphql", **sent)
    assert (response.status_code, response.json()) == (
        200,
        {
            "errors": [
                {
                    "message": "PersistedQueryNotSupported",
                    "extensions": {"code": "PERSISTED_QUERY_NOT_SUPPORTED"},
                }
            ]
        },
    )
    # A text that comes with its hash is executed.
    with_text = await http.post("/graphql", json=GOOD | {"extensions": extensions})
    assert with_text.json() == ANSWER


async def test_a_byte_order_mark_before_a_body_is_passed_over(http: httpx.AsyncClient) -> None:
    body = b'\xef\xbb\xbf{"query": "{ __typename }"}'
    response = await http.post("/graphql", content=body, headers={"Content-Type": JSON})
    assert (response.status_code, response.json()) == (200, ANSWER)


@pytest.mark.parametrize(
    ("method", "path", "problem"),
    [
        ("GET", "/nowhere", (404, "NOT_FOUND", "There is nothing at this address.")),
        ("GET", "/static/a/b.js", (404, "NOT_FOUND", "There is no such file.")),
        (
            "POST",
            "/healthz",
            (405, "METHOD_NOT_ALLOWED", "This address does not allow this method."),
        ),
    ],
)
async def test_what_no_route_answers_is_a_problem_in_json(
    http: httpx.AsyncClient, method: str, path: str, problem: tuple[int, str, str]
) -> None:
    response = await http.request(method, path)
    assert problem_of(response) == problem
    assert ("allow" in response.headers) == (response.status_code == 405)


async def test_the_routes_of_the_former_system_are_refused_in_both_shapes(
    http: httpx.AsyncClient,
) -> None:
    response = await http.get("/api/dicom/upload")
    message = "This address does not allow this method."
    problem = problem_of(response, success=False, message=message)
    assert problem == (405, "METHOD_NOT_ALLOWED", message)
