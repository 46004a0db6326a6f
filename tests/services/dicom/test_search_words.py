from collections.abc import Iterator

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.dicom.search_words import QueryTerm, fold, query_terms, search_words

KENJI = "Yamada^Kenji=山田^健二=やまだ^けんじ"
CLERK: dict[str, list[str]] = {
    "Huber^Maria": ["huber", "HUBER", "hub", "maria", "maria huber", "huber, maria", "hubermaria"],
    "Łukasiewicz^Jan": ["lukasiewicz", "łukasiewicz", "LUKAS"],
    "Sørensen^Søren": ["sorensen", "soren", "soeren", "sørensen soren"],
    "Đặng^Văn Minh": ["dang", "đặng", "van minh", "vanminh"],
    "Nguyễn^Thị Hoa": ["nguyen", "nguyen thi hoa", "nguyenthihoa"],
    "Björk^Bjørn": ["bjork", "bjoerk", "bjorn", "bjoern", "björk"],
    "Işık^Ayşe": ["isik", "ışık", "IŞIK", "ISIK", "ayse"],
    "Isik^Ayse": ["ışık"],
    "İnan^İbrahim": ["inan", "İNAN", "ibrahim"],
    "Müller^Jörg": ["müller", "muller", "mueller", "MÜLLER", "joerg mueller", "jorg"],
    "Mueller^Joerg": ["müller", "mueller", "jörg"],
    "Weiß^Ärne": ["weiss", "weiß", "aerne", "arne"],
    "Weiss^Karl": ["weiß"],
    "Þórðarson^Jón": ["thordarson", "þórðarson", "jon"],
    "Æbelø^Åse": ["aebelo", "æbelø", "aebeloe", "ase", "aase"],
    "Ħaż-Żebbuġ^Ġorġ": ["haz zebbug", "hazzebbug", "gorg"],
    "Lefebvre^Cœur": ["coeur", "cœur"],
    "O'Neill^Sean": ["oneill", "o'neill", "o’neill", "O`Neill", "o neill", "neill", "sean oneill"],
    "O’Neill^Sean": ["oneill", "o'neill", "neill"],
    "ONeill^Sean": ["o'neill", "oneill"],
    "O Neill^Sean": ["oneill", "o'neill"],
    "d'Artagnan^Charles": ["dartagnan", "d’artagnan", "artagnan"],
    "van der Berg^Jan": [
        "van der berg", "vanderberg", "vander berg", "van derberg", "berg", "jan van der berg",
        "berg, jan", "der berg",
    ],
    "Vanderberg^Jan": ["van der berg", "vander berg", "jan van der berg"],
    "Berg^Jan van der": ["van der berg", "berg jan"],
    "De la Cruz^Juan": ["delacruz", "de la cruz", "cruz", "la cruz"],
    "Delacruz^Juan": ["de la cruz"],
    "MacDonald^Ron": ["mac donald", "macdonald"],
    "Mac Donald^Ron": ["macdonald"],
    "St. John^Ann": ["st john", "stjohn", "st. john"],
    "Schmidt-Lüdenscheidt^Eva": [
        "schmidt lüdenscheidt", "schmidtludenscheidt", "luedenscheidt", "schmidt‐lüdenscheidt",
    ],
    "Huber^Anne Marie": ["anne-marie", "annemarie", "marie anne"],
    "Huber^Annemarie": ["anne-marie"],
    KENJI: [
        "山田健二", "山田 健二", "山田　健二", "健二", "やまだ", "ヤマダ", "ﾔﾏﾀﾞ", "ヤマダケンジ",
        "yamada kenji", "kenji yamada",
    ],
    "ﾔﾏﾀﾞ^ｹﾝｼﾞ": ["やまだ", "ヤマダ けんじ"],
    "Hong^Gildong=洪^吉洞=홍^길동": ["홍길동", "홍 길동", "洪吉洞", "길동", "gildong hong"],
    "王^小东": ["王小东", "王 小东", "小东"],
    "Ёлкин^Пётр": ["елкин", "ЁЛКИН", "петр"],
    "Παπαδόπουλος^Γιώργος": ["παπαδοπουλος", "ΠΑΠΑΔΟΠΟΥΛΟΣ", "γιωργος"],
    "أحمد^محمد": ["احمد", "أحمد", "محمد أحمد"],
    "علی^رضا": ["علي"],
    "कुमार^राज": ["कुमार", "राज कुमार"],
    "สมชาย^ใจดี": ["สมชาย", "ใจดี"],
}  # fmt: skip


def _is_found(stored: list[str], query: str) -> bool:
    terms = query_terms(query)
    return bool(terms) and all(_is_met(term, stored) for term in terms)


def _is_met(term: QueryTerm, stored: list[str]) -> bool:
    return any(
        all(any(word.startswith(beginning) for word in stored) for beginning in beginnings)
        for beginnings in term.alternatives
    )


def _queries() -> Iterator[tuple[str, str]]:
    for name, queries in CLERK.items():
        for query in queries:
            yield name, query


@pytest.mark.parametrize(("name", "query"), list(_queries()))
def test_a_clerk_finds_the_patient_as_they_type(name: str, query: str) -> None:
    assert _is_found(search_words(name), query)


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("Huber^Maria", "hubert"),
        ("Huber^Maria", "uber"),
        ("Huber^Maria", "huber anna"),
        ("Samuel^Ben", "samul"),
        ("がん^x", "かん"),
        ("Huber^Maria", "..."),
        ("O'Neill^Sean", "onell"),
        ("van der Berg^Jan", "van den berg"),
    ],
)
def test_others_are_not_found(name: str, query: str) -> None:
    assert not _is_found(search_words(name), query)


def test_identifiers_are_found_with_and_without_their_punctuation() -> None:
    stored = search_words("Huber^Maria", "ABC-123/4", "ACC 77", "CT Thorax (KM)")
    for query in ("abc-123", "abc123", "123", "acc77", "acc 77", "thorax km", "huber 123 ct"):
        assert _is_found(stored, query), query


def test_stored_words_run_on_to_the_end_of_their_name() -> None:
    assert search_words("van der Berg^Jan=山田^太郎", None, "") == [
        "bergjan",
        "derbergjan",
        "jan",
        "vanderbergjan",
        "太郎",
        "山田太郎",
    ]


def test_stored_words_are_bounded() -> None:
    words = search_words("x" * 100, " ".join(f"w{number:03}" for number in range(100)))
    assert len(words) == 32
    assert max(map(len, words)) == 64


def test_texts_that_grow_when_they_are_folded_are_bounded() -> None:
    words = [
        word
        for term in query_terms("\ufdfa" * 1_000_000)
        for words in term.alternatives
        for word in words
    ]
    assert 0 < len(words) < 1024
    assert max(map(len, words)) <= 64


def test_particles_and_punctuation_give_alternatives() -> None:
    assert query_terms("van der Berg, O'Neill, Jörg, Jörg") == [
        QueryTerm((("vanderberg",), ("van", "der", "berg"))),
        QueryTerm((("oneill",), ("o", "neill"))),
        QueryTerm((("jorg",), ("joerg",))),
    ]


@given(st.text(st.characters(exclude_characters="=\\"), max_size=60))
def test_every_text_finds_itself(text: str) -> None:
    stored = search_words(text)
    assume(query_terms(text) and len(stored) < 32)
    assert _is_found(stored, text)


def test_texts_order_without_case_and_accents() -> None:
    assert fold("Ämile^Zoë") == "amile^zoe"
    assert fold("Łódź") == "lodz"
    assert fold(None) == ""
