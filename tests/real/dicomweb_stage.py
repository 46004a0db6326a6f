"""What the tests of DICOMweb share: files that are stored, and a server that serves them."""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import data_store  # type: ignore[import-untyped]  # pydicom-data has no types
import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from services.ingest.service import SentFile
from tests.servers import RunningServer

ROOT = "/dicomweb"
UID_ROOT = "1.2.826.0.1.3680043.8.498."
"""pydicom's own root, for test objects."""


@cache
def file_named(name: str) -> bytes:
    """Read a file of pydicom or of pydicom-data."""
    found = next(Path(data_store.__file__).parent.rglob(name), None)
    return (found or Path(str(get_testdata_file(name)))).read_bytes()


def made(name: str = "CT_small.dcm", **attributes: Any) -> bytes:
    """Make a file of another one, with attributes of its own by keyword."""
    dataset = pydicom.dcmread(io.BytesIO(file_named(name)))
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def uid(*parts: object) -> str:
    """Make a UID, the same for the same parts."""
    return generate_uid(UID_ROOT, entropy_srcs=[repr(parts)])


def slices(patient: str, count: int, *, series: int = 1, **attributes: Any) -> list[bytes]:
    """Make the files of one CT study."""
    return [
        made(
            PatientID=patient,
            StudyInstanceUID=uid(patient),
            SeriesInstanceUID=uid(patient, number % series),
            SeriesNumber=number % series + 1,
            SOPInstanceUID=uid(patient, "instance", number),
            InstanceNumber=number // series + 1,
            **attributes,
        )
        for number in range(count)
    ]


async def store(server: RunningServer, files: Sequence[bytes]) -> None:
    """Store files through the ingest."""
    sent = [SentFile(f"{number}.dcm", _opening(file)) for number, file in enumerate(files)]
    results = await server.runtime.ingest.store(sent)
    assert [result.error for result in results] == [None] * len(files)


def _opening(content: bytes) -> Callable[[], io.BytesIO]:
    return lambda: io.BytesIO(content)


def values(model: Mapping[str, Any], tag: str) -> list[Any]:
    """Return the values of an element of a DICOM JSON model; [] when it has none."""
    found: list[Any] = model[tag].get("Value", [])
    return found
