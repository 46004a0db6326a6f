"""The header of a file with other values, and what they were before (PS3.3 C.12.1.1.9.1)."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence

from services.anonymization.content import uids_of, write_in_utf_8
from services.anonymization.options import check_values, settable_vr
from services.anonymization.pseudonyms import Pseudonyms
from services.dicom.patient_override import OTHER_IDENTITY
from services.errors import InvalidInput

_SYSTEM_NAME = "orthanc-graphql"
_DATE_FORMAT = "%Y%m%d%H%M%S.%f%z"
"""Of a DT (PS3.5 6.2)."""
_KEYWORDS_MAX = 100
_PATIENT = ("PatientID", "PatientName")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModificationOptions:
    """How a study is modified.

    Attributes:
        replace: New values by keyword.
        remove: Keywords of attributes that go.
        delete_source: The study itself gets the values and keeps its UIDs. Otherwise a copy with
            UIDs of its own is made.
    """

    replace: Mapping[str, str] = field(default_factory=dict)
    remove: Sequence[str] = ()
    delete_source: bool = False

    def check(self) -> None:
        """Check what a caller gave.

        Raises:
            InvalidInput: With the argument that is at fault.
        """
        check_values(self.replace, argument="replace")
        if len(self.remove) > _KEYWORDS_MAX:
            raise InvalidInput(f"remove: at most {_KEYWORDS_MAX}.", argument="remove")
        for keyword in self.remove:
            if not _may_be_removed(keyword):
                message = "remove: keywords of texts, dates, numbers and sequences, no PatientID."
                raise InvalidInput(message, argument="remove")
        if not self.replace and not self.remove:
            raise InvalidInput("Give values to replace, or attributes to remove.")
        if set(self.replace) & set(self.remove):
            raise InvalidInput("An attribute is either replaced or removed.", argument="remove")
        if not self.replace.get("PatientID", "x").strip():
            raise InvalidInput("PatientID can't be empty.", argument="replace")

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Read what `to_parameters` wrote."""
        return cls(**parameters)

    def to_parameters(self) -> dict[str, Any]:
        """Return what a job stores."""
        return {
            "replace": dict(self.replace),
            "remove": sorted(set(self.remove)),
            "delete_source": self.delete_source,
        }


def _may_be_removed(keyword: str) -> bool:
    tag = tag_for_keyword(keyword)
    if tag is None or keyword in _PATIENT:
        return False
    return settable_vr(keyword) is not None or dictionary_VR(tag) == "SQ"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModificationRules:
    """How files are modified.

    Attributes:
        options: What the caller wants.
        modified_at: When it is done, with time zone.
        pseudonyms: Make the UIDs of a copy; None: the UIDs stay.
        own_uids: Of the study, its series and its instances: what is made new in a copy.
    """

    options: ModificationOptions
    modified_at: datetime
    pseudonyms: Pseudonyms | None = None
    own_uids: frozenset[str] = frozenset()


def modified(source: Dataset, rules: ModificationRules) -> Dataset:
    """Return a header with other values; it may be the same as before.

    A PatientID that is another one is another patient's: what else identifies or describes the
    former patient is removed, as when a file is uploaded with a patient.

    Args:
        source: All elements before the pixel data; it is changed.
        rules: What is written.
    """
    former = Dataset()
    options = rules.options
    changes = {**options.replace, **dict.fromkeys(options.remove)}
    is_other_patient = _is_other_patient(source, options)
    for keyword, value in changes.items():
        if _text_of(source, keyword) != (value or None):
            _keep_former(former, source, keyword)
        if keyword in options.replace:
            setattr(source, keyword, _value_of(keyword, value))
        elif keyword in source:
            delattr(source, keyword)
    if is_other_patient:
        _forget_patient(source, former, options)
    if rules.pseudonyms is not None:
        _map_uids(source, rules.own_uids, rules.pseudonyms)
    if len(former):
        _add_original_attributes(source, former, rules.modified_at, empty=is_other_patient)
    if not all((value or "").isascii() for value in changes.values()):
        write_in_utf_8(source)
    return source


def is_as_wanted(source: Dataset, options: ModificationOptions) -> bool:
    """Return whether a header has the wanted values already."""
    are_replaced = all(
        _text_of(source, keyword) == (value or None) for keyword, value in options.replace.items()
    )
    return are_replaced and not any(keyword in source for keyword in options.remove)


def modification_date(header: Dataset) -> datetime | None:
    """Return when this server last modified a file, as the file says; None: it did not."""
    with suppress(Exception):
        last = header.OriginalAttributesSequence[-1]
        if last.ModifyingSystem == _SYSTEM_NAME:
            return datetime.strptime(last.AttributeModificationDateTime, _DATE_FORMAT)  # noqa: DTZ007  # the format has the zone
    return None


def _value_of(keyword: str, value: str | None) -> object:
    """Return a value as pydicom takes it."""
    if not value:
        return None
    is_long_text = dictionary_VR(keyword) in {"LT", "ST", "UT"}
    return value if is_long_text or "\\" not in value else value.split("\\")


def _text_of(source: Dataset, keyword: str) -> str | None:
    """Return the value of an attribute as text; None when it is empty, absent or unreadable."""
    with suppress(Exception):
        value = source.get(keyword)
        if value is None or value == "":
            return None
        return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
    return None


def _is_other_patient(source: Dataset, options: ModificationOptions) -> bool:
    new = options.replace.get("PatientID")
    return new is not None and new.strip() != (_text_of(source, "PatientID") or "").strip()


def _keep_former(former: Dataset, source: Dataset, keyword: str) -> None:
    """Note an attribute as it was; one that was absent stands for that with no value."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        return
    with suppress(Exception):
        if tag in source:
            element = source[tag]
            # Not the element itself: it gets the new value.
            former.add_new(tag, element.VR, element.value)
            return
    vr = dictionary_VR(tag)
    former.add_new(tag, vr.split(" or ")[0], [] if vr == "SQ" else None)


def _forget_patient(source: Dataset, former: Dataset, options: ModificationOptions) -> None:
    new = {keyword: options.replace[keyword] for keyword in _PATIENT if keyword in options.replace}

    for item in _datasets(source):
        for tag in OTHER_IDENTITY.intersection(item.keys()):
            if item is source:
                _keep_former(former, source, keyword_for_tag(tag))
            del item[tag]
        for keyword, value in new.items():
            if item is not source and keyword in item:
                setattr(item, keyword, value)


def _datasets(source: Dataset) -> list[Dataset]:
    """Return a header with all items of its sequences."""
    found = [source]
    for dataset in found:
        for tag in sorted(dataset.keys()):
            with suppress(Exception):
                element = dataset[tag]
                if element.VR == "SQ":
                    found.extend(element.value or ())
    return found


def _map_uids(source: Dataset, own: frozenset[str], pseudonyms: Pseudonyms) -> None:
    """Give a copy UIDs of its own, also where its files refer to one another."""
    for item in _datasets(source):
        for tag in sorted(item.keys()):
            with suppress(Exception):
                element = item[tag]
                if element.VR == "UI" and not own.isdisjoint(uids := uids_of(element.value)):
                    element.value = [pseudonyms.uid(one) if one in own else one for one in uids]


def _add_original_attributes(
    source: Dataset, former: Dataset, modified_at: datetime, *, empty: bool
) -> None:
    """Add what was changed to OriginalAttributesSequence.

    Of another patient the names of the attributes are kept without their values: a file must not
    name two people.
    """
    if empty:
        for tag in sorted(former.keys()):
            element = former[tag]
            former.add_new(tag, element.VR, [] if element.VR == "SQ" else None)
    item = Dataset()
    item.ModifiedAttributesSequence = DicomSequence([former])
    item.AttributeModificationDateTime = modified_at.strftime(_DATE_FORMAT)
    item.ModifyingSystem = _SYSTEM_NAME
    item.SourceOfPreviousValues = None
    item.ReasonForTheAttributeModification = "CORRECT"
    earlier = list(source.get("OriginalAttributesSequence") or ())
    source.OriginalAttributesSequence = DicomSequence([*earlier, item])
