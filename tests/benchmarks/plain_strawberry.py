"""A plain Strawberry schema over objects in memory: `python -m tests.benchmarks.plain_strawberry`.

It answers the query of `tree` without a database, without signing, without limits, under the
settings of uvicorn that `orthanc-graphql serve` has.
"""

import sys
from typing import Annotated

import strawberry
from starlette.routing import Route
from strawberry.asgi import GraphQL

from tests.benchmarks.rival_process import serve_rival
from tests.benchmarks.tree_query import INSTANCES, SERIES

_URL = "http://127.0.0.1:8000/frames/v2/k1.66a0b228.zHTjwNdaXd1Tu24XeDaBnQ/" + "0a1b2c3d-" * 5


@strawberry.type
class Frame:
    """A frame with its URL."""

    url: str


@strawberry.type
class Instance:
    """What the query asks of an instance."""

    sop_instance_uid: Annotated[str, strawberry.field(name="sopInstanceUID")]
    instance_number: int
    rows: int
    columns: int
    window_center: float
    window_width: float
    number_of_frames: int
    frame: Frame


@strawberry.type
class Series:
    """What the query asks of a series."""

    series_number: int
    modality: str
    instances: list[Instance]


@strawberry.type
class Study:
    """What the query asks of a study."""

    study_date: str
    series: list[Series]


def _study() -> Study:
    return Study(study_date="2026-01-01", series=[_series(number) for number in range(SERIES)])


def _series(number: int) -> Series:
    instances = [_instance(number, index) for index in range(INSTANCES // SERIES)]
    return Series(series_number=number, modality="CT", instances=instances)


def _instance(series: int, index: int) -> Instance:
    return Instance(
        sop_instance_uid=f"1.2.826.0.1.3680043.8.498.{series}.{index}",
        instance_number=index,
        rows=512,
        columns=512,
        window_center=40.0,
        window_width=400.0,
        number_of_frames=1,
        frame=Frame(url=f"{_URL}/deadbeef/{series}-{index}/default.png"),
    )


_STUDY = _study()


@strawberry.type
class Query:
    """The one root field of the query."""

    @strawberry.field
    def study(
        self, uid: Annotated[str, strawberry.argument(name="studyInstanceUID")]
    ) -> Study | None:
        """Answer the study, whichever is asked for."""
        del uid
        return _STUDY


def main(port: str) -> None:
    """Serve the schema on loopback."""
    endpoint: GraphQL[object, None] = GraphQL(strawberry.Schema(Query))
    serve_rival(Route("/graphql", endpoint), port)


if __name__ == "__main__":
    main(*sys.argv[1:])
