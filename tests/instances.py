"""Made instances."""

import io
from functools import cache

import pydicom
from pydicom.data import get_testdata_file


@cache
def instance_bytes(study: int, series: int, number: int, *, patient: str = "P1") -> bytes:
    """Make a small CT instance; the same arguments make the same one."""
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    dataset.PatientID = patient
    dataset.StudyInstanceUID = f"1.2.826.0.1.3680043.8.498.{study}"
    dataset.SeriesInstanceUID = f"{dataset.StudyInstanceUID}.{series}"
    dataset.SOPInstanceUID = f"{dataset.SeriesInstanceUID}.{number}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.InstanceNumber = number
    del dataset.DataSetTrailingPadding
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()
