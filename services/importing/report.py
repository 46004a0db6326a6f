"""The report of a run: a line of JSON per failure, and one with the figures at the end."""

import json
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from services.importing.outcome import FileOutcome, Refusal, Tally


class Report:
    """Writes the report while the run goes on; without a path it writes nothing."""

    def __init__(self, path: Path | None) -> None:
        self._file: TextIO | None = path.open("w", encoding="utf-8") if path else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, outcome: FileOutcome) -> None:
        """Write what of a file is not stored."""
        for refusal in outcome.failed:
            self.add_refusal("failed", refusal)
        for refusal in outcome.skipped:
            self.add_refusal("skipped", refusal)

    def add_refusal(self, status: str, refusal: Refusal) -> None:
        """Write one line.

        Args:
            status: `failed` or `skipped`.
            refusal: What, and why.
        """
        self._write({"status": status, **asdict(refusal)})

    def finish(self, tally: Tally) -> None:
        """Write the figures."""
        figures = asdict(tally)
        self._write({"summary": {name: figures[name] for name in _FIGURES}})

    def _write(self, line: dict[str, object]) -> None:
        if self._file is not None:
            # A path may hold bytes that are no text: they are escaped.
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


_FIGURES = ("done", "stored", "already_stored", "skipped", "failed")
