"""One server per data directory, and where its stores are.

The lock file is held by `flock`, which the kernel drops with the process; `stores.json` beside it
lets commands of the same user find the running stores.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from services.errors import Error
from services.files import make_private_folder, write_private

_LOCK_NAME = "lock"
_STORES_NAME = "stores.json"
_LOCK_SECONDS = 0.5
"""Longest wait for the lock: a command holds it for microseconds, a server until it ends."""
_LOCK_POLL_SECONDS = 0.02


class DataDirInUse(Error):
    """Another process runs its stores in this data directory."""

    code = "DATA_DIR_IN_USE"


@dataclass(frozen=True, slots=True)
class Stores:
    """Where the embedded stores are; None for a store that is not embedded.

    Attributes:
        mongodb_url: Connection string with user and password.
        orthanc_url: Base of the REST API, without a slash at the end.
        orthanc_username: Orthanc's user, `""` without an embedded Orthanc.
        orthanc_password: Of that user.
    """

    mongodb_url: str | None = field(default=None, repr=False)
    orthanc_url: str | None = None
    orthanc_username: str = ""
    orthanc_password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class RunningStores:
    """The stores of a process that runs now.

    Attributes:
        pid: Of that process.
        address: Where its HTTP server is, `""` when it has none.
        stores: Its embedded stores.
    """

    pid: int
    address: str
    stores: Stores


@contextmanager
def lock_data_dir(data_dir: Path, *, address: str = "") -> Iterator[None]:
    """Hold the data directory for this process. Blocks for up to half a second.

    Args:
        data_dir: Created when missing.
        address: Where this process serves, for the message to others.

    Raises:
        DataDirInUse: Another process holds it.
    """
    make_private_folder(data_dir)
    descriptor = os.open(data_dir / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _lock(descriptor):
            raise _in_use(data_dir, os.pread(descriptor, 1000, 0).decode("utf-8", "replace"))
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {address}".encode(), 0)
        (data_dir / _STORES_NAME).unlink(missing_ok=True)
        try:
            yield
        finally:
            (data_dir / _STORES_NAME).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def write_running_stores(data_dir: Path, running: RunningStores) -> None:
    """Publish the addresses of the stores to processes of this user; only under `lock_data_dir`."""
    write_private(data_dir / _STORES_NAME, json.dumps(asdict(running)))


def read_running_stores(data_dir: Path) -> RunningStores | None:
    """Find the stores of a process that runs on this data directory.

    Returns:
        None when there is no such process, or its stores are not ready.
    """
    if not _is_locked(data_dir):
        return None
    try:
        text = (data_dir / _STORES_NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    fields = json.loads(text)
    return RunningStores(
        pid=fields["pid"], address=fields["address"], stores=Stores(**fields["stores"])
    )


def _is_locked(data_dir: Path) -> bool:
    try:
        descriptor = os.open(data_dir / _LOCK_NAME, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock(descriptor: int) -> bool:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOCK_POLL_SECONDS)
        else:
            return True


def _in_use(data_dir: Path, holder: str) -> DataDirInUse:
    pid, _, address = holder.partition(" ")
    where = f" at {address}" if address else ""
    return DataDirInUse(
        f"Process {pid}{where} already uses the data directory {data_dir}. "
        "Stop it first, or choose another one with --data-dir."
    )
