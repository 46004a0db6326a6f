"""`GET /frames/v2/...`: a signed URL answered with a PNG or JPEG file."""

import time
from http import HTTPStatus

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from graph.http.conditional import names_tag
from graph.http.errors import refusal
from graph.state import runtime_in
from services.auth.roles import Principal, Role
from services.errors import Error, FrameUrlExpired, FrameUrlInvalid
from services.frames.cache import RenderedFrame
from services.runtime import Runtime
from services.sharing.service import name_of


class FrameEndpoint:
    """Answers the picture that a signed URL points to.

    Plain ASGI, because a viewer asks for hundreds of pictures that are in memory: the request and
    response objects of Starlette cost more than everything that is done here.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        The signature is checked on the path as it was received, before anything else.
        """
        now = time.time()
        runtime = runtime_in(scope)
        frames = runtime.frames
        try:
            reference = frames.signer.verify_frame(signed_path(scope), now=now)
            if reference.share_id is not None:
                await require_share(runtime, reference.share_id)
            rendered = frames.cached(reference) or await frames.frame(reference)
        except Error as error:
            response = await refusal(Request(scope, receive), error)
            await response(scope, receive, send)
            return
        policy = runtime.settings.frame_cross_origin_resource_policy
        left = max(0, reference.expires - int(now))
        headers = [
            (b"cache-control", b"private, max-age=%d, immutable" % left),
            (b"etag", rendered.etag.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", policy.encode()),
        ]
        status, body = HTTPStatus.NOT_MODIFIED, b""
        if not is_known(scope, rendered):
            status, body = HTTPStatus.OK, rendered.content
            headers.append((b"content-length", b"%d" % len(body)))
            media_type = reference.variant.picture_format.media_type
            headers.append((b"content-type", media_type.encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def require_share(runtime: Runtime, share_id: str) -> None:
    """Check that the share under which a URL was minted still is valid.

    Raises:
        FrameUrlExpired: It was revoked or has expired.
        DatabaseUnavailable: MongoDB does not answer.
    """
    if not await runtime.sharing.is_valid(share_id):
        raise FrameUrlExpired


async def share_principal(runtime: Runtime, share_id: str | None) -> Principal | None:
    """Return the share for which a URL was signed, after `require_share`; None: there is none."""
    if share_id is None:
        return None
    await require_share(runtime, share_id)
    return Principal(name_of(share_id), Role.VIEWER)


def signed_path(scope: Scope) -> bytes:
    """Return the path as it was received: neither unescaped nor normalised, no query string.

    Raises:
        FrameUrlInvalid: There is a query string, which is never signed.
    """
    if scope["query_string"]:
        raise FrameUrlInvalid(detail="query string")
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.removeprefix(scope.get("root_path", "").encode())


def is_known(scope: Scope, rendered: RenderedFrame) -> bool:
    """Return whether If-None-Match names this picture (RFC 9110 section 13.1.2)."""
    return names_tag(scope, rendered.etag)


_PREFIX = "/frames/v2/"
_route = Route(f"{_PREFIX}{{signed:path}}", FrameEndpoint(), methods=["GET"])
routes = [_route]
"""Starlette answers HEAD as GET, and the server drops the body."""


class FrameRouteShortcut:
    """Middleware that passes requests for pictures to their route, around Starlette's router.

    It adds to the scope what a router would: the log and the audit trail name the route by it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; all others, HEAD included, go on to the router."""
        if scope.get("method") == "GET" and scope["path"].startswith(_PREFIX):
            scope["route"] = _route
            await _route.app(scope, receive, send)
        else:
            await self._app(scope, receive, send)
