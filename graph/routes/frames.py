"""`GET /frames/v1/...`: a signed URL answered with a PNG."""

import time
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from graph.routes.refusals import refusal
from graph.state import runtime_of
from services.errors import Error, FrameUrlInvalid
from services.frames.pixels import RenderedFrame


async def frame(request: Request) -> Response:
    """Answer the picture that a signed URL points to.

    The signature is checked on the path as it was received, before anything else is looked at.
    """
    now = time.time()
    runtime = runtime_of(request)
    frames = runtime.frames
    try:
        reference = frames.signer.verify_frame(signed_path(request), request.method, now=now)
        rendered = frames.cached(reference) or await frames.frame(reference)
    except Error as error:
        return await refusal(request, error)
    headers = {
        "Cache-Control": f"private, max-age={max(0, reference.expires - int(now))}, immutable",
        "ETag": rendered.etag,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": runtime.settings.frame_cross_origin_resource_policy,
    }
    if is_known(request, rendered):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(rendered.png, media_type="image/png", headers=headers)


def signed_path(request: Request) -> bytes:
    """Return the path as it was received: neither unescaped nor normalised, no query string.

    Raises:
        FrameUrlInvalid: There is a query string: nobody signed it.
    """
    scope = request.scope
    if scope["query_string"]:
        raise FrameUrlInvalid(detail="query string")
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.removeprefix(scope.get("root_path", "").encode())


def is_known(request: Request, rendered: RenderedFrame) -> bool:
    """Tell whether If-None-Match names this picture (RFC 9110 section 13.1.2)."""
    given = request.headers.get("if-none-match")
    if given is None:
        return False
    tags = (tag.strip().removeprefix("W/") for tag in given.split(","))
    return given.strip() == "*" or rendered.etag in tags


routes = [Route("/frames/v1/{signed:path}", frame, methods=["GET"])]
"""Starlette answers HEAD wherever it answers GET, and drops the body."""
