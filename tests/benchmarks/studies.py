"""Studies to measure with, made from pydicom's CT: no patient's data."""

import io
from collections.abc import Iterator
from pathlib import Path

import data_store  # type: ignore[import-untyped]  # a folder of files
import imagecodecs
import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import JPEGBaseline8Bit, generate_uid

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


def radiograph_files(count: int) -> Iterator[bytes]:
    """Make copies of a JPEG 2000 radiograph of pydicom-data, 1760 x 1760, that all differ.

    Each has other padding behind its codestream, so that no decoder finds it decoded already.
    """
    path = next(Path(data_store.__file__).parent.rglob("RG3_J2KI.dcm"))
    template = pydicom.dcmread(path)
    frame = get_frame(template.PixelData, 0, number_of_frames=1)
    for index in range(count):
        template.SOPInstanceUID = generate_uid(_ROOT, entropy_srcs=["RG3", str(index)])
        template.file_meta.MediaStorageSOPInstanceUID = template.SOPInstanceUID
        template.PixelData = encapsulate([frame + bytes(2 * index)])
        template["PixelData"].is_undefined_length = True
        buffer = io.BytesIO()
        template.save_as(buffer)
        yield buffer.getvalue()


def colour_cine_file(frames: int = 60, *, size: int = 512) -> bytes:
    """Make one multi-frame file of JPEG baseline colour, as ultrasound machines do."""
    dataset = pydicom.dcmread(io.BytesIO(cine_file(2, size=size, patient_id="COLOUR")))
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.NumberOfFrames = frames
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    noise = np.random.default_rng(0).integers(0, 32, (size, size, 3), dtype=np.uint8)
    ramp = np.linspace(0, 223, size).astype(np.uint8)[None, :, None] + noise
    dataset.PixelData = encapsulate(
        [
            bytes(imagecodecs.jpeg8_encode(np.roll(ramp, index * 4, axis=1), level=90))
            for index in range(frames)
        ]
    )
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


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
