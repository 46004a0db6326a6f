"""Problem details (RFC 9457), as every REST route answers an error."""

from http import HTTPStatus

import httpx


def problem_of(response: httpx.Response, **extensions: object) -> tuple[int, str, str]:
    """Check the shape of an error, and return its status, code and sentence.

    Args:
        response: What was answered.
        extensions: Members besides those of every problem.
    """
    body = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    code, sentence = body.pop("code"), body.pop("detail")
    assert body == {
        "type": "about:blank",
        "title": HTTPStatus(response.status_code).phrase,
        "status": response.status_code,
        # Where no middleware gave the request an identifier it is a dash.
        "correlationId": response.headers.get("x-request-id", "-"),
        **extensions,
    }
    return response.status_code, code, sentence
