import json

import pytest

from services.auth.tokens_file import TokensFileError, parse_tokens

ENTRY = {
    "name": "ward 3",
    "role": "viewer",
    "created": "2026-01-02T03:04:05+00:00",
    "expires": None,
    "sha256": "a" * 64,
}


def test_an_entry_is_read_whole() -> None:
    expiring = ENTRY | {"name": "b@c.org", "sha256": "b" * 64, "expires": ENTRY["created"]}
    first, second = parse_tokens(json.dumps({"tokens": [ENTRY, expiring]}))
    assert (first.id, first.role, first.sha256) == ("ward 3", "viewer", "a" * 64)
    assert (first.created_at.isoformat(), first.expires_at) == (ENTRY["created"], None)
    assert second.expires_at == second.created_at


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a list of tokens"),
        ("[]", "not a list of tokens"),
        ("{}", "'tokens' is missing"),
        ("[" * 5000, "not a list of tokens"),
        (json.dumps({"tokens": [{**ENTRY, "role": "root"}]}), '"root" is not a role'),
        (json.dumps({"tokens": [{**ENTRY, "sha256": "A" * 64}]}), "64 lower-case hex"),
        (json.dumps({"tokens": [{**ENTRY, "sha256": "secret"}]}), "64 lower-case hex"),
        (json.dumps({"tokens": [{**ENTRY, "created": "2026-01-02"}]}), "no time zone"),
        (json.dumps({"tokens": [{**ENTRY, "expires": "soon"}]}), "Invalid isoformat"),
        (json.dumps({"tokens": [{**ENTRY, "name": "a:b"}]}), "a name is empty"),
        (json.dumps({"tokens": [ENTRY, {**ENTRY, "sha256": "b" * 64}]}), "same name"),
        (json.dumps({"tokens": [ENTRY, {**ENTRY, "name": "b"}]}), "same hash"),
        (json.dumps({"tokens": ["x"]}), "not a list of tokens"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(text: str, reason: str) -> None:
    with pytest.raises(TokensFileError, match=reason):
        parse_tokens(text)
