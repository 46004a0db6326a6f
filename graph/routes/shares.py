"""`/s/{token}`: the study browser limited to a share, and what OHIF needs to open one.

The token in the path is the credential. It is not logged (the log names the route's template), not
recorded, and not sent on: every answer has `Referrer-Policy: no-referrer`.
"""

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from graph.authentication import SHARE_PARAMETER, principal_of_share
from graph.http.cors import base_url_of
from graph.http.errors import refusal
from graph.routes.web import study_page
from graph.state import runtime_of
from services.errors import Error

_PAGE = f"/s/{{{SHARE_PARAMETER}}}"


async def share_page(request: Request) -> HTMLResponse:
    """Answer the page of the study browser, which sends the token with its queries.

    It is the same for every token, known or not, and holds nothing of the share.
    """
    return await study_page(request, root="../")


async def ohif_configuration(request: Request) -> Response:
    """Answer the configuration that OHIF's data source `dicomwebproxy` reads."""
    try:
        await principal_of_share(request)
    except Error as error:
        return await refusal(request, error)
    base = base_url_of(request, runtime_of(request).settings.public_url)
    root = f"{base}/s/{request.path_params[SHARE_PARAMETER]}/dicomweb"
    source = {
        "name": "share",
        "qidoRoot": root,
        "wadoRoot": root,
        "qidoSupportsIncludeField": True,
        "supportsFuzzyMatching": False,
        "supportsWildcard": True,
        "supportsReject": False,
        "imageRendering": "wadors",
        "thumbnailRendering": "thumbnailDirect",
        "enableStudyLazyLoad": True,
        "bulkDataURI": {"enabled": True},
        "omitQuotationForMultipartRequest": True,
    }
    return JSONResponse(
        {"servers": {"dicomWeb": [source]}}, headers={"Cache-Control": "private, no-store"}
    )


routes = [
    Route(_PAGE, share_page, methods=["GET"]),
    Route(f"{_PAGE}/ohif.json", ohif_configuration, methods=["GET"]),
]
