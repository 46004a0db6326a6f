"""A few public studies for an empty store, so that the first query has an answer.

The files come with the packages pydicom and pydicom-data (the extra `embedded`).
"""

import logging
from pathlib import Path

from pydicom.data import get_testdata_file

from services.ingest.service import Ingest, SentFile
from services.tasks import finish_in_thread

_log = logging.getLogger(__name__)

_FILES = (
    "693_UNCR.dcm",  # CT, 512x512
    "RG1_UNCI.dcm",  # radiograph of a thorax, MONOCHROME1
    "MR2_UNCR.dcm",  # MR of a shoulder
    "examples_rgb_color.dcm",  # ultrasound in colour
    "color3d_jpeg_baseline.dcm",  # ultrasound cine of 120 frames
    "emri_small.dcm",  # enhanced MR, 10 frames
    "reportsi.dcm",  # structured report: no image
)
_MR_SERIES_FOLDER = "dicomdirtests/98892003/MR700"


def sample_files() -> list[Path]:
    """Return the sample files that are on this machine, in the order to store them in.

    An MR series of eleven images comes with pydicom itself; what needs pydicom-data is left out
    where that is missing.
    """
    found = (get_testdata_file(name, download=False) for name in _FILES)
    files = [Path(path) for path in found if isinstance(path, str)]
    return files + _mr_series()


def _mr_series() -> list[Path]:
    anchor = get_testdata_file("CT_small.dcm", download=False)
    if not isinstance(anchor, str):
        return []
    folder = Path(anchor).parent / _MR_SERIES_FOLDER
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


async def store_samples(ingest: Ingest) -> int:
    """Store the samples like any upload.

    Args:
        ingest: Stores them.

    Returns:
        How many are stored.
    """
    files = [SentFile.from_path(path) for path in await finish_in_thread(sample_files)]
    results = await ingest.store(files)
    for result in results:
        if result.error is not None:
            _log.warning("sample %s: %s", result.file_name, result.error.message)
    return sum(result.error is None for result in results)
