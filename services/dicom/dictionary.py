"""Names of data elements for people (PS3.6)."""

from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary

_NAME = 2
"""Index of the name in an entry: VR, VM, name, whether retired, keyword."""


def element_names() -> dict[str, str]:
    """Return the name of each element of the data dictionary.

    Returns:
        By tag as the DICOM JSON model writes it, `00100010`; repeating groups as `60XX3000`.
    """
    named = {f"{tag:08X}": entry[_NAME] for tag, entry in DicomDictionary.items()}
    repeating = {tag.upper(): entry[_NAME] for tag, entry in RepeatersDictionary.items()}
    return {tag: name for tag, name in (named | repeating).items() if name}
