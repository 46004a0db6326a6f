"""The Orthanc of this machine: program, release, plugins."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from services.embedded.failures import NotInstalled

OLDEST_RELEASE = (1, 10, 1)
"""What Debian 12 has; older ones lack routes that frames are made from."""

_ADVICE = (
    "Install it with: sudo apt-get install orthanc orthanc-dicomweb orthanc-gdcm - "
    "or set ORTHANC_URL to use another one, or use compose.yaml."
)
_BINARIES = ("/usr/sbin/Orthanc", "/usr/local/sbin/Orthanc")
_PLUGIN_FOLDERS = (
    "/usr/share/orthanc/plugins",
    "/usr/local/share/orthanc/plugins",
    "/usr/lib/orthanc/plugins",
)
_PLUGINS = (
    ("libOrthancDicomWeb.so",),
    ("libOrthancGdcm.so",),
    # Both have the same configuration and serve the same files.
    ("libModalityWorklists.so", "libOrthancWorklists.so"),
)
"""What is loaded where it is there: the first of each group."""
_RELEASE = re.compile(r"Orthanc (\d+)\.(\d+)\.(\d+)")
_VERSION_SECONDS = 10


@dataclass(frozen=True, slots=True)
class OrthancInstallation:
    """What is installed.

    Attributes:
        binary: The program.
        release: Its number, or None for a build that has none ("mainline").
        plugins: Those of DICOMweb, GDCM and the modality worklist that are there.
    """

    binary: Path
    release: tuple[int, int, int] | None
    plugins: tuple[Path, ...]


def find_orthanc(
    *,
    binaries: Iterable[str] | None = None,
    plugin_folders: Iterable[str] | None = None,
) -> OrthancInstallation:
    """Find Orthanc and its plugins on this machine. Blocks: it runs `Orthanc --version`.

    Args:
        binaries: Where to look, in this order; None: `ORTHANC_BINARY`, Debian's place, the PATH.
        plugin_folders: Where plugins may be; the first folder that has one wins. None: beside
            the program, then where packages put them.

    Raises:
        NotInstalled: There is none, it does not run, or it is older than 1.10.1.
    """
    for candidate in _usual_places() if binaries is None else binaries:
        if os.access(candidate, os.X_OK) and Path(candidate).is_file():
            release = parse_release(_version_text(candidate))
            _refuse_old(release)
            binary = Path(candidate)
            plugins = find_plugins(plugin_folders or usual_plugin_folders(binary))
            return OrthancInstallation(binary, release, plugins)
    raise NotInstalled(f"There is no Orthanc for the embedded store. {_ADVICE}")


def find_plugins(folders: Iterable[str]) -> tuple[Path, ...]:
    """List the wanted plugins of the first folder that has any of them."""
    for folder in folders:
        groups = ([Path(folder) / name for name in names] for names in _PLUGINS)
        present = ([path for path in group if path.is_file()] for group in groups)
        found = tuple(paths[0] for paths in present if paths)
        if found:
            return found
    return ()


def parse_release(text: str) -> tuple[int, int, int] | None:
    """Read the release number from what `Orthanc --version` prints."""
    match = _RELEASE.search(text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def _usual_places() -> list[str]:
    named = os.environ.get("ORTHANC_BINARY")
    if named:
        return [named]
    on_path = shutil.which("Orthanc")
    return [*_BINARIES, *([on_path] if on_path else [])]


def usual_plugin_folders(binary: Path) -> list[str]:
    """Return where the plugins of a program may be: with it unpacked, beside it, or installed."""
    folder = binary.resolve().parent
    beside = (folder / "usr/share/orthanc/plugins", folder.parent / "share/orthanc/plugins", folder)
    return [*map(str, beside), *_PLUGIN_FOLDERS]


def _refuse_old(release: tuple[int, int, int] | None) -> None:
    if release is not None and release < OLDEST_RELEASE:
        shown = ".".join(str(part) for part in release)
        raise NotInstalled(f"Orthanc {shown} is too old, 1.10.1 is the oldest. {_ADVICE}")


def _version_text(binary: str) -> str:
    try:
        answer = subprocess.run(  # noqa: S603  # a program that the administrator chose
            [binary, "--version"],
            capture_output=True,
            check=True,
            text=True,
            timeout=_VERSION_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise NotInstalled(f"{binary} does not run. {_ADVICE}", detail=str(exc)) from exc
    return answer.stdout
