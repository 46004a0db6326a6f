"""What the log says of a refusal that is the server's matter."""

import pytest
from starlette.requests import Request

from graph.http.errors import refusal
from services.errors import Error, OrthancUnavailable, RenderQueueFull


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            RenderQueueFull(),
            "SERVER_BUSY: Too many frames are waiting to be rendered. Try again in a second. (-)",
        ),
        (OrthancUnavailable(detail="ReadTimeout"), "ORTHANC_UNAVAILABLE: ReadTimeout (-)"),
    ],
)
async def test_a_refusal_is_logged_by_its_detail_or_else_by_its_message(
    caplog: pytest.LogCaptureFixture, error: Error, line: str
) -> None:
    await refusal(Request({"type": "http", "method": "GET", "path": "/", "headers": []}), error)
    assert [(record.levelname, record.message) for record in caplog.records] == [("WARNING", line)]
