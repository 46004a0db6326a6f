"""Which code makes the pictures: another one may make others of the same file."""

from functools import cache
from hashlib import blake2b
from importlib.resources import files

import cv2
import numpy as np
import pydicom

_PACKAGES = ("services.dicom", "services.frames", "services.orthanc")
_DIGEST_BYTES = 8


@cache
def rendering_version() -> str:
    """Return a digest of our code that renders and the libraries below it; blocks the first time.

    A number that is raised by hand is forgotten one day, and then an old picture is shown.
    """
    libraries = f"{cv2.__version__} {np.__version__} {pydicom.__version__}"
    digest = blake2b(libraries.encode(), digest_size=_DIGEST_BYTES)
    for package in _PACKAGES:
        for module in sorted(files(package).iterdir(), key=lambda module: module.name):
            if module.name.endswith(".py"):
                digest.update(module.read_bytes())
    return digest.hexdigest()
