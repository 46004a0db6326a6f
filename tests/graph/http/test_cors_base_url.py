from typing import Any

import pytest
from starlette.requests import Request

from graph.http.cors import base_url_of


def request(host: str | None, scheme: str = "http", root_path: str = "") -> Request:
    scope: dict[str, Any] = {
        "type": "http",
        "scheme": scheme,
        "server": ("127.0.0.1", 8000),
        "root_path": root_path,
        "headers": [] if host is None else [(b"host", host.encode())],
    }
    return Request(scope)


@pytest.mark.parametrize(
    ("host", "scheme", "root_path", "expected"),
    [
        ("localhost:8000", "http", "", "http://localhost:8000"),
        ("pacs.example.org", "https", "", "https://pacs.example.org"),
        ("pacs.example.org", "wss", "/dicom/", "https://pacs.example.org/dicom"),
        ("[::1]:8000", "http", "", "http://[::1]:8000"),
        (None, "http", "", "http://127.0.0.1:8000"),
        ('evil"><script>', "http", "", "http://127.0.0.1:8000"),
        ("user@evil.example", "http", "", "http://127.0.0.1:8000"),
        ("evil.example/path", "http", "", "http://127.0.0.1:8000"),
    ],
)
def test_urls_start_with_the_address_that_the_query_came_to(
    host: str | None, scheme: str, root_path: str, expected: str
) -> None:
    assert base_url_of(request(host, scheme, root_path), None) == expected


def test_the_public_url_wins() -> None:
    assert base_url_of(request("inside:8000"), "https://pacs.example") == "https://pacs.example"
