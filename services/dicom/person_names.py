"""Person names (PS3.5 6.2, PN): cleaned, compared, and written for people."""

import re

from services.dicom.values import clean_text, comparable_text


def clean_person_name(text: str | None) -> str | None:
    """Return a person name with trimmed component groups and components (PS3.5 6.2.1)."""
    cleaned = clean_text(text)
    if cleaned is None:
        return None
    groups = [
        "^".join(component.strip() for component in group.split("^")).rstrip("^")
        for group in cleaned.split("=")[:3]
    ]
    return "=".join(groups).rstrip("=") or None


def comparable_groups(name: str | None) -> list[str]:
    """Return the component groups of a person name (PS3.5 6.2.1) in the form that is compared."""
    groups = (clean_person_name(name) or "").split("=")
    return ["^".join(map(comparable_text, group.split("^"))) for group in groups]


def names_agree(one: str | None, other: str | None) -> bool:
    """Return whether two person names can be names of one person.

    Only component groups that both have are compared; an absent name agrees with every name.
    """
    pairs = zip(comparable_groups(one), comparable_groups(other), strict=False)
    return all(not left or not right or left == right for left, right in pairs)


_EAST_ASIAN = re.compile(
    "[\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3100-\u318f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc"
    "\U0001aff0-\U0001b16f\U00020000-\U000323af]"
)


"""Letters of Chinese, Japanese and Korean names: Han, kana, Hangul, bopomofo, half-width forms."""
_HANGUL = re.compile("[\u1100-\u11ff\u3131-\u318e\ua960-\ua97f\uac00-\ud7ff]+")
_KHMER = re.compile("[\u1780-\u17ff]")
_COMPONENTS = 5


def display_name(person_name: str | None) -> str | None:
    """Write a person name for people: `Tarou Yamada (山田 太郎)`.

    The script decides on the order, in each component group by itself:

    - Chinese, Japanese, Korean and Khmer: family, given, middle, prefix, suffix. Korean family and
      given names are written together, as its orthography requires. Han characters keep the space
      between them, because Japanese names need it and the characters do not tell the language.
    - All others: prefix, given, middle, family, suffix (PS3.5 6.2.1.2). This includes Vietnamese
      and Hungarian, whose speakers write the family name first: many of their names have only
      letters of other languages, and a list with both orders would not say which is the family.

    The first of the ideographic and phonetic groups that differs follows in parentheses; a Korean
    one in Hangul before one in Han characters, which not every Korean reads.
    """
    cleaned = clean_person_name(person_name)
    if cleaned is None:
        return None
    names = [name for name in map(_written_name, cleaned.split("=")) if name]
    first, *others = names or [""]
    others = [name for name in others if comparable_text(name) != comparable_text(first)]
    if not others:
        return first or None
    in_hangul = (name for name in others if _HANGUL.match(name))
    return f"{first} ({next(in_hangul, others[0])})"


def _written_name(group: str) -> str:
    components = [*group.split("^"), *[""] * _COMPONENTS]
    family, given, middle, prefix = components[: _COMPONENTS - 1]
    # Names with too many carets exist; nothing of a name is left out.
    suffix = " ".join(part for part in components[_COMPONENTS - 1 :] if part)
    leading = family or given
    if _EAST_ASIAN.search(leading) or _KHMER.search(leading):
        if _HANGUL.fullmatch(family) and _HANGUL.fullmatch(given):
            family, given = family + given, ""
        return " ".join(part for part in (family, given, middle, prefix, suffix) if part)
    name = " ".join(part for part in (prefix, given, middle, family) if part)
    return ", ".join(part for part in (name, suffix) if part)
