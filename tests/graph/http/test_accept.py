"""What callers accept, as DICOMweb clients write it."""

import pytest

from graph.http.accept import NotAcceptable, accepts_gzip, choose, parse_accept
from services.errors import InvalidInput


def test_ranges_come_by_quality_and_keep_their_parameters() -> None:
    read = parse_accept(
        'multipart/related; type="application/octet-stream"; transfer-syntax=*; q=0.5, image/PNG'
    )
    assert [one.media_type for one in read] == ["image/png", "multipart/related"]
    assert read[1].parameters == {"type": "application/octet-stream", "transfer-syntax": "*"}
    assert read[1].part_type == "application/octet-stream"


@pytest.mark.parametrize(
    "text",
    [
        'multipart/related; type="*/*"',
        "multipart/related; type=*/*",
        "multipart/related;type=application/dicom",
        'multipart/related; type="application/dicom"; transfer-syntax=*',
        "multipart/related",
        "multipart/related; type=application/*",
    ],
)
def test_the_type_of_parts_may_be_quoted_or_not_and_a_wildcard(text: str) -> None:
    (read,) = parse_accept(text)
    assert read.is_multipart
    assert read.matches_parts("application/dicom")


@pytest.mark.parametrize("text", [None, "", "  ", "*/*"])
def test_who_says_nothing_accepts_everything(text: str | None) -> None:
    assert choose(parse_accept(text), ["image/png"]) == "image/png"


@pytest.mark.parametrize(
    "text",
    [
        "image",
        "image/",
        "image/png; q=2",
        "image/png image/jpeg",
        '"',
        'a/b;c="',
        "a/b;;q=1",
        "x" * 5000,
    ],
)
def test_malformed_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_accept(text)


def test_what_has_quality_zero_is_not_accepted() -> None:
    with pytest.raises(NotAcceptable):
        choose(parse_accept("image/png;q=0"), ["image/png"])
    assert choose(parse_accept("image/*, text/plain"), ["a/b", "image/png"]) == "image/png"


@pytest.mark.parametrize(
    ("text", "is_accepted"),
    [
        (None, False),
        ("gzip", True),
        ("br, gzip;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("identity", False),
    ],
)
def test_gzip_is_sent_to_who_accepts_it(text: str | None, is_accepted: bool) -> None:
    assert accepts_gzip(text) is is_accepted
