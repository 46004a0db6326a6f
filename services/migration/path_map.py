"""Where the files of the old system are now."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PathMap:
    """Replaces the beginning of recorded paths, for disks that moved.

    Attributes:
        replacements: Old and new beginnings; the first that fits is used.
    """

    replacements: Sequence[tuple[str, str]] = ()

    def resolve(self, recorded_path: str) -> Path:
        """Return where a file is now; whole folder names only are replaced."""
        for old, new in self.replacements:
            folder = old.rstrip("/")
            if recorded_path.startswith(f"{folder}/"):
                return Path(new.rstrip("/") + recorded_path.removeprefix(folder))
        return Path(recorded_path)
