"""All routes of a DICOMweb service."""

from starlette.routing import BaseRoute

from graph.dicomweb.exchange import Mount
from graph.dicomweb.metadata import metadata_routes
from graph.dicomweb.searches import search_routes


def dicomweb_routes(mount: Mount = Mount()) -> list[BaseRoute]:  # noqa: B008  # frozen
    """Make the routes of one service.

    Args:
        mount: Where it stands and who may use it.
    """
    return [*metadata_routes(mount), *search_routes(mount)]
