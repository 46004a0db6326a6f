"""Search words of names and texts: those that are stored, and those of a query.

Both are folded in the same way: case, accents, width, letters without a decomposition (`ł`, `ø`,
`đ`), variants of Arabic letters, and katakana as hiragana. Umlauts have both spellings (`muller`,
`mueller`). A stored word continues to the end of its name, so that words that are sometimes written
together (`van der Berg`, `O'Neill`, `Anne-Marie`, `山田^太郎`) are found by either spelling: the
stored words of `van der Berg` are `vanderberg`, `derberg` and `berg`, and every word of a query is
the beginning of one of them.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from services.dicom.values import clean_text

WORD_CHARACTERS = 64
"""Longest stored word, in characters: LO values end there (PS3.5 6.2)."""

_MAX_WORDS = 32
"""Most words that are stored for one document; each is an entry of the index."""

_TEXT_CHARACTERS = 1024
"""Characters of a text that are searched: folding can make 18 characters of one."""

_APOSTROPHES = "'`\u00b4\u02b9\u02bb\u02bc\u02bd\u02bf\u2018\u2019\u201b\u2032\uff07"
_HYPHENS = "-\u00ad\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d"
_PUNCTUATION_INSIDE_WORDS = dict.fromkeys(map(ord, _APOSTROPHES + _HYPHENS), "-")

_LETTERS = str.maketrans(
    {
        "ł": "l", "ø": "o", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "þ": "th", "ı": "i",
        "ħ": "h", "ŧ": "t", "ŋ": "n", "ĸ": "k", "ə": "e", "ƒ": "f", "ɓ": "b", "ɗ": "d", "ƙ": "k",
        "ى": "ي", "ی": "ي", "ة": "ه", "ک": "ك", "\u0640": None,
    }
)  # fmt: skip
"""Letters that Unicode does not decompose, and Arabic letters that people exchange."""

_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})
"""The other accepted spelling of these letters, in NFC and lower case."""

_KATAKANA = {code: code - 0x60 for code in (*range(0x30A1, 0x30F7), 0x30FD, 0x30FE)}
"""Katakana to the hiragana of the same sound (Unicode 3040 to 30FF)."""

_VOICING_MARKS = re.compile("[\u3099\u309a]")
_KEPT_MARKS = frozenset({0, 7, 8, 9})
"""Canonical combining classes of marks that are part of a letter: vowel signs, nukta, kana voicing
and virama. All others are accents."""

_PARTICLES = frozenset(
    {
        "al", "ap", "bin", "da", "dal", "de", "del", "della", "den", "der", "di", "do", "dos", "du",
        "el", "ben", "ibn", "la", "las", "le", "lo", "los", "mac", "mc", "o", "san", "st", "te",
        "ten", "ter", "van", "vanden", "vander", "vom", "von", "y", "zu", "zum", "zur",
    }
)  # fmt: skip
"""First words of family names that are often written together with the next word."""


@dataclass(frozen=True, slots=True)
class QueryTerm:
    """One term of a query: it matches when all words of one of its alternatives match.

    Attributes:
        alternatives: Beginnings of stored words, in order of preference.
    """

    alternatives: tuple[tuple[str, ...], ...]


def fold(text: str | None) -> str:
    """Return a text without case, accents and width; `""` when there is none."""
    cleaned = clean_text(text)
    return "" if cleaned is None else _fold(cleaned.casefold())


def search_words(*texts: str | None) -> list[str]:
    r"""Return the words of person names and other texts, for search by their beginnings.

    Args:
        texts: Values as DICOM holds them; `=` and `\` separate texts of their own (PS3.5 6.2.1).

    Returns:
        At most 32 words of at most 64 characters, sorted, each once.
    """
    words: dict[str, None] = {}
    for text in texts:
        for part in re.split(r"[=\\]", (text or "")[:_TEXT_CHARACTERS]):
            for spelling in _spellings(part):
                parts = list(_words(spelling.replace("-", " ")))
                for start in range(len(parts)):
                    words.setdefault("".join(parts[start:])[:WORD_CHARACTERS])
    return sorted(list(words)[:_MAX_WORDS])


def query_terms(text: str) -> list[QueryTerm]:
    """Return the terms of a query, which must all match; none without a letter or digit."""
    terms: dict[QueryTerm, None] = {}
    for group in _grouped(_clean(text[:_TEXT_CHARACTERS])):
        alternatives: dict[tuple[str, ...], None] = {}
        for spelling in _spellings(group):
            parts = list(_words(spelling.replace("-", " ")))
            if parts:
                alternatives.setdefault(("".join(parts)[:WORD_CHARACTERS],))
                alternatives.setdefault(tuple(dict.fromkeys(p[:WORD_CHARACTERS] for p in parts)))
        if alternatives:
            terms.setdefault(QueryTerm(tuple(alternatives)))
    return list(terms)


def _grouped(text: str) -> Iterator[str]:
    """Split a query into its words; particles stay with the word that follows them."""
    group: list[str] = []
    for word in _words(text):
        group.append(word)
        if word.casefold() not in _PARTICLES:
            yield " ".join(group)
            group = []
    if group:
        yield " ".join(group)


def _spellings(text: str) -> Iterator[str]:
    """Yield a folded text; if it has umlauts, also the spelling with two letters."""
    lower = _clean(text).casefold()
    yield _fold(lower)
    if not lower.isascii():
        respelled = lower.translate(_UMLAUTS)
        if respelled != lower:
            yield _fold(respelled)


def _clean(text: str) -> str:
    """Return a text in NFKC, apostrophes and hyphens of all kinds as `-`."""
    cleaned = (clean_text(text) or "").translate(_PUNCTUATION_INSIDE_WORDS)
    if cleaned.isascii():
        return cleaned
    # Twice: NFKC makes spaces of some apostrophes, and apostrophes of some letters.
    composed = unicodedata.normalize("NFKC", cleaned)[:_TEXT_CHARACTERS]
    return composed.translate(_PUNCTUATION_INSIDE_WORDS)


def _fold(lower: str) -> str:
    if lower.isascii():
        return lower
    decomposed = unicodedata.normalize("NFKD", lower).casefold()
    kept = "".join(c for c in decomposed if unicodedata.combining(c) in _KEPT_MARKS)
    if _VOICING_MARKS.search(kept):
        kept = unicodedata.normalize("NFC", kept)
    return kept.translate(_LETTERS).translate(_KATAKANA)


def _words(text: str) -> Iterator[str]:
    """Split at everything but letters, digits, marks of letters and joining punctuation."""
    if text.isascii():
        separated = re.sub(r"[^A-Za-z0-9-]", " ", text)
    else:
        separated = "".join(c if _belongs_to_word(c) else " " for c in text)
    return (word for word in separated.split() if word.strip("-"))


def _belongs_to_word(character: str) -> bool:
    return (
        character == "-" or character.isalnum() or unicodedata.category(character) in {"Mn", "Mc"}
    )
