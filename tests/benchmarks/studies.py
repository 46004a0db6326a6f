"""Studies to measure with, made from pydicom's CT: no patient's data."""

import io
from collections.abc import Iterator

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

_ROOT = "1.2.826.0.1.3680043.8.498."
"""pydicom's own root, for test objects."""


def ct_files(
    count: int, *, series: int = 1, size: int = 512, patient_id: str = "BENCH"
) -> Iterator[bytes]:
    """Make the files of one CT study: `size` x `size`, 16 bits, noise on a gradient.

    Args:
        count: Number of files, evenly over the series.
        series: Number of series.
        size: Rows and columns.
        patient_id: PatientID, which makes the study a new one.
    """
    template = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    template.PatientID = patient_id
    template.StudyInstanceUID = generate_uid(_ROOT, entropy_srcs=[patient_id])
    template.Rows = template.Columns = size
    noise = np.random.default_rng(0)
    gradient = np.linspace(0, 2000, size, dtype=np.int16)
    for index in range(count):
        number = index % series
        template.SeriesNumber = number + 1
        template.SeriesInstanceUID = generate_uid(_ROOT, entropy_srcs=[patient_id, f"S{number}"])
        template.InstanceNumber = index // series + 1
        template.SOPInstanceUID = generate_uid(_ROOT, entropy_srcs=[patient_id, str(index)])
        template.file_meta.MediaStorageSOPInstanceUID = template.SOPInstanceUID
        template.PixelData = (
            gradient + noise.integers(0, 64, (size, size), dtype=np.int16)
        ).tobytes()
        buffer = io.BytesIO()
        template.save_as(buffer)
        yield buffer.getvalue()


def cine_file(frames: int = 120, *, size: int = 512, patient_id: str = "CINE") -> bytes:
    """Make one multi-frame file of `frames` x `size` x `size`, 16 bits."""
    dataset = pydicom.dcmread(io.BytesIO(next(ct_files(1, size=size, patient_id=patient_id))))
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7.3"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.NumberOfFrames = frames
    dataset.add_new("FrameIncrementPointer", "AT", 0x00181063)
    dataset.FrameTime = "40"
    one = dataset.PixelData
    dataset.PixelData = b"".join(one[index:] + one[:index] for index in range(0, frames * 2, 2))
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()
