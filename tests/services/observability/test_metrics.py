"""Metrics have labels of closed sets, and cost a request next to nothing."""

from collections.abc import Iterator
from time import thread_time
from timeit import repeat

import pytest

from services.errors import FileRejected, FrameQuarantined, NotFound
from services.observability.metrics import (
    FRAMES,
    REGISTRY,
    REQUESTS,
    RequestMetrics,
    code_label,
    count_graphql_error,
)

REQUEST_MICROSECONDS = 10
"""What a request may pay for its metrics; a warm frame costs 150."""


def value_of(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"orthanc_graphql_{name}", labels) or 0.0


@pytest.fixture(autouse=True)
def of_this_test() -> Iterator[None]:
    in_progress = REQUESTS.in_progress
    yield
    assert REQUESTS.in_progress == in_progress


def test_a_request_is_counted_by_the_template_of_its_route() -> None:
    labels = {"route": "/test/{id}", "method": "GET", "status": "200"}
    RequestMetrics().record("/test/{id}", "GET", 200, 0.003)
    RequestMetrics().record("/test/{id}", "GET", 200, 0.2)
    assert value_of("http_requests_total", **labels) == 2
    durations = "http_request_duration_seconds"
    assert value_of(f"{durations}_bucket", route="/test/{id}", le="0.005") == 1
    assert value_of(f"{durations}_count", route="/test/{id}") == 2
    assert value_of(f"{durations}_sum", route="/test/{id}") == pytest.approx(0.203)


def test_a_client_can_not_make_labels_by_methods_of_its_own() -> None:
    for method in ("BREW", "Mustermann^Max"):
        REQUESTS.record("(no route)", method, 405, 0.0)
    labels = {"route": "(no route)", "method": "other", "status": "405"}
    assert value_of("http_requests_total", **labels) == 2


def test_a_websocket_is_counted_and_its_duration_is_not() -> None:
    REQUESTS.record("/socket", "WEBSOCKET", 101, 3600.0)
    labels = {"route": "/socket", "method": "WEBSOCKET", "status": "101"}
    assert value_of("http_requests_total", **labels) == 1
    assert value_of("http_request_duration_seconds_count", route="/socket") == 0


def test_codes_of_errors_are_a_closed_set() -> None:
    assert code_label("NOT_FOUND") == "NOT_FOUND"
    assert code_label("GRAPHQL_VALIDATION_FAILED") == "GRAPHQL_VALIDATION_FAILED"
    assert code_label(FileRejected("WHATEVER", "It is no file.").code) == "other"
    assert code_label(None) == "other"
    before = value_of("graphql_errors_total", code="NOT_FOUND")
    count_graphql_error("NOT_FOUND")
    assert value_of("graphql_errors_total", code="NOT_FOUND") == before + 1


def test_a_picture_is_counted_with_its_outcome() -> None:
    def frames(source: str, outcome: str) -> float:
        return value_of("frames_total", source=source, outcome=outcome)

    cases = (
        (None, "ok"),
        (FrameQuarantined(), "FRAME_QUARANTINED"),
        (ValueError(), "INTERNAL_ERROR"),
    )
    for error, outcome in cases:
        before = frames("rendered", outcome)
        with pytest.raises(type(error)) if error else FRAMES.rendering(is_ahead=False):
            if error:
                with FRAMES.rendering(is_ahead=False):
                    raise error
        assert frames("rendered", outcome) == before + 1
    before = frames("memory", "ok")
    FRAMES.found()
    assert frames("memory", "ok") == before + 1
    assert NotFound.code not in {"ok", "cancelled"}


@pytest.mark.no_cover
def test_the_metrics_of_a_request_take_less_than_10_microseconds() -> None:
    def one() -> None:
        REQUESTS.in_progress += 1
        FRAMES.found()
        REQUESTS.in_progress -= 1
        REQUESTS.record("/frames/v2/{signed:path}", "GET", 200, 0.0004)

    one()
    number = 2_000
    # The quickest of many rounds, in time of this thread: other processes make the rest slower.
    seconds = min(repeat(one, number=number, repeat=10, timer=thread_time))
    microseconds = seconds / number * 1_000_000
    assert microseconds < REQUEST_MICROSECONDS
