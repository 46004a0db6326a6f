"""The one rule that turns a Python name into the name used by GraphQL, REST and MongoDB."""

from functools import cache

_ACRONYMS = {"ae": "AE", "id": "ID", "uid": "UID", "uids": "UIDs"}
"""Words that DICOM keywords write in capitals (PS3.6: `PatientID`, `StudyInstanceUID`)."""


@cache
def contract_name(python_name: str) -> str:
    """Return the public name of a Python attribute.

    Names are DICOM keywords with a lower first letter (PS3.6), so `study_instance_uid` is
    `studyInstanceUID`. Orthanc's own identifiers keep Orthanc's spelling: `orthanc_study_id` is
    `orthancStudyId`.

    Args:
        python_name: A name in snake case.

    Returns:
        The name in GraphQL, REST and MongoDB.
    """
    first, *rest = python_name.split("_")
    acronyms = {} if first == "orthanc" else _ACRONYMS
    return first + "".join(acronyms.get(word, word.capitalize()) for word in rest)
