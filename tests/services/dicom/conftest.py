"""The DICOM files that come with pydicom and pydicom-data."""

from collections.abc import Mapping
from pathlib import Path

import data_store  # type: ignore[import-untyped]  # pydicom-data has no types
import pydicom.data
import pytest

_FOLDERS = (
    Path(pydicom.data.__file__).parent / "test_files",
    Path(pydicom.data.__file__).parent / "charset_files",
    Path(data_store.__file__).parent / "data",
)
_NO_DICOM_SUFFIXES = {".py", ".pyc", ".json", ".txt", ".csv", ".md", ".zip", ".xml"}

BAD_FILES = {
    # Parts of files: no study, series or instance is named in them.
    **dict.fromkeys(
        (
            "JPEGLSNearLossless_08.dcm",
            "JPEGLSNearLossless_16.dcm",
            "SC_rgb_jls_lossy_line.dcm",
            "SC_rgb_jls_lossy_sample.dcm",
            "UN_sequence.dcm",
            "DICOMDIR",
            "DICOMDIR-bigEnd",
            "DICOMDIR-empty.dcm",
            "DICOMDIR-implicit",
            "DICOMDIR-nopatient",
            "DICOMDIR-reordered",
            "empty_charset_LEI.dcm",
            "meta_missing_tsyntax.dcm",
            "nested_priv_SQ.dcm",
            "no_meta_group_length.dcm",
            "priv_SQ.dcm",
            "chrSQEncoding.dcm",
            "chrSQEncoding1.dcm",
        ),
        "MISSING_UID",
    ),
    "bad_sequence.dcm": "INVALID_UID",  # UIDs of letters: the only one that Orthanc would store
    "SC_rgb_jpeg.dcm": "MALFORMED",  # says explicit VR and is implicit
    "DICOMDIR-nooffset": "TRUNCATED",
    "MR_truncated.dcm": "TRUNCATED",
    "rtplan_truncated.dcm": "TRUNCATED",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "TRUNCATED",
    "README": "NOT_DICOM",
    "crayons.icc": "NOT_DICOM",
    "no_meta.dcm": "NOT_DICOM",
    "rtplan.dump": "NOT_DICOM",
    "rtstruct.dump": "NOT_DICOM",
    "zipMR.gz": "NOT_DICOM",
}
"""Files that are rejected and the code; Orthanc 1.10.1 rejects them too, but for one."""


def _all_files() -> list[Path]:
    return [
        path
        for folder in _FOLDERS
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in _NO_DICOM_SUFFIXES
    ]


@pytest.fixture(scope="session")
def good_files() -> list[Path]:
    return [path for path in _all_files() if path.name not in BAD_FILES]


@pytest.fixture(scope="session")
def bad_files() -> Mapping[Path, str]:
    return {path: BAD_FILES[path.name] for path in _all_files() if path.name in BAD_FILES}


@pytest.fixture(scope="session")
def ct_bytes() -> bytes:
    return (_FOLDERS[0] / "CT_small.dcm").read_bytes()
