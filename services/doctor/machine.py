"""The machine: Python and the disk."""

import shutil
import sys
import tempfile
from pathlib import Path

from services.doctor.findings import Finding, ok, problem, warning

_LEAST_PYTHON = (3, 11)
_GIB = 1024**3
_NEEDED_BYTES = 1 * _GIB
"""mongod refuses writes below about half of this."""
_SPARE_BYTES = 10 * _GIB
"""A few hundred CT studies."""


def examine_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """Check the release of Python.

    Args:
        version: Its numbers.
    """
    shown = ".".join(str(number) for number in version)
    if version < _LEAST_PYTHON:
        return problem("Python", f"{shown} is too old. Install Python 3.11 or newer.")
    return ok("Python", shown)


def examine_data_dir(data_dir: Path, *, needed_bytes: int = _NEEDED_BYTES) -> Finding:
    """Check that the data directory takes files and has room. Blocks; may create the folder.

    Args:
        data_dir: The folder.
        needed_bytes: Least free space, in bytes.
    """
    part = "Data directory"
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=data_dir):
            free_bytes = shutil.disk_usage(data_dir).free
    except OSError as exc:
        return problem(
            part,
            f"{data_dir} takes no files ({exc.strerror}). Make it writable or set DATA_DIR.",
        )
    room = f"{data_dir}, {free_bytes / _GIB:.1f} GiB free"
    if free_bytes < needed_bytes:
        return problem(part, f"{room}: too little. Free some space or set DATA_DIR.")
    if free_bytes < _SPARE_BYTES:
        return warning(part, f"{room}: it will be full soon.")
    return ok(part, room)
