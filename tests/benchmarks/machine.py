"""The machine that figures come from, and the versions that matter."""

import os
import platform
import re
import subprocess
from pathlib import Path

from services.embedded.mongod import find_mongod
from services.embedded.orthanc_installation import find_orthanc

_GIBIBYTE = 1024**3


def describe_machine() -> dict[str, str]:
    """Describe processor, memory, system and versions, each as people would."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    release = find_orthanc().release
    return {
        "processor": f"{_processor()} ({os.cpu_count()} cores)",
        "memory": f"{memory / _GIBIBYTE:.0f} GiB",
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        "python": f"Python {platform.python_version()}",
        "orthanc": f"Orthanc {'.'.join(map(str, release)) if release else 'mainline'}",
        "mongodb": f"MongoDB {_mongod_version()}",
    }


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return found[1].strip() if found else platform.machine()


def _mongod_version() -> str:
    command = [str(find_mongod()), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603  # the server that the benchmark starts
    found = re.search(r"\d+\.\d+\.\d+", said)
    return found[0] if found else "of unknown version"
