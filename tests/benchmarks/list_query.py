"""The study list as a worklist asks for it."""

import json
from collections.abc import Mapping

PAGE_SIZE = 50

LIST = """query List($first: Int!, $after: String, $filter: StudyFilter) {
  studies(first: $first, after: $after, filter: $filter) {
    nodes { studyInstanceUID studyDate studyDescription modalitiesInStudy
      patientDisplayName numberOfSeries numberOfInstances
      patient { patientID patientBirthDate patientSex }
      thumbnail { url(maxSize: 128) } }
    pageInfo { hasNextPage endCursor } } }"""

FILTERS: Mapping[str, Mapping[str, object]] = {
    "text": {"text": "thorax"},
    "name": {"patientName": "anna"},
    "one patient's name": {"patientName": "family000007"},
}
"""The first two find half of a made index, the last the two studies of a patient."""


def list_body(
    *,
    filter_: Mapping[str, object] | None = None,
    after: str | None = None,
    first: int = PAGE_SIZE,
) -> bytes:
    """Return the body of a request for a page."""
    variables = {"first": first, "after": after, "filter": filter_}
    return json.dumps({"query": LIST, "variables": variables}).encode()
