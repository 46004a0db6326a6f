import hashlib
import hmac
import time
from base64 import urlsafe_b64encode
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from services.errors import FrameUrlExpired, FrameUrlInvalid
from services.frames.signing import ArchiveReference, FrameReference, FrameUrlKeys, FrameUrlSigner
from services.frames.variant import FrameVariant

INSTANCE = "0a1b2c3d-4e5f6071-8293a4b5-c6d7e8f9-0a1b2c3d"
EXPIRES = 0x66A0B228
NOW = EXPIRES - 900
VARIANT = FrameVariant(40, 400, max_size=256)
VECTOR = (
    b"/frames/v1/k1.66a0b228.zHTjwNdaXd1Tu24XeDaBnQ/"
    b"0a1b2c3d-4e5f6071-8293a4b5-c6d7e8f9-0a1b2c3d/deadbeef/7/w40x400-s256.png"
)
MASTER = bytes(range(32))
signer = FrameUrlSigner(FrameUrlKeys((("k1", MASTER), ("k0", bytes(32)))))


def test_the_published_vector_is_minted_and_verified() -> None:
    minted = signer.frame_path(INSTANCE, "deadbeef", 7, VARIANT, now=NOW)
    assert minted.path.encode() == VECTOR
    assert minted.expires_at == datetime(2024, 7, 24, 7, 50, tzinfo=UTC)
    assert signer.verify_frame(VECTOR, "GET", now=NOW) == FrameReference(
        INSTANCE, "deadbeef", 7, VARIANT, EXPIRES
    )


def test_the_vector_follows_from_the_documentation() -> None:
    key = HKDF(SHA256(), 32, None, b"frame-url/v1").derive(MASTER)
    target = f"{INSTANCE}/deadbeef/7/w40x400-s256.png"
    text = f"frame-url/v1\nGET\nk1\n66a0b228\n{target}"
    digest = hmac.new(key, text.encode(), hashlib.sha256).digest()[:16]
    assert VECTOR.split(b"/")[3].split(b".")[2] == urlsafe_b64encode(digest).rstrip(b"=")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_head_is_signed_as_get(method: str) -> None:
    assert signer.verify_frame(VECTOR, method, now=NOW).frame_index == 7


def test_another_method_is_refused() -> None:
    with pytest.raises(FrameUrlInvalid):
        signer.verify_frame(VECTOR, "POST", now=NOW)


@pytest.mark.parametrize("offset", [0, 1, 299.9])
def test_urls_live_15_to_20_minutes_and_share_their_expiry(offset: float) -> None:
    minted = signer.frame_path(INSTANCE, "deadbeef", 7, now=NOW - offset)
    assert minted.expires_at.timestamp() == EXPIRES
    assert 900 <= EXPIRES - (NOW - offset) < 1200


def test_expiry_is_exact_to_the_second_after_the_clock_skew() -> None:
    assert signer.verify_frame(VECTOR, "GET", now=EXPIRES + 29.99).expires == EXPIRES
    with pytest.raises(FrameUrlExpired):
        signer.verify_frame(VECTOR, "GET", now=EXPIRES + 30)


def test_an_expired_url_with_a_wrong_signature_is_invalid_not_expired() -> None:
    with pytest.raises(FrameUrlInvalid):
        signer.verify_frame(VECTOR.replace(b"/7/", b"/8/"), "GET", now=EXPIRES + 3600)


def test_a_url_from_the_far_future_is_invalid() -> None:
    with pytest.raises(FrameUrlInvalid):
        signer.verify_frame(VECTOR, "GET", now=EXPIRES - 1231)


def test_every_key_verifies_and_the_first_signs() -> None:
    old = FrameUrlSigner(FrameUrlKeys((("k0", bytes(32)),)))
    path = old.frame_path(INSTANCE, "deadbeef", 0, now=NOW).path.encode()
    assert signer.verify_frame(path, "GET", now=NOW).variant == FrameVariant()
    with pytest.raises(FrameUrlInvalid):
        old.verify_frame(VECTOR, "GET", now=NOW)


def test_an_unknown_key_and_a_wrong_signature_are_the_same_error() -> None:
    errors = []
    for path in (VECTOR.replace(b"k1.", b"k9."), VECTOR.replace(b"zHTj", b"zHTk")):
        with pytest.raises(FrameUrlInvalid) as refused:
            signer.verify_frame(path, "GET", now=NOW)
        errors.append((refused.value.code, refused.value.message, refused.value.detail))
    assert errors[0] == errors[1]


def _mutated(path: bytes) -> st.SearchStrategy[bytes]:
    positions = st.integers(0, len(path) - 1)
    pieces = st.sampled_from(
        [b"/", b"//", b"..", b".", b"%2e", b"%2F", b"=", b"==", b"\n", b"\x00", b"?", b"#", b"A",
         b"_", b"-", b"\xff", b"http://x", b"/./", b"%00", b" ", b";a"]
    )  # fmt: skip
    replaced = st.builds(lambda at, by: path[:at] + by + path[at + 1 :], positions, st.binary())
    inserted = st.builds(lambda at, by: path[:at] + by + path[at:], positions, pieces)
    cut = st.builds(lambda at, to: path[:at] + path[to:], positions, positions)
    segments = path.split(b"/")
    doubled = st.builds(
        lambda at: b"/".join(segments[:at] + segments[at : at + 1] + segments[at:]),
        st.integers(0, len(segments) - 1),
    )
    shuffled = st.permutations(segments).map(b"/".join)
    return st.one_of(replaced, inserted, cut, doubled, shuffled, st.binary()).filter(
        lambda mutated: mutated != path
    )


@given(_mutated(VECTOR))
def test_nothing_but_the_signed_path_is_accepted(path: bytes) -> None:
    with pytest.raises(FrameUrlInvalid):
        signer.verify_frame(path, "GET", now=NOW)


@pytest.mark.parametrize("last", "ABCDEFGHIJKLMNOPRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
def test_other_spellings_of_the_same_signature_are_refused(last: str) -> None:
    path = VECTOR.replace(b"DaBnQ/", b"DaBn" + last.encode() + b"/")
    with pytest.raises(FrameUrlInvalid):
        signer.verify_frame(path, "GET", now=NOW)


def test_a_path_that_was_right_once_still_expires() -> None:
    own = FrameUrlSigner(FrameUrlKeys((("k1", MASTER),)))
    path = own.frame_path(INSTANCE, "deadbeef", 7, now=NOW).path.encode()
    first = own.verify_frame(path, "GET", now=NOW)
    assert own.verify_frame(path, "GET", now=first.expires + 29) == first
    with pytest.raises(FrameUrlExpired):
        own.verify_frame(path, "GET", now=first.expires + 30)
    with pytest.raises(FrameUrlInvalid):
        own.verify_frame(path, "GET", now=NOW - 3600)


def test_what_is_refused_is_remembered_nowhere() -> None:
    own = FrameUrlSigner(FrameUrlKeys((("k1", MASTER),)))
    for number in range(100):
        with pytest.raises(FrameUrlInvalid):
            own.verify_frame(VECTOR + b"%d" % number, "GET", now=NOW)
    assert own._verified.cache_info().currsize == 0


def test_archives_have_their_own_key_and_path() -> None:
    minted = signer.archive_path(INSTANCE, now=NOW)
    assert minted.path.endswith(f"/{INSTANCE}.zip")
    path = minted.path.encode()
    assert signer.verify_archive(path, "GET", now=NOW) == ArchiveReference(INSTANCE, EXPIRES)
    for other in (path.replace(b"/archives/", b"/frames/"), path.replace(b".zip", b".png")):
        with pytest.raises(FrameUrlInvalid):
            signer.verify_frame(other, "GET", now=NOW)
        with pytest.raises(FrameUrlInvalid):
            signer.verify_archive(other, "GET", now=NOW)


@pytest.mark.parametrize(
    "target",
    [f"{INSTANCE}/deadbeef/007/default.png", f"{INSTANCE}/x/0/default.png", "a/deadbeef/0/full.png",
     f"{INSTANCE}/deadbeef/0/w40.0x400.png", f"{INSTANCE}/deadbeef/0/default", "default.png"],
)  # fmt: skip
def test_even_a_signed_path_must_be_spelled_as_we_spell_it(target: str) -> None:
    path = signer._frames.mint(target, NOW).path.encode()
    with pytest.raises(FrameUrlInvalid):
        signer.verify_frame(path, "GET", now=NOW)


def test_keys_are_rotated_without_a_url_that_stops_working() -> None:
    old, new = ("k1", MASTER), ("k2", bytes(32))
    stages = [FrameUrlSigner(FrameUrlKeys(keys)) for keys in ((old,), (new, old), (new,))]
    before, during, after = (
        stage.frame_path(INSTANCE, "deadbeef", 7, now=NOW).path.encode() for stage in stages
    )
    assert during == after != before
    for path in (before, during):
        assert stages[1].verify_frame(path, "GET", now=NOW).frame_index == 7
    with pytest.raises(FrameUrlInvalid):
        stages[2].verify_frame(before, "GET", now=NOW)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"])
def test_the_time_zone_of_the_machine_changes_nothing(
    zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        minted = FrameUrlSigner(FrameUrlKeys((("k1", MASTER),))).frame_path(
            INSTANCE, "deadbeef", 7, VARIANT, now=NOW
        )
        assert minted.path.encode() == VECTOR
        assert minted.expires_at == datetime(2024, 7, 24, 7, 50, tzinfo=UTC)
        with pytest.raises(FrameUrlExpired):
            signer.verify_frame(VECTOR, "GET", now=EXPIRES + 30)
    finally:
        monkeypatch.undo()
        time.tzset()
