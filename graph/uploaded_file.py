"""A file of a form: some bytes of the one temporary file that its request was written to."""

import io
from dataclasses import dataclass, field
from typing import BinaryIO

from services.file_ranges import FileRange


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file part: a range of the request's temporary file.

    Valid until the form is closed.

    Attributes:
        field_name: Of the part.
        name: As the sender called it, `""` when it did not.
        begin: First byte, as an offset into the temporary file.
        size: In bytes.
    """

    field_name: str
    name: str
    begin: int
    size: int
    descriptor: int = field(repr=False)

    def open(self) -> BinaryIO:
        """Open it for reading, seekable; may be opened more than once, in any thread."""
        return io.BufferedReader(FileRange(self.descriptor, self.begin, self.size))
