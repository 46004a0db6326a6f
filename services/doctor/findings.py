"""What an examination finds."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """The server works, but needs attention."""
    PROBLEM = "problem"
    """The server does not start, or does not do its work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        part: What was looked at.
        verdict: How bad it is.
        message: What was found and, unless all is well, what to do. No password, no token.
    """

    part: str
    verdict: Verdict
    message: str

    def to_json(self) -> dict[str, str]:
        """Return the finding as `doctor --json` shows it."""
        return {"part": self.part, "verdict": self.verdict.value, "message": self.message}


def ok(part: str, message: str) -> Finding:
    """All is well."""
    return Finding(part, Verdict.OK, message)


def warning(part: str, message: str) -> Finding:
    """It works, but needs attention."""
    return Finding(part, Verdict.WARNING, message)


def problem(part: str, message: str) -> Finding:
    """It does not work."""
    return Finding(part, Verdict.PROBLEM, message)
