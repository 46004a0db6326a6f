"""Reads, checks and rewrites DICOM files; without network and database."""

import logging
import warnings

# pydicom logs invalid values, which can be names and identifiers of patients; our own errors say
# what is wrong with a file, without values. Setting the level has no effect: pydicom sets it again.
logging.getLogger("pydicom").propagate = False
warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom\b")
