"""Structured reports as text (PS3.3 C.17.3): their content tree, line by line.

The text says everything that the tree says, and no more: an item without a value, or of a kind
that can't be written as text, has a line that says so. Nothing is summarised.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.dicom.frame_count import sop_class_name
from services.dicom.person_names import display_name

Model = Mapping[str, Any]
"""A dataset in the DICOM JSON model (PS3.18 F)."""

_MAX_LINES = 5_000
"""A report that people read has some hundred. Those of programs, with a line for each nodule of
each time point, reach a thousand."""

_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
"""First part of the UIDs of all SR storage SOP classes (PS3.4 B.5)."""

_NO_VALUE = "(no value)"

_INTRODUCTIONS = {
    "INFERRED FROM": "inferred from",
    "SELECTED FROM": "selected from",
    "HAS CONCEPT MOD": "modifier",
}
"""Relationships (PS3.3 table C.17.3-8) that change what a line means. The others say that a line is
a part of the one above it, which its place says too."""


@dataclass(frozen=True, slots=True)
class ReportLine:
    """One content item.

    Attributes:
        depth: Items around it, without the root.
        name: The concept name, for people; None when it has none.
        value: For people; None for a heading.
    """

    depth: int
    name: str | None
    value: str | None

    @property
    def text(self) -> str:
        """The line, indented by its depth; a value of several lines is indented as a whole."""
        said = ": ".join(part for part in (self.name, self.value) if part) or "(section)"
        indent = "  " * self.depth
        return "\n".join(indent + line for line in said.splitlines())


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A structured report.

    Attributes:
        title: The concept name of its root, such as `Radiology Report`.
        completion: CompletionFlag (0040,A491): `COMPLETE` or `PARTIAL`; None when it is absent.
        verification: VerificationFlag (0040,A493): `VERIFIED` or `UNVERIFIED`; None when absent.
        verified_by: Names of the observers who verified it, for people.
        lines: The items in their order.
        is_cut: There are more than 5,000 items, and the rest is left out.
    """

    title: str | None
    completion: str | None
    verification: str | None
    verified_by: Sequence[str]
    lines: Sequence[ReportLine]
    is_cut: bool


def is_report(sop_class_uid: str | None) -> bool:
    """Return whether objects of a SOP class are structured reports."""
    return (sop_class_uid or "").startswith(_REPORTS)


def read_report(model: Model) -> Report:
    """Read the report in a header.

    Args:
        model: The header of an SR object. What is missing or malformed in it is left out or said.
    """
    lines: list[ReportLine] = []
    is_cut = False
    for line in _children(model, model, depth=0):
        if len(lines) == _MAX_LINES:
            is_cut = True
            break
        lines.append(line)
    observers = _items(model, "0040A073")
    return Report(
        title=_code(_first(model, "0040A043")),
        completion=_string(model, "0040A491"),
        verification=_string(model, "0040A493"),
        verified_by=[name for one in observers if (name := _name(one, "0040A075"))],
        lines=lines,
        is_cut=is_cut,
    )


def _children(item: Model, root: Model, *, depth: int) -> Iterator[ReportLine]:
    for child in _items(item, "0040A730"):
        yield _line(child, root, depth)
        yield from _children(child, root, depth=depth + 1)


def _line(item: Model, root: Model, depth: int) -> ReportLine:
    introduction = _INTRODUCTIONS.get(_string(item, "0040A010") or "")
    if "0040DB73" in item:
        # An item by reference (PS3.3 C.17.3.2.5): it stands elsewhere in the tree.
        return ReportLine(depth, introduction, _referenced(item, root))
    name = _code(_first(item, "0040A043"))
    if introduction is not None:
        name = f"{introduction}: {name}" if name else introduction
    value = _value(item, _string(item, "0040A040"))
    observed = _moment(_string(item, "0040A032"))
    if value is not None and observed is not None:
        value = f"{value} (observed {observed})"
    return ReportLine(depth, name, value)


def _referenced(item: Model, root: Model) -> str:
    """Write the item that a reference leads to: positions from the root, 1 (PS3.3 C.17.3.2.5)."""
    path = [number for number in _values(item, "0040DB73") if isinstance(number, int)]
    found: Model | None = root if path[:1] == [1] else None
    for number in path[1:]:
        siblings = _items(found or {}, "0040A730")
        found = siblings[number - 1] if 0 < number <= len(siblings) else None
    if found is None or found is root or "0040DB73" in found:
        return f"(item {'.'.join(map(str, path)) or '?'} of this report)"
    said = _line(found, root, 0)
    return f"see {said.text}"


def _value(item: Model, kind: str | None) -> str | None:
    """Write the value of an item of a value type (PS3.3 table C.17.3-7); None for a container."""
    if kind == "CONTAINER":
        return None
    if kind in _WRITERS:
        return _WRITERS[kind](item) or _NO_VALUE
    return f"({kind or 'item without a value type'}, not shown as text)"


def _number(item: Model) -> str | None:
    measured = _first(item, "0040A300")
    qualifier = _code(_first(item, "0040A301"))
    if measured is None:
        return qualifier
    number = "\\".join(str(value) for value in _values(measured, "0040A30A"))
    unit = _unit(_first(measured, "004008EA"))
    said = f"{number} {unit}".strip() if number else None
    return ", ".join(part for part in (said, qualifier) if part) or None


def _unit(code: Model | None) -> str:
    """Write a unit: UCUM's own symbol, or the meaning of those that are annotations in braces."""
    if code is None:
        return ""
    symbol = _string(code, "00080100") or ""
    if symbol == "1":
        return ""
    is_symbol = _string(code, "00080102") == "UCUM" and symbol and not symbol.startswith("{")
    return symbol if is_symbol else _string(code, "00080104") or symbol


def _reference(item: Model) -> str | None:
    referenced = _first(item, "00081199")
    if referenced is None:
        return None
    uid = _string(referenced, "00081150")
    parts = [sop_class_name(uid) or uid or "object"]
    for tag, name in (("00081160", "frame"), ("0040A0B0", "channel"), ("0062000B", "segment")):
        numbers = [str(number) for number in _values(referenced, tag)]
        if numbers:
            parts.append(f"{name}{'s' if len(numbers) > 1 else ''} {' '.join(numbers)}")
    return f"{', '.join(parts)} ({_string(referenced, '00081155') or 'without a UID'})"


def _graphic(item: Model) -> str | None:
    kind = _string(item, "00700023")
    data = [str(number) for number in _values(item, "00700022")]
    return f"{kind or 'graphic'} at {' '.join(data)}" if data else kind


def _temporal(item: Model) -> str | None:
    kind = _string(item, "0040A130")
    for tag in ("0040A132", "0040A138", "0040A13A"):
        values = [str(value) for value in _values(item, tag)]
        if values:
            return f"{kind or 'time'} {' '.join(values)}"
    return kind


_WRITERS = {
    "TEXT": lambda item: _text(item, "0040A160"),
    "CODE": lambda item: _code(_first(item, "0040A168")),
    "NUM": _number,
    "DATETIME": lambda item: _moment(_string(item, "0040A120")),
    "DATE": lambda item: _date(_string(item, "0040A121")),
    "TIME": lambda item: _time(_string(item, "0040A122")),
    "UIDREF": lambda item: _string(item, "0040A124"),
    "PNAME": lambda item: _name(item, "0040A123"),
    "COMPOSITE": _reference,
    "IMAGE": _reference,
    "WAVEFORM": _reference,
    "SCOORD": _graphic,
    "SCOORD3D": _graphic,
    "TCOORD": _temporal,
}
"""Writers by value type; they return None where there is no value."""


def _code(code: Model | None) -> str | None:
    """Write a code by its meaning; without one, by value and scheme (PS3.3 8.8)."""
    if code is None:
        return None
    meaning = _string(code, "00080104")
    if meaning is not None:
        return meaning
    value = next((one for tag in _CODE_VALUES if (one := _string(code, tag))), None)
    return f"code {value} ({_string(code, '00080102') or 'unknown scheme'})" if value else None


_CODE_VALUES = ("00080100", "00080119", "00080120")
"""CodeValue, LongCodeValue, URNCodeValue."""


def _date(text: str | None) -> str | None:
    """Write YYYYMMDD as ISO 8601 does; other text as it is."""
    if text is None or not (len(text) == len("YYYYMMDD") and text.isdigit()):
        return text
    return f"{text[:4]}-{text[4:6]}-{text[6:]}"


def _time(text: str | None) -> str | None:
    """Write HHMMSS.FFFFFF with colons; other text as it is."""
    if text is None:
        return None
    whole, dot, fraction = text.partition(".")
    if not (whole.isdigit() and len(whole) in {4, 6}):
        return text
    return ":".join(whole[i : i + 2] for i in range(0, len(whole), 2)) + dot + fraction


def _moment(text: str | None) -> str | None:
    """Write YYYYMMDDHHMMSS.FFFFFF&ZZXX as date, time and offset; other text as it is."""
    if text is None:
        return None
    place = next((i for i, c in enumerate(text) if c in "+-"), len(text))
    digits, offset = text[:place], text[place:]
    date, time = digits[:8], digits[8:]
    if not time or not date.isdigit():
        return text if offset else _date(text)
    return f"{_date(date)} {_time(time)}{f' {offset}' if offset else ''}"


def _values(item: Model, tag: str) -> Sequence[Any]:
    element = item.get(tag)
    values = element.get("Value", ()) if isinstance(element, Mapping) else ()
    return [value for value in values if value is not None]


def _items(item: Model, tag: str) -> Sequence[Model]:
    return [value for value in _values(item, tag) if isinstance(value, Mapping)]


def _first(item: Model, tag: str) -> Model | None:
    return next(iter(_items(item, tag)), None)


def _string(item: Model, tag: str) -> str | None:
    values = [value for value in _values(item, tag) if not isinstance(value, Mapping)]
    return "\\".join(str(value) for value in values) or None


def _text(item: Model, tag: str) -> str | None:
    """Write a text of several lines, whatever ends them (PS3.5 6.2: CR LF)."""
    text = _string(item, tag) or ""
    for ending in ("\r\n", "\n\r", "\r"):
        text = text.replace(ending, "\n")
    return text.strip("\n") or None


def _name(item: Model, tag: str) -> str | None:
    """Write a person name for people."""
    names = []
    for groups in _items(item, tag):
        parts = [str(groups.get(group, "")) for group in ("Alphabetic", "Ideographic", "Phonetic")]
        names.append(display_name("=".join(parts).rstrip("=")))
    return ", ".join(name for name in names if name) or None
