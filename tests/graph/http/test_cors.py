import re
from pathlib import Path

import pytest

from graph.http.cors import REQUEST_HEADERS, AllowedOrigins
from services.settings import Settings

EMBEDDED = AllowedOrigins.from_settings(Settings(_env_file=None))
PAGE = Path(__file__).parents[3] / "docs" / "front-ends" / "development.md"
KEYS = "k1:" + "A" * 43


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "http://127.0.0.1:5173", "https://[::1]:8443"]
)
def test_embedded_stores_allow_any_port_of_this_machine(origin: str) -> None:
    assert EMBEDDED.allow(origin)


@pytest.mark.parametrize(
    "origin",
    ["http://localhost.evil.example", "http://evil.example", "null", "http://localhost:1\n", ""],
)
def test_embedded_stores_allow_nobody_else(origin: str) -> None:
    assert not EMBEDDED.allow(origin)


def test_given_stores_allow_only_what_is_set() -> None:
    settings = Settings(
        _env_file=None,
        orthanc_url="http://orthanc:8042",
        frame_url_keys=KEYS,
        cors_allowed_origins=["https://viewer.example/"],
    )
    origins = AllowedOrigins.from_settings(settings)
    assert origins.allow("https://viewer.example")
    assert not origins.allow("https://other.example")


def test_given_stores_without_a_list_allow_nobody() -> None:
    settings = Settings(_env_file=None, orthanc_url="http://o:8042", frame_url_keys=KEYS)
    assert not AllowedOrigins.from_settings(settings).allow("http://localhost:3000")


def test_the_page_for_front_ends_names_all_headers_that_may_be_sent() -> None:
    sentence = re.search(
        r"Pages of other origins may send the headers ([^.]*)\.", PAGE.read_text("utf-8")
    )
    assert sentence is not None
    assert re.findall(r"`([^`]+)`", sentence[1]) == list(REQUEST_HEADERS)
