"""Scopes as MongoDB filters, which every list and look-up adds to its own filter."""

from collections.abc import Mapping
from typing import Any

from models import InstanceDocument
from models.stored import stored_name
from services.auth.scope import Scope

_ORTHANC_STUDY_ID = stored_name(InstanceDocument.orthanc_study_id)


MongoFilter = dict[str, Any]


def studies_within(scope: Scope) -> MongoFilter:
    """Return the filter of the studies in a scope; `{}` for all."""
    parts: MongoFilter = {}
    if scope.study_ids is not None:
        parts["_id"] = {"$in": sorted(scope.study_ids)}
    if scope.labels is not None:
        parts["labels"] = {"$in": sorted(scope.labels)}
    return parts


def objects_within(scope: Scope) -> MongoFilter:
    """Return the filter of series and instances, as far as their own fields allow.

    They do not contain the labels of their study; `Tree` looks these up.
    """
    if scope.study_ids is None:
        return {}
    return {_ORTHANC_STUDY_ID: {"$in": sorted(scope.study_ids)}}


def both(*filters: Mapping[str, Any]) -> MongoFilter:
    """Combine filters; documents must match each of them."""
    given = [dict(part) for part in filters if part]
    if len(given) <= 1:
        return given[0] if given else {}
    return {"$and": given}
