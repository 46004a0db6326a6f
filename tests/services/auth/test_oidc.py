import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import jwt
import pytest

from services.auth.oidc import KeysUnavailable, OidcRules, OidcVerifier, is_safe_provider_url
from services.auth.roles import Principal, Role
from tests.services.auth.issuer import (
    AUDIENCE,
    Issuer,
    PrivateKey,
    make_key,
    public_jwk,
    run_issuer,
)

RSA_KEY = make_key("RS256")
VIEWER = Principal("oidc:f3b1", Role.VIEWER)


def is_viewer(principal: Principal | None) -> bool:
    """Tell whether this is the viewer of the tests, as long as its JWT is valid."""
    if principal is None or principal.expires_at is None:
        return False
    return replace(principal, expires_at=None) == VIEWER


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with run_issuer() as running:
        running.keys = [public_jwk(RSA_KEY, "one")]
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def verifier(issuer: Issuer, clock: Clock) -> AsyncIterator[OidcVerifier]:
    async with httpx.AsyncClient(trust_env=False) as http:
        yield OidcVerifier(http, OidcRules(issuer.url, AUDIENCE), monotonic=clock)


def sign(
    claims: dict[str, Any],
    key: PrivateKey | str = RSA_KEY,
    algorithm: str = "RS256",
    kid: str | None = "one",
) -> str:
    return jwt.encode(claims, key, algorithm, headers={"kid": kid} if kid else None)


async def test_a_token_of_the_provider_is_accepted(issuer: Issuer, verifier: OidcVerifier) -> None:
    assert is_viewer(await verifier.verify(sign(issuer.claims())))


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256", "ES256", "EdDSA"])
async def test_each_asymmetric_algorithm_is_accepted(
    issuer: Issuer, verifier: OidcVerifier, algorithm: str
) -> None:
    key = make_key(algorithm)
    issuer.keys = [public_jwk(key, "other")]
    assert is_viewer(await verifier.verify(sign(issuer.claims(), key, algorithm, "other")))


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://other.example"},
        {"iss": None},
        {"aud": "another-client"},
        {"aud": None},
        {"aud": 5},
        {"exp": int(time.time()) - 31},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": int(time.time()) + 3600},
        {"sub": None},
        {"sub": ""},
        {"realm_access": None},
        {"realm_access": {"roles": ["superuser"]}},
        {"realm_access": "viewer"},
    ],
)
async def test_wrong_claims_are_refused(
    issuer: Issuer, verifier: OidcVerifier, changed: dict[str, Any]
) -> None:
    token = jwt.api_jws.encode(
        json.dumps(issuer.claims(**changed)).encode(),
        RSA_KEY,
        "RS256",
        headers={"kid": "one"},
    )
    assert await verifier.verify(token) is None


async def test_clocks_may_differ_by_less_than_30_seconds(
    issuer: Issuer, verifier: OidcVerifier
) -> None:
    now = int(time.time())
    token = sign(issuer.claims(exp=now - 20, nbf=now + 20))
    assert is_viewer(await verifier.verify(token))


async def test_an_audience_among_others_is_enough(issuer: Issuer, verifier: OidcVerifier) -> None:
    assert is_viewer(await verifier.verify(sign(issuer.claims(aud=["account", AUDIENCE]))))


async def test_a_token_without_signature_is_refused(issuer: Issuer, verifier: OidcVerifier) -> None:
    assert await verifier.verify(sign(issuer.claims(), "", "none")) is None


async def test_the_public_key_is_no_shared_secret(issuer: Issuer, verifier: OidcVerifier) -> None:
    # The classic confusion: HMAC with the bytes of the public key, which everybody has.
    secret = str(public_jwk(RSA_KEY, "one")["n"])
    assert await verifier.verify(sign(issuer.claims(), secret, "HS256")) is None


async def test_a_shared_secret_among_the_keys_is_never_used(
    issuer: Issuer, verifier: OidcVerifier
) -> None:
    secret = "s" * 43
    issuer.keys.append({"kty": "oct", "k": secret, "kid": "hmac", "alg": "HS256"})
    token = sign(issuer.claims(), jwt.utils.base64url_decode(secret).hex(), "HS256", "hmac")
    assert await verifier.verify(token) is None


async def test_the_signature_of_another_key_is_refused(
    issuer: Issuer, verifier: OidcVerifier
) -> None:
    assert await verifier.verify(sign(issuer.claims(), make_key("RS256"))) is None


async def test_a_key_is_used_for_the_algorithm_that_it_declares_only(
    issuer: Issuer, verifier: OidcVerifier
) -> None:
    issuer.keys = [public_jwk(RSA_KEY, "one", alg="RS512")]
    assert await verifier.verify(sign(issuer.claims())) is None
    assert is_viewer(await verifier.verify(sign(issuer.claims(), algorithm="RS512")))


async def test_keys_for_encryption_check_no_signature(
    issuer: Issuer, verifier: OidcVerifier
) -> None:
    issuer.keys = [public_jwk(RSA_KEY, "one", use="enc")]
    assert await verifier.verify(sign(issuer.claims())) is None


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_a_short_rsa_key_is_not_trusted(issuer: Issuer, verifier: OidcVerifier) -> None:
    short = make_key("RS256", rsa_bits=1024)
    issuer.keys = [public_jwk(short, "short")]
    assert await verifier.verify(sign(issuer.claims(), short, kid="short")) is None


async def test_a_token_that_names_no_key_is_checked_with_the_only_one(
    issuer: Issuer, verifier: OidcVerifier
) -> None:
    await verifier.fetch_keys()
    assert is_viewer(await verifier.verify(sign(issuer.claims(), kid=None)))


async def test_a_token_that_names_no_key_is_refused_when_there_are_two(
    issuer: Issuer, verifier: OidcVerifier
) -> None:
    issuer.keys.append(public_jwk(make_key("ES256"), "two"))
    await verifier.fetch_keys()
    assert await verifier.verify(sign(issuer.claims(), kid=None)) is None


async def test_unknown_key_names_ask_the_provider_once_in_ten_seconds(
    issuer: Issuer, verifier: OidcVerifier, clock: Clock
) -> None:
    for kid in ("a", "b", "c"):
        assert await verifier.verify(sign(issuer.claims(), kid=kid)) is None
    assert issuer.key_requests == 1
    clock.seconds += 10
    issuer.keys = [public_jwk(RSA_KEY, "c")]
    assert is_viewer(await verifier.verify(sign(issuer.claims(), kid="c")))
    assert issuer.key_requests == 2


async def test_known_keys_stay_while_the_provider_is_away(
    issuer: Issuer, verifier: OidcVerifier, clock: Clock
) -> None:
    await verifier.fetch_keys()
    issuer.is_away = True
    clock.seconds += 100
    assert await verifier.verify(sign(issuer.claims(), kid="unknown")) is None
    assert is_viewer(await verifier.verify(sign(issuer.claims())))


async def test_a_discovery_document_of_another_issuer_gives_no_keys(
    issuer: Issuer, verifier: OidcVerifier
) -> None:
    issuer.announced_issuer = "https://other.example"
    with pytest.raises(KeysUnavailable, match="another issuer"):
        await verifier.fetch_keys()


async def test_keys_are_taken_from_the_address_that_is_set(issuer: Issuer) -> None:
    issuer.announced_issuer = "https://other.example"
    rules = OidcRules(issuer.url, AUDIENCE, jwks_url=f"{issuer.url}/keys")
    async with httpx.AsyncClient(trust_env=False) as http:
        assert await OidcVerifier(http, rules).fetch_keys() == 1


async def test_a_provider_that_does_not_answer_gives_no_keys() -> None:
    rules = OidcRules("http://127.0.0.1:9", AUDIENCE)
    async with httpx.AsyncClient(trust_env=False) as http:
        with pytest.raises(KeysUnavailable):
            await OidcVerifier(http, rules).fetch_keys()


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "é.é.é",
        "\x00",
        "e30.e30.e30",
        "eyJraWQiOjV9.e30.e30",
        jwt.utils.base64url_encode(b"[" * 9000).decode() + ".e30.e30",
        jwt.utils.base64url_encode(b'"text"').decode() + ".e30.e30",
    ],
)
async def test_what_is_no_token_is_refused_without_an_error(
    verifier: OidcVerifier, token: str
) -> None:
    assert await verifier.verify(token) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://id.example.org/realms/pacs", True),
        ("http://127.0.0.1:8080/realms/pacs", True),
        ("http://[::1]:8080", True),
        ("http://localhost", True),
        ("http://id.example.org", False),
        ("http://localhost.example.org", False),
        ("file:///etc/passwd", False),
        ("https://", False),
        ("", False),
        ("http://[", False),
    ],
)
def test_keys_come_over_https_or_from_this_machine(url: str, *, expected: bool) -> None:
    assert is_safe_provider_url(url) is expected
