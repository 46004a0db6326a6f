"""Whether this process should get requests: what a load balancer asks for."""

from typing import Any

from pymongo import AsyncMongoClient
from pymongo.read_preferences import Nearest


class Readiness:
    """Says whether requests should come to this process, from what it knows already.

    It sends no request: PyMongo observes all members of the replica set by itself, every two
    seconds. Orthanc does not matter. Without it lists and pictures in memory are still served, and
    a load balancer would take all processes out of service at once. A replica set without a
    primary does not matter either: reads go on.

    Attributes:
        is_stopping: The process serves what comes and wants no more of it.

    Args:
        client: Of MongoDB.
    """

    def __init__(self, client: AsyncMongoClient[dict[str, Any]]) -> None:
        self._client = client
        self.is_stopping = False

    @property
    def status(self) -> str:
        """`ready`, `stopping`, or `unavailable` while no member of MongoDB answers."""
        if self.is_stopping:
            return "stopping"
        is_readable = self._client.topology_description.has_readable_server(Nearest())
        return "ready" if is_readable else "unavailable"
