"""The least that Starlette does to answer the same bytes: `python -m tests.benchmarks.bare_route`.

Under the settings of uvicorn that `orthanc-graphql serve` has.
"""

import sys
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.benchmarks.rival_process import serve_rival


def main(body_path: str, port: str) -> None:
    """Serve one file.

    Args:
        body_path: The file.
        port: Where to listen, on loopback.
    """
    body = Path(body_path).read_bytes()

    async def answer(_: Request) -> Response:
        return Response(body, media_type="image/png")

    serve_rival(Route("/frame", answer), port)


if __name__ == "__main__":
    main(*sys.argv[1:])
