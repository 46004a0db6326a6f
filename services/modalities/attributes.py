"""Identifiers of queries (PS3.4 C.4.1.1.3): keys that are asked for, and answers as text."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from services.dicom.character_sets import UTF_8, decode, encodings_of
from services.dicom.values import clean_text

Keys = Mapping[str, "str | Keys"]
"""Keys of a query by keyword: `""` asks for a value (universal matching), a mapping is the only
item of a sequence."""

Answer = Mapping[str, Any]
"""An answer by keyword: text, or a list of answers for a sequence. What is absent is left out."""

_CHARACTER_SET = "SpecificCharacterSet"

_TEXT_BYTES_MAX = 64 * 1024
"""Of a value; the longest text with a limit, LT, has 40 kB (PS3.5 6.2)."""

_DEPTH_MAX = 8
"""Sequences in sequences that are read; no query has more than two."""

_TEXTUAL = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI"}
    | {"UR", "UT"}
)


def identifier_of(keys: Keys) -> Dataset:
    """Make the identifier of a query.

    Text beyond ASCII goes in UTF-8; without such text no character set is named, because some
    archives refuse a query that names one they do not know.
    """
    dataset = _dataset_of(keys)
    if not _is_ascii(keys):
        _set(dataset, _CHARACTER_SET, UTF_8)
    return dataset


def _dataset_of(keys: Keys) -> Dataset:
    dataset = Dataset()
    for keyword, value in keys.items():
        if isinstance(value, str):
            _set(dataset, keyword, value)
        else:
            setattr(dataset, keyword, Items([_dataset_of(value)]))
    return dataset


def _set(dataset: Dataset, keyword: str, value: str) -> None:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(keyword)
    # Wildcards and ranges are no valid values: pydicom would warn of them.
    dataset.add(DataElement(tag, dictionary_VR(tag), value, validation_mode=config.IGNORE))


def _is_ascii(keys: Keys) -> bool:
    return all(
        value.isascii() if isinstance(value, str) else _is_ascii(value) for value in keys.values()
    )


def answer_of(
    dataset: Dataset, keywords: Iterable[str], inherited: str | None = None, *, depth: int = 0
) -> Answer:
    """Read the text of an answer; values of other kinds are left out.

    Text is decoded here and not by pydicom: archives name character sets in many ways, and names
    must be right or absent.

    Args:
        dataset: As it came.
        keywords: What is read; of a sequence with all that its items hold.
        inherited: SpecificCharacterSet of the dataset around this one.
        depth: How many datasets are around this one.
    """
    declared = _text(dataset, _CHARACTER_SET, ["latin_1"]) or inherited
    encodings = encodings_of(declared)
    answer: dict[str, Any] = {}
    for keyword in keywords:
        tag = tag_for_keyword(keyword)
        if tag is None or tag not in dataset:
            continue
        if dictionary_VR(tag) == "SQ":
            items = dataset[tag].value or [] if depth < _DEPTH_MAX else []
            answer[keyword] = [
                answer_of(item, _keywords(item), declared, depth=depth + 1) for item in items
            ]
        else:
            text = _text(dataset, keyword, encodings)
            if text is not None:
                answer[keyword] = text
    return answer


def _keywords(dataset: Dataset) -> list[str]:
    from pydicom.datadict import keyword_for_tag  # noqa: PLC0415

    return [keyword for keyword in map(keyword_for_tag, dataset.keys()) if keyword]


def _text(dataset: Dataset, keyword: str, encodings: list[str]) -> str | None:
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in dataset or dictionary_VR(tag) not in _TEXTUAL:
        return None
    element = dataset.get_item(tag)
    if not isinstance(element, RawDataElement) or not isinstance(element.value, bytes):
        return None
    if len(element.value) > _TEXT_BYTES_MAX:
        return None
    return clean_text(decode(element.value, encodings).strip("\0 "))
