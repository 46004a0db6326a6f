"""All routes of a DICOMweb service."""

from starlette.routing import BaseRoute

from graph.dicomweb.exchange import Mount
from graph.dicomweb.files import file_routes
from graph.dicomweb.frames import frame_routes
from graph.dicomweb.metadata import metadata_routes
from graph.dicomweb.rendered import rendered_routes
from graph.dicomweb.searches import search_routes
from graph.dicomweb.store import store_routes
from graph.http.client_slots import ClientSlots


def dicomweb_routes(mount: Mount | None = None, *, slots: ClientSlots) -> list[BaseRoute]:
    """Make the routes of one service.

    Args:
        mount: Where it stands and who may use it; None: at its usual place, for principals.
        slots: What one client may download at once.
    """
    mount = mount or Mount()
    return [
        # Routes are tried in this order: frames are asked for most often.
        *frame_routes(mount),
        *rendered_routes(mount),
        *metadata_routes(mount),
        *search_routes(mount),
        *file_routes(mount, slots),
        *store_routes(mount),
    ]
