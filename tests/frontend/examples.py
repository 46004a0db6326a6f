"""The examples of docs/front-ends: fenced blocks that name their file, and what they print."""

import re
from dataclasses import dataclass
from pathlib import Path

_DOCS = Path(__file__).parents[2] / "docs"
PAGES = [_DOCS / "front-ends.md", *sorted((_DOCS / "front-ends").glob("*.md"))]

_FENCE = re.compile(r"^```\w+ (file|output)=(\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_ADDRESS = "127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class Examples:
    """What the page says.

    Attributes:
        sources: The text of each example by its file name.
        outputs: What an example prints, by the same name.
    """

    sources: dict[str, str]
    outputs: dict[str, str]

    def write(self, folder: Path, address: str) -> None:
        """Write every example into a folder, as a person would copy them.

        Args:
            folder: An empty folder.
            address: Host and port of the server that they shall ask.
        """
        for name, text in self.sources.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace(_ADDRESS, address), encoding="utf-8")


def text_of_pages() -> str:
    """Return the text of all pages."""
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def read_examples() -> Examples:
    """Take the examples out of the pages."""
    blocks = _FENCE.findall(text_of_pages())
    found = Examples(
        sources={name: text for kind, name, text in blocks if kind == "file"},
        outputs={name: text for kind, name, text in blocks if kind == "output"},
    )
    assert len(found.sources) + len(found.outputs) == len(blocks), "a name is used twice"
    return found
