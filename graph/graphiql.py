"""GraphiQL's page, with all its files from this server."""

from html import escape

from starlette.requests import Request

from graph.state import runtime_of
from graph.web.assets import graphiql_bundle, page_bundle, template
from graph.web.security import content_security_policy


def graphiql_page() -> str:
    """Return the HTML of GraphiQL's page, or of the page that says how to install it."""
    static = f"static/{page_bundle().digest}"
    bundle = graphiql_bundle()
    if bundle is None:
        return template("graphiql-missing.html").replace("{static}", static)
    # In the order of loading: React before the scripts that use it.
    loaded = "\n    ".join(
        _element(name, f"graphiql/{bundle.digest}/{name}") for name in bundle.files
    )
    return template("graphiql.html").replace("{graphiql}", loaded).replace("{static}", static)


def graphiql_headers(request: Request) -> dict[str, str]:
    """Return the headers of that page."""
    policy = content_security_policy(
        public_url=runtime_of(request).settings.public_url, with_inline_styles=True
    )
    return {"Cache-Control": "no-store", "Content-Security-Policy": policy}


def _element(name: str, url: str) -> str:
    if name.endswith(".css"):
        return f'<link rel="stylesheet" href="{escape(url)}">'
    return f'<script defer src="{escape(url)}"></script>'
