"""DICOM bytes to facts: headers, values, safety checks, windowing. Pure, without network."""

import logging
import warnings

# pydicom quotes the values that it does not like: names and identifiers of patients. What is wrong
# with a file is told by our own errors, without values. Its level would not do: pydicom sets it.
logging.getLogger("pydicom").propagate = False
warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom\b")
