"""The least that Starlette does to answer the same bytes: `python -m tests.benchmarks.bare_route`.

Under the settings of uvicorn that `orthanc-graphql serve` has.
"""

import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def main(body_path: str, port: str) -> None:
    """Serve one file.

    Args:
        body_path: The file.
        port: Where to listen, on loopback.
    """
    body = Path(body_path).read_bytes()

    async def answer(_: Request) -> Response:
        return Response(body, media_type="image/png")

    uvicorn.run(
        Starlette(routes=[Route("/frame", answer)]),
        port=int(port),
        loop="uvloop",
        log_config=None,
        access_log=False,
        server_header=False,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
