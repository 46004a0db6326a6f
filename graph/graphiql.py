"""GraphiQL's page: its files come from this server, from elsewhere only if a setting says so."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from starlette.requests import Request

from graph.state import runtime_of
from graph.web.assets import graphiql_bundle, page_bundle, template
from graph.web.security import content_security_policy


@dataclass(frozen=True, slots=True)
class CdnFile:
    """A file of GraphiQL at a content delivery network.

    Attributes:
        url: Where it is, with its version.
        integrity: Its hash: browsers refuse other contents (Subresource Integrity).
    """

    url: str
    integrity: str


CDN_FILES: Mapping[str, CdnFile] = {
    "react.js": CdnFile(
        "https://unpkg.com/react@18.2.0/umd/react.production.min.js",
        "sha384-tMH8h3BGESGckSAVGZ82T9n90ztNXxvdwvdM6UoR56cYcf+0iGXBliJ29D+wZ/x8",
    ),
    "react-dom.js": CdnFile(
        "https://unpkg.com/react-dom@18.2.0/umd/react-dom.production.min.js",
        "sha384-bm7MnzvK++ykSwVJ2tynSE5TRdN+xL418osEVF2DE/L/gfWHj91J2Sphe582B1Bh",
    ),
    "graphiql.js": CdnFile(
        "https://unpkg.com/graphiql@3.8.3/graphiql.min.js",
        "sha384-HbRVEFG0JGJZeAHCJ9Xm2+tpknBQ7QZmNlO/DgZtkZ0aJSypT96YYGRNod99l9Ie",
    ),
    "graphiql.css": CdnFile(
        "https://unpkg.com/graphiql@3.8.3/graphiql.min.css",
        "sha384-Mq3vbRBY71jfjQAt/DcjxUIYY33ksal4cgdRt9U/hNPvHBCaT2JfJ/PTRiPKf0aM",
    ),
    "explorer.js": CdnFile(
        "https://unpkg.com/@graphiql/plugin-explorer@1.0.2/dist/index.umd.js",
        "sha384-2oonKe47vfHIZnmB6ZZ10vl7T0Y+qrHQF2cmNTaFDuPshpKqpUMGMc9jgj9MLDZ9",
    ),
    "explorer.css": CdnFile(
        "https://unpkg.com/@graphiql/plugin-explorer@1.0.2/dist/style.css",
        "sha384-5DFJlDPW2tSATRbM8kzoP1j194jexLswuNmClWoRr2Q0x7R68JIQzPHZ02Faktwi",
    ),
}
"""Used only where `make setup` has not installed them and GRAPHIQL_CDN is true."""


def graphiql_page(request: Request) -> str:
    """Return the HTML of GraphiQL's page, or of the page that says how to install it."""
    static = f"static/{page_bundle().digest}"
    bundle = graphiql_bundle()
    if bundle is not None:
        sources = {name: f"graphiql/{bundle.digest}/{name}" for name in bundle.files}
        return _page(static, {name: _local(name, url) for name, url in sources.items()})
    if runtime_of(request).settings.graphiql_cdn:
        return _page(static, {name: _remote(name, file) for name, file in CDN_FILES.items()})
    return template("graphiql-missing.html").replace("{static}", static)


def graphiql_headers(request: Request) -> dict[str, str]:
    """Return the headers of that page."""
    settings = runtime_of(request).settings
    policy = content_security_policy(
        public_url=settings.public_url,
        with_inline_styles=True,
        with_cdn=settings.graphiql_cdn and graphiql_bundle() is None,
    )
    return {"Cache-Control": "no-store", "Content-Security-Policy": policy}


def _page(static: str, elements: Mapping[str, str]) -> str:
    # React must be there before what uses it: the table's order is the order of loading.
    loaded = "\n    ".join(elements.values())
    return template("graphiql.html").replace("{graphiql}", loaded).replace("{static}", static)


def _local(name: str, url: str) -> str:
    return _element(name, f'"{escape(url)}"')


def _remote(name: str, file: CdnFile) -> str:
    attributes = f'"{escape(file.url)}" integrity="{escape(file.integrity)}" crossorigin'
    return _element(name, attributes)


def _element(name: str, source: str) -> str:
    if name.endswith(".css"):
        return f'<link rel="stylesheet" href={source}>'
    return f"<script defer src={source}></script>"
