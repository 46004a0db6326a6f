"""`orthanc-graphql serve`."""

import asyncio
import logging
import socket
from functools import partial
from pathlib import Path

import click
from starlette.applications import Starlette

from graph.app import create_app
from graph.commands.options import STORES, data_dir_option, examples, load_settings, run
from graph.http.garbage import collect_while_idle, defer_full_collections
from graph.http.server import server_config
from graph.http.shutdown import GracefulServer
from graph.logs import configure_logging
from services.auth.authenticator import Authenticator
from services.auth.open_mode import refuse_open_start
from services.demo_data import store_samples
from services.descriptors import raise_descriptor_limit
from services.errors import Error
from services.runtime import Runtime, can_have_credentials, closed_because, open_runtime
from services.setting_typos import read_setting_typos
from services.settings import Settings
from services.tasks import cancel_and_wait, finish_in_thread

_log = logging.getLogger(__name__)


@click.command(
    epilog=examples(
        "orthanc-graphql serve",
        "orthanc-graphql serve --host 0.0.0.0 --port 8000",
        settings=(*STORES, "PUBLIC_URL", "TOKENS_FILE", "OIDC_ISSUER", "CORS_ALLOWED_ORIGINS"),
    )
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)
@data_dir_option
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Least level shown.",
)
def command(host: str, port: int, data_dir: Path | None, log_level: str) -> None:
    """Run the server.

    Without MONGODB_URL and ORTHANC_URL it starts a private MongoDB and a private Orthanc in the
    data directory, on loopback, and stops them when it stops.
    """
    configure_logging(log_level.upper())
    raise_descriptor_limit()
    for misspelt in read_setting_typos():
        _log.warning("%s", misspelt)
    settings = load_settings(data_dir=data_dir)
    run(lambda: _serve(settings, host, port))


async def _serve(settings: Settings, host: str, port: int) -> int:
    listener = _listen(host, port)
    if not await finish_in_thread(can_have_credentials, settings):
        # Refuse at once, before the stores are started for nothing.
        refuse_open_start(await finish_in_thread(closed_because, settings), host=host)
    check = partial(_check_credentials, host=host)
    async with open_runtime(settings, address=_address(listener), check=check) as runtime:
        await _fill_empty_store(runtime)
        server = _AnnouncingServer(create_app(settings, runtime=runtime), runtime, listener)
        defer_full_collections()
        collecting = asyncio.create_task(collect_while_idle())
        try:
            await server.serve(sockets=[listener])
        finally:
            await cancel_and_wait(collecting)
    return 0 if server.started else 1


def _check_credentials(authenticator: Authenticator, *, host: str) -> None:
    if not authenticator.has_credentials:
        refuse_open_start(authenticator.closed_because, host=host)


async def _fill_empty_store(runtime: Runtime) -> None:
    """Give a first query an answer: samples, where the stores are ours and hold nothing."""
    settings = runtime.settings
    if not (settings.load_samples and settings.is_fully_embedded and runtime.orthanc):
        return
    if (await runtime.orthanc.statistics()).instances == 0:
        stored = await store_samples(runtime.ingest)
        click.echo(f"  Loaded {stored} sample files into the empty store.")


class _AnnouncingServer(GracefulServer):
    """Says where it can be reached as soon as it can be."""

    def __init__(self, app: Starlette, runtime: Runtime, listener: socket.socket) -> None:
        settings = runtime.settings
        super().__init__(
            server_config(app, settings),
            runtime.readiness,
            delay_seconds=settings.shutdown_delay_seconds,
        )
        self._runtime = runtime
        self._listener = listener

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then print the addresses."""
        await super().startup(sockets)
        if self.started:
            self._announce()

    def _announce(self) -> None:
        address = self._runtime.settings.public_url or _address(self._listener)
        click.echo(
            f"\n  Study browser  {address}/\n"
            f"  GraphiQL       {address}/graphql\n"
            f"  Health         {address}/readyz\n\n"
            "  Ctrl-C stops the server.\n"
        )


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything is started: an error shows at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise AddressUnavailable(
            f"Can't listen on {host}:{port}: {exc.strerror}. Is a server running there? "
            "Choose another with --port."
        ) from exc
    listener.set_inheritable(False)
    return listener


class AddressUnavailable(Error):
    """The address to listen on is in use or does not belong to this machine."""

    code = "ADDRESS_UNAVAILABLE"


def _address(listener: socket.socket) -> str:
    """Say how this machine reaches the server, also where it listens on all interfaces."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
