import json
from datetime import UTC, datetime, timedelta

import pytest

from services.auth.roles import Principal, Role
from services.auth.tokens import (
    Token,
    TokensFileError,
    digest_of,
    issue_token,
    parse_tokens,
    render_tokens,
    revoke_token,
)
from services.errors import InvalidInput, NotFound

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ENTRY = {
    "name": "ward 3",
    "role": "viewer",
    "created": "2026-01-02T03:04:05+00:00",
    "expires": None,
    "sha256": "a" * 64,
}


def test_a_new_token_is_kept_as_its_hash_only() -> None:
    tokens, secret = issue_token((), name="ward 3", role=Role.UPLOADER, now=NOW)
    assert tokens == (Token("ward 3", Role.UPLOADER, NOW, None, digest_of(secret)),)
    assert secret.startswith("ogql_")
    assert len(secret) == len("ogql_") + 43
    assert secret not in render_tokens(tokens)


def test_two_tokens_differ() -> None:
    tokens, first = issue_token((), name="a", role=Role.VIEWER, now=NOW)
    _, second = issue_token(tokens, name="b", role=Role.VIEWER, now=NOW)
    assert first != second


def test_a_written_file_reads_back() -> None:
    tokens, _ = issue_token((), name="a", role=Role.VIEWER, now=NOW)
    tokens, _ = issue_token(
        tokens, name="b@c.org", role=Role.ADMIN, now=NOW, lifetime=timedelta(days=3)
    )
    assert parse_tokens(render_tokens(tokens)) == tokens


def test_a_token_is_valid_until_the_moment_it_expires() -> None:
    (token,), _ = issue_token(
        (), name="a", role=Role.VIEWER, now=NOW, lifetime=timedelta(seconds=10)
    )
    assert token.is_valid_at(NOW + timedelta(seconds=9))
    assert not token.is_valid_at(NOW + timedelta(seconds=10))


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", "oidc:x", "x" * 65, "local", "é", "a/b"])
def test_a_name_that_could_mislead_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="A token's name"):
        issue_token((), name=name, role=Role.VIEWER, now=NOW)


def test_a_name_is_taken_once() -> None:
    tokens, _ = issue_token((), name="a", role=Role.VIEWER, now=NOW)
    with pytest.raises(InvalidInput, match="already"):
        issue_token(tokens, name="a", role=Role.VIEWER, now=NOW)


def test_revoking_leaves_the_others() -> None:
    tokens, _ = issue_token((), name="a", role=Role.VIEWER, now=NOW)
    both, _ = issue_token(tokens, name="b", role=Role.VIEWER, now=NOW)
    assert revoke_token(both, "b") == tokens


def test_revoking_what_is_not_there_says_so() -> None:
    with pytest.raises(NotFound, match='no token "a"'):
        revoke_token((), "a")


def test_the_holder_has_the_tokens_name_and_role() -> None:
    (token,) = parse_tokens(json.dumps({"tokens": [ENTRY]}))
    assert token.principal == Principal("ward 3", Role.VIEWER)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a list of tokens"),
        ("[]", "not a list of tokens"),
        ("{}", "'tokens' is missing"),
        ("[" * 5000, "not a list of tokens"),
        (json.dumps({"tokens": [{**ENTRY, "role": "root"}]}), '"root" is no role'),
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
