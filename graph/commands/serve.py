"""`orthanc-graphql serve`."""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path

import click
import uvicorn

from graph.app import create_app
from graph.commands.options import STORES, data_dir_option, examples, load_settings, run
from graph.commands.workers import Channel, Handover, WorkerServer, followed, start_worker
from graph.http.garbage import collect_while_idle, defer_full_collections
from graph.http.server import server_config
from graph.http.shutdown import GracefulServer
from graph.logs import configure_logging
from graph.routes.metrics import serving_metrics
from services.auth.authenticator import Authenticator
from services.auth.open_mode import refuse_open_start
from services.connections import can_have_credentials, make_events_secret, open_connections
from services.errors import Error
from services.health.descriptors import raise_descriptor_limit
from services.health.readiness import Readiness
from services.installation.demo_data import store_samples
from services.installation.setting_typos import read_setting_typos
from services.observability.tracing import tracing
from services.runtime import Runtime, closed_because, open_runtime
from services.settings import Settings
from services.tasks import cancel_and_wait, finish_in_thread

_log = logging.getLogger(__name__)


class _Workers(click.ParamType[int]):
    name = "N|auto"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if value == "auto":
            return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        return click.IntRange(1, _MOST_WORKERS).convert(value, param, ctx)  # type: ignore[arg-type]  # it reads text


_MOST_WORKERS = 64


@click.command(
    epilog=examples(
        "orthanc-graphql serve",
        "orthanc-graphql serve --host 0.0.0.0 --port 8000",
        "orthanc-graphql serve --workers auto",
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
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=_Workers(),
    help="Processes that serve on this port; auto: one for each processor. SIGHUP restarts them "
    "one after another.",
)
@data_dir_option
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Least level shown.",
)
@click.option("--worker", "channel", type=int, hidden=True, help="Descriptor of the parent.")
def command(
    *,
    host: str,
    port: int,
    workers: int,
    data_dir: Path | None,
    log_level: str,
    channel: int | None,
) -> None:
    """Run the server.

    Without MONGODB_URL and ORTHANC_URL it starts a private MongoDB and a private Orthanc in the
    data directory, on loopback, and stops them when it stops.
    """
    # A worker does not repeat the warnings of its parent.
    misspelt = read_setting_typos() if channel is None else ()
    settings = _loaded_settings(data_dir, log_level.upper(), misspelt)
    raise_descriptor_limit()
    with tracing(version("orthanc-graphql")):
        if channel is not None:
            run(lambda: _serve_as_worker(settings, channel))
        if workers == 1:
            run(lambda: _serve(settings, host, port))
    arguments = ["--log-level", log_level, "--data-dir", str(settings.data_dir)]
    run(lambda: _serve_with_workers(settings, host, port, workers, arguments))


def _loaded_settings(data_dir: Path | None, log_level: str, misspelt: Sequence[str]) -> Settings:
    """Load the settings; log misspelt ones also if the settings can't be loaded."""
    try:
        settings = load_settings(data_dir=data_dir)
    except click.ClickException:
        configure_logging(log_level)
        _log_all(misspelt)
        raise
    configure_logging(log_level, settings.log_format)
    _log_all(misspelt)
    return settings


def _log_all(warnings: Sequence[str]) -> None:
    for warning in warnings:
        _log.warning("%s", warning)


async def _serve(settings: Settings, host: str, port: int) -> int:
    [listener] = _listen(host, port)
    [metrics] = _listen_for_metrics(settings)
    await _refuse_early(settings, host)
    address = _address(listener)
    check = partial(_check_credentials, host=host)
    async with open_runtime(settings, address=address, check=check) as runtime:
        await _fill_empty_store(runtime)
        return await _serve_http(
            runtime,
            listener,
            metrics,
            delay_seconds=settings.shutdown_delay_seconds,
            started=lambda: _announce(settings, address, [metrics]),
        )


async def _serve_with_workers(
    settings: Settings, host: str, port: int, workers: int, arguments: Sequence[str]
) -> int:
    listeners = _listen(host, port, number=workers)
    metrics = _listen_for_metrics(settings, workers)
    await _refuse_early(settings, host)
    address = _address(listeners[0])
    events_secret = make_events_secret(settings)
    async with open_connections(
        settings, address=address, events_secret=events_secret
    ) as connections:
        handovers = [
            Handover(
                number=number,
                listeners=[listener.fileno() for listener in listeners],
                metrics=None if one is None else one.fileno(),
                address=address,
                host=host,
                workers=workers,
                connections=asdict(connections),
                events_secret=events_secret,
            )
            for number, one in enumerate(metrics)
        ]
        server = WorkerServer(
            [partial(start_worker, arguments, handover) for handover in handovers],
            delay_seconds=settings.shutdown_delay_seconds,
            shutdown_seconds=settings.shutdown_seconds,
        )
        await server.run(lambda: _announce(settings, address, metrics))
    return 0


async def _serve_as_worker(settings: Settings, descriptor: int) -> int:
    channel = await Channel.open(descriptor)
    given = await channel.handover()
    listener = _inherited(given.listeners[given.number])
    metrics = None if given.metrics is None else socket.socket(fileno=given.metrics)
    check = partial(_check_credentials, host=given.host)
    async with open_runtime(
        settings, address=given.address, check=check, group=given.group
    ) as runtime:
        if given.is_first:
            await _fill_empty_store(runtime)
        # The parent waits for the load balancers, for all workers.
        return await _serve_http(
            runtime,
            listener,
            metrics,
            delay_seconds=0,
            started=channel.ready,
            parent=(channel, given.listeners),
        )


async def _serve_http(
    runtime: Runtime,
    listener: socket.socket,
    metrics: socket.socket | None,
    *,
    delay_seconds: float,
    started: Callable[[], None],
    parent: tuple[Channel, Sequence[int]] | None = None,
) -> int:
    settings = runtime.settings
    server = _AnnouncingServer(
        server_config(create_app(settings, runtime=runtime), settings),
        runtime.readiness,
        delay_seconds=delay_seconds,
        started=started,
    )
    defer_full_collections()
    async with AsyncExitStack() as stack:
        if parent is not None:
            channel, listeners = parent
            await stack.enter_async_context(followed(channel, _Worker(server, listeners)))
        collecting = asyncio.create_task(collect_while_idle())
        stack.push_async_callback(cancel_and_wait, collecting)
        await stack.enter_async_context(serving_metrics(runtime, metrics))
        await server.serve(sockets=[listener])
    return 0 if server.started else 1


class _Worker:
    """Follows the commands of the parent process.

    Args:
        server: Of this process.
        listeners: Descriptors of the sockets of all workers.
    """

    def __init__(self, server: GracefulServer, listeners: Sequence[int]) -> None:
        self._server = server
        self._listeners = listeners

    def drain(self) -> None:
        self._server.drain()

    def stop(self) -> None:
        self._server.stop()

    async def adopt(self, number: int) -> None:
        await self._server.listen_to(_inherited(self._listeners[number]), number)

    def release(self, number: int) -> None:
        self._server.leave(number)


def _inherited(descriptor: int) -> socket.socket:
    """Open a socket of the parent; its descriptor stays open when this one is closed."""
    return socket.socket(fileno=os.dup(descriptor))


async def _refuse_early(settings: Settings, host: str) -> None:
    """Refuse a server without credentials before the stores are started."""
    if not await finish_in_thread(can_have_credentials, settings):
        refuse_open_start(await finish_in_thread(closed_because, settings), host=host)


def _check_credentials(authenticator: Authenticator, *, host: str) -> None:
    if not authenticator.has_credentials:
        refuse_open_start(authenticator.closed_because, host=host)


async def _fill_empty_store(runtime: Runtime) -> None:
    """Load samples into empty embedded stores, so that a first query has a result."""
    settings = runtime.settings
    if not (settings.load_samples and settings.is_fully_embedded and runtime.orthanc):
        return
    if (await runtime.orthanc.statistics()).instances == 0:
        stored = await store_samples(runtime.ingest)
        click.echo(f"  Loaded {stored} sample files into the empty store.")


class _AnnouncingServer(GracefulServer):
    """Announces its address when it is ready."""

    def __init__(
        self,
        config: uvicorn.Config,
        readiness: Readiness,
        *,
        delay_seconds: float,
        started: Callable[[], None],
    ) -> None:
        super().__init__(config, readiness, delay_seconds=delay_seconds)
        self._on_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then announce the address."""
        await super().startup(sockets)
        if self.started:
            self._on_started()


def _announce(settings: Settings, address: str, metrics: Sequence[socket.socket | None]) -> None:
    url = settings.public_url or address
    places = [
        ("Study browser", f"{url}/"),
        ("GraphiQL", f"{url}/graphql"),
        ("Health", f"{url}/readyz"),
        *(("Metrics", f"{_address(one)}/metrics") for one in metrics if one is not None),
    ]
    click.echo("\n" + "".join(f"  {name:<13}  {place}\n" for name, place in places))
    click.echo("  Ctrl-C stops the server.\n")


def _listen(host: str, port: int, *, number: int = 1) -> list[socket.socket]:
    """Bind the port before anything is started, so that an error is shown at once.

    Args:
        host: Address to listen on.
        port: 0 takes a free one.
        number: Number of sockets that share the port.
    """
    listener = _bind(host, port)
    if number == 1:
        return [listener]
    # Sockets that share a port would also share it with another program; the first does not.
    port = listener.getsockname()[1]
    listener.close()
    return [_bind(host, port, shared=True) for _ in range(number)]


def _listen_for_metrics(settings: Settings, number: int = 1) -> list[socket.socket | None]:
    """Bind a port for the metrics of each process, because each has its own counters."""
    if settings.metrics_port is None:
        return [None] * number
    ports = range(settings.metrics_port, settings.metrics_port + number)
    return [_bind(settings.metrics_host, port, option="METRICS_PORT") for port in ports]


def _bind(host: str, port: int, *, shared: bool = False, option: str = "--port") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise AddressUnavailable(
            f"Can't listen on {host}:{port}: {exc.strerror}. Is a server running there? "
            f"Choose another with {option}."
        ) from exc
    listener.set_inheritable(False)
    return listener


class AddressUnavailable(Error):
    """The address to listen on is in use or does not belong to this machine."""

    code = "ADDRESS_UNAVAILABLE"


def _address(listener: socket.socket) -> str:
    """Return the address of the server on this machine, also if it listens on all interfaces."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
