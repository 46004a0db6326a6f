"""A private Orthanc as a child: own folder, own port, generated password."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx

from services.embedded.child import Child, ChildSpec, supervise
from services.embedded.failures import StartFailed
from services.embedded.orthanc_configuration import (
    DEFAULT_AE_TITLE,
    DicomServer,
    OrthancOptions,
    TlsFiles,
    compose_configuration,
)
from services.embedded.orthanc_installation import find_orthanc
from services.embedded.ports import LOOPBACK, keep_port
from services.files import keep_password, make_private_folder, write_private
from services.tasks import finish_in_thread

USERNAME = "orthanc-graphql"

DEFAULT_MEMORY_BYTES = 5 * 1024**3
"""Storing a file of 1 GiB takes 3.5 GiB of address space, 0.5 GiB of which an idle Orthanc has, and
at most 1 GiB of files is sent to it at once. A JPEG 2000 file of 6 kB can ask for 22 GiB."""

_POLL_SECONDS = 0.02
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class EmbeddedOrthanc:
    """A running private Orthanc.

    Attributes:
        url: Of its REST API, without a slash at the end; the same after a restart of the child.
        username: The only user.
        password: Of that user.
        child: The process.
    """

    url: str
    username: str
    password: str = field(repr=False)
    child: Child


@asynccontextmanager
async def run_orthanc(
    folder: Path,
    *,
    ae_title: str = DEFAULT_AE_TITLE,
    dicom: DicomServer | None = None,
    tls: TlsFiles | None = None,
    lua_scripts: Sequence[Path] = (),
    stable_age_seconds: int = 5,
    worklist_folder: Path | None = None,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    on_restart: Callable[[str], None] | None = None,
) -> AsyncIterator[EmbeddedOrthanc]:
    """Run Orthanc with its data in a folder: it answers `GET /system` when entered.

    Args:
        folder: Holds storage, index, configuration, password, port and log; created when missing.
        ae_title: Its AE title.
        dicom: Its DICOM server; None: none.
        tls: For modalities that use TLS; None: there are none.
        lua_scripts: Server-side scripts to load.
        stable_age_seconds: A study is stable when nothing came for so long.
        worklist_folder: Whose `*.wl` files are served as modality worklist; None: none.
        memory_bytes: Most address space that it may take, in bytes.
        on_restart: Called with the name after each restart of an Orthanc that died.

    Raises:
        NotInstalled: There is no Orthanc on this machine, or an old one.
        StartFailed: It stopped while it started.
    """
    binary, options, configuration = await finish_in_thread(
        partial(
            _prepare,
            folder,
            ae_title=ae_title,
            dicom=dicom,
            tls=tls,
            lua_scripts=lua_scripts,
            stable_age_seconds=stable_age_seconds,
            worklist_folder=worklist_folder,
        )
    )
    spec = ChildSpec(
        name="Orthanc",
        command=[str(binary), str(configuration)],
        log_path=folder / "orthanc.log",
        on_restart=on_restart,
        memory_bytes=memory_bytes,
    )
    password = options.password
    url = f"http://{LOOPBACK}:{options.http_port}"
    async with supervise(spec, lambda: _until_it_answers(url, password)) as child:
        yield EmbeddedOrthanc(url=url, username=USERNAME, password=password, child=child)


def _prepare(
    folder: Path,
    *,
    ae_title: str,
    dicom: DicomServer | None,
    tls: TlsFiles | None,
    lua_scripts: Sequence[Path],
    stable_age_seconds: int,
    worklist_folder: Path | None,
) -> tuple[Path, OrthancOptions, Path]:
    installed = find_orthanc()
    make_private_folder(folder)
    make_private_folder(folder / "storage")
    make_private_folder(folder / "index")
    options = OrthancOptions(
        folder=folder.absolute(),
        http_port=keep_port(folder / "port"),
        username=USERNAME,
        password=keep_password(folder / "password"),
        ae_title=ae_title,
        dicom=dicom,
        tls=tls,
        plugins=installed.plugins,
        lua_scripts=[script.absolute() for script in lua_scripts],
        stable_age_seconds=stable_age_seconds,
        worklist_folder=worklist_folder.absolute() if worklist_folder else None,
    )
    configuration = folder.absolute() / "configuration.json"
    write_private(configuration, json.dumps(compose_configuration(options), indent=2))
    return installed.binary, options, configuration


async def _until_it_answers(url: str, password: str) -> None:
    async with httpx.AsyncClient(
        auth=(USERNAME, password), timeout=_ANSWER_SECONDS, trust_env=False
    ) as client:
        while True:
            try:
                answer = await client.get(f"{url}/system")
            except httpx.TransportError:
                await asyncio.sleep(_POLL_SECONDS)
                continue
            if answer.status_code != httpx.codes.OK:
                raise StartFailed(f"The embedded Orthanc answers {answer.status_code}")
            return
