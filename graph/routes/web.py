"""The study browser at `/`, and the files of all pages.

Files have addresses with a digest of their contents, so browsers keep them for good; the pages that
name these addresses are requested again each time.
"""

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from graph.state import runtime_of
from graph.web.assets import (
    Bundle,
    graphiql_bundle,
    module_preloads,
    page_bundle,
    template,
)
from graph.web.security import content_security_policy

_FOR_GOOD = "public, max-age=31536000, immutable"
"""A year, the longest that caches honour (RFC 9111 names no limit, browsers keep no longer)."""


async def study_browser(request: Request) -> HTMLResponse:
    """Answer the one page of the study browser; what it shows stands behind the `#`."""
    return await study_page(request, root="")


async def study_page(request: Request, *, root: str) -> HTMLResponse:
    """Answer the page of the study browser.

    Args:
        request: The request.
        root: From the address of the page to that of this server: empty, or `../`.
    """
    bundle = await run_in_threadpool(page_bundle)
    policy = content_security_policy(public_url=runtime_of(request).settings.public_url)
    static = f"{root}static/{bundle.digest}"
    preloads = await run_in_threadpool(module_preloads, static)
    return HTMLResponse(
        template("index.html").replace("{preloads}", preloads).replace("{static}", static),
        headers={"Cache-Control": "no-cache", "Content-Security-Policy": policy},
    )


async def static_file(request: Request) -> Response:
    """Answer one of our own files."""
    return _answer(request, await run_in_threadpool(page_bundle))


async def graphiql_file(request: Request) -> Response:
    """Answer one of GraphiQL's files."""
    return _answer(request, await run_in_threadpool(graphiql_bundle))


def _answer(request: Request, bundle: Bundle | None) -> Response:
    asset = bundle.files.get(request.path_params["name"]) if bundle is not None else None
    if bundle is None or asset is None:
        raise HTTPException(404, "There is no such file.")
    # While processes of two versions run side by side, a page of one asks the other for files.
    is_this_version = request.path_params["digest"] == bundle.digest
    return Response(
        asset.body,
        media_type=asset.media_type,
        headers={
            "Cache-Control": _FOR_GOOD if is_this_version else "no-store",
            "Cross-Origin-Resource-Policy": "same-origin",
        },
    )


routes = [
    Route("/", study_browser, methods=["GET"]),
    Route("/static/{digest}/{name:path}", static_file, methods=["GET"]),
    Route("/graphiql/{digest}/{name:path}", graphiql_file, methods=["GET"]),
]
