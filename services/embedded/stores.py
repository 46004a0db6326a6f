"""Start the stores that are not given from outside."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

from services.embedded.data_dir import RunningStores, Stores, lock_data_dir, write_running_stores
from services.embedded.mongod import EmbeddedMongod, run_mongod
from services.embedded.orthanc import DEFAULT_MEMORY_BYTES, EmbeddedOrthanc, run_orthanc
from services.embedded.orthanc_configuration import DEFAULT_AE_TITLE, DicomServer, TlsFiles
from services.tasks import finish_in_thread

_T = TypeVar("_T")


@asynccontextmanager
async def open_stores(
    *,
    data_dir: Path,
    embed_mongodb: bool,
    embed_orthanc: bool,
    ae_title: str = DEFAULT_AE_TITLE,
    dicom: DicomServer | None = None,
    tls: TlsFiles | None = None,
    address: str = "",
    lua_scripts: Sequence[Path] = (),
    worklist_folder: Path | None = None,
    orthanc_memory_bytes: int = DEFAULT_MEMORY_BYTES,
    on_restart: Callable[[str], None] | None = None,
) -> AsyncIterator[Stores]:
    """Run the embedded stores, both started at once, both ready when entered.

    Without any embedded store this does nothing and leaves `data_dir` alone.

    Args:
        data_dir: Holds `mongodb/`, `orthanc/`, the lock and, while inside, `stores.json`.
        embed_mongodb: Whether to run MongoDB.
        embed_orthanc: Whether to run Orthanc.
        ae_title: Orthanc's AE title.
        dicom: Orthanc's DICOM server; None: none.
        tls: For modalities that use TLS; None: there are none.
        address: Where this process serves HTTP, shown when a second one is started.
        lua_scripts: Orthanc's server-side scripts.
        worklist_folder: Whose `*.wl` files Orthanc serves as modality worklist; None: none.
        orthanc_memory_bytes: Most address space that Orthanc may take, in bytes.
        on_restart: Called with "MongoDB" or "Orthanc" after each restart of one that died.

    Raises:
        DataDirInUse: Another process runs its stores there.
        NotInstalled: A program is missing; the message says how to get it.
        StartFailed: A store stopped while it started.
    """
    mongod = orthanc = None
    if embed_mongodb:
        mongod = run_mongod(data_dir / "mongodb", on_restart=on_restart)
    if embed_orthanc:
        orthanc = run_orthanc(
            data_dir / "orthanc",
            ae_title=ae_title,
            dicom=dicom,
            tls=tls,
            lua_scripts=lua_scripts,
            worklist_folder=worklist_folder,
            memory_bytes=orthanc_memory_bytes,
            on_restart=on_restart,
        )
    if mongod is None and orthanc is None:
        yield Stores()
        return
    with ExitStack() as lock:
        holding = lock_data_dir(data_dir, address=address)
        # A cancelled start must not leave a thread that takes the lock afterwards.
        await finish_in_thread(lambda: lock.enter_context(holding))
        async with _both(mongod, orthanc) as (running_mongod, running_orthanc):
            stores = _describe(running_mongod, running_orthanc)
            running = RunningStores(pid=os.getpid(), address=address, stores=stores)
            await finish_in_thread(write_running_stores, data_dir, running)
            yield stores


def _describe(mongod: EmbeddedMongod | None, orthanc: EmbeddedOrthanc | None) -> Stores:
    return Stores(
        mongodb_url=mongod.url if mongod else None,
        orthanc_url=orthanc.url if orthanc else None,
        orthanc_username=orthanc.username if orthanc else "",
        orthanc_password=orthanc.password if orthanc else "",
    )


@asynccontextmanager
async def _both(
    mongod: AbstractAsyncContextManager[EmbeddedMongod] | None,
    orthanc: AbstractAsyncContextManager[EmbeddedOrthanc] | None,
) -> AsyncIterator[tuple[EmbeddedMongod | None, EmbeddedOrthanc | None]]:
    """Enter both at once and leave both at once: each takes about a second."""
    mongod_stack, orthanc_stack = AsyncExitStack(), AsyncExitStack()
    try:
        entered = await asyncio.gather(
            _enter(mongod_stack, mongod), _enter(orthanc_stack, orthanc), return_exceptions=True
        )
        running_mongod, running_orthanc = entered
        if isinstance(running_mongod, BaseException):
            raise running_mongod
        if isinstance(running_orthanc, BaseException):
            raise running_orthanc
        yield running_mongod, running_orthanc
    finally:
        await asyncio.gather(mongod_stack.aclose(), orthanc_stack.aclose())


async def _enter(
    stack: AsyncExitStack, context: AbstractAsyncContextManager[_T] | None
) -> _T | None:
    return None if context is None else await stack.enter_async_context(context)
