import hashlib
import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from services.errors import FrameUrlExpired, FrameUrlInvalid
from services.frames.signing import (
    ArchiveReference,
    FrameReference,
    FrameUrlKeys,
    FrameUrlSigner,
    ShareGrant,
    expiry_step_seconds,
    study_revision,
)
from services.frames.variant import FrameVariant, PictureFormat

INSTANCE = "0a1b2c3d-4e5f6071-8293a4b5-c6d7e8f9-0a1b2c3d"
EXPIRES = 0x66A0B228
NOW = EXPIRES - 1800
VARIANT = FrameVariant(40, 400, max_size=256)
VECTOR = (
    b"/frames/v2/k1.66a0b228._Dp5k0G9LISlNhMGJYqC7g/"
    b"0a1b2c3d-4e5f6071-8293a4b5-c6d7e8f9-0a1b2c3d/deadbeef/7/w40x400-s256.png"
)
MASTER = bytes(range(32))
signer = FrameUrlSigner(FrameUrlKeys((("k1", MASTER), ("k0", bytes(32)))))


def test_the_published_vector_is_minted_and_verified() -> None:
    minted = signer.frame_path(INSTANCE, "deadbeef", 7, VARIANT, now=NOW)
    assert minted.path.encode() == VECTOR
    assert minted.expires_at == datetime(2024, 7, 24, 7, 50, tzinfo=UTC)
    assert signer.verify_frame(VECTOR, now=NOW) == FrameReference(
        INSTANCE, "deadbeef", 7, VARIANT, EXPIRES
    )


def test_the_vector_follows_from_the_documentation() -> None:
    key = HKDF(SHA256(), 32, None, b"frame-url/v2").derive(MASTER)
    text = f"frame-url/v2\nk1\n66a0b228\n{INSTANCE}\ndeadbeef"
    digest = hmac.new(key, text.encode(), hashlib.sha256).digest()[:16]
    assert VECTOR.split(b"/")[3].split(b".")[2] == urlsafe_b64encode(digest).rstrip(b"=")


def test_one_signature_is_valid_for_all_frames_and_renderings_of_an_instance() -> None:
    template = signer.frame_template(INSTANCE, "deadbeef", now=NOW).path
    assert template.replace("{frame}", "7").replace("{variant}", "w40x400-s256").encode() == VECTOR
    for frame, variant, shown in (
        (0, "default", FrameVariant()),
        (119, "full", FrameVariant(full_range=True)),
        (3, "w-600.5x0.001-s64", FrameVariant(-600.5, 0.001, max_size=64)),
    ):
        path = template.replace("{frame}", str(frame)).replace("{variant}", variant)
        found = signer.verify_frame(path.encode(), now=NOW)
        assert found == FrameReference(INSTANCE, "deadbeef", frame, shown, EXPIRES)
    jpeg = signer.verify_frame(VECTOR.replace(b".png", b".jpg"), now=NOW).variant
    assert jpeg == FrameVariant(40, 400, max_size=256, picture_format=PictureFormat.JPEG)


@pytest.mark.parametrize("offset", [0, 1, 599.9])
def test_urls_live_30_to_40_minutes_and_share_their_expiry(offset: float) -> None:
    minted = signer.frame_path(INSTANCE, "deadbeef", 7, now=NOW - offset)
    assert (
        minted.expires_at.timestamp()
        == EXPIRES
        == signer.frames_expire_at(now=NOW - offset).timestamp()
    )
    assert 1800 <= EXPIRES - (NOW - offset) < 2400


@pytest.mark.parametrize(
    ("valid_seconds", "step_seconds"), [(60, 300), (900, 300), (1800, 600), (86_400, 28_800)]
)
def test_expiries_are_rounded_up_by_a_third_and_at_least_5_minutes(
    valid_seconds: int, step_seconds: int
) -> None:
    assert expiry_step_seconds(valid_seconds) == step_seconds
    own = FrameUrlSigner(FrameUrlKeys((("k1", MASTER),)), valid_seconds=valid_seconds)
    expires = own.frames_expire_at(now=NOW).timestamp()
    assert expires % step_seconds == 0
    assert valid_seconds <= expires - NOW < valid_seconds + step_seconds


def test_expiry_is_exact_to_the_second_after_the_clock_skew() -> None:
    assert signer.verify_frame(VECTOR, now=EXPIRES + 29.99).expires == EXPIRES
    with pytest.raises(FrameUrlExpired):
        signer.verify_frame(VECTOR, now=EXPIRES + 30)


def test_an_expired_url_with_a_wrong_signature_is_invalid_not_expired() -> None:
    with pytest.raises(FrameUrlInvalid):
        signer.verify_frame(VECTOR.replace(b"deadbeef", b"deadbeee"), now=EXPIRES + 3600)


def test_a_url_from_the_far_future_is_invalid() -> None:
    with pytest.raises(FrameUrlInvalid):
        signer.verify_frame(VECTOR, now=EXPIRES - 2431)


def test_every_key_verifies_and_the_first_signs() -> None:
    old = FrameUrlSigner(FrameUrlKeys((("k0", bytes(32)),)))
    path = old.frame_path(INSTANCE, "deadbeef", 0, now=NOW).path.encode()
    assert signer.verify_frame(path, now=NOW).variant == FrameVariant()
    with pytest.raises(FrameUrlInvalid):
        old.verify_frame(VECTOR, now=NOW)


def test_an_unknown_key_and_a_wrong_signature_are_the_same_error() -> None:
    errors = []
    for path in (VECTOR.replace(b"k1.", b"k9."), VECTOR.replace(b"_Dp5", b"_Dp6")):
        with pytest.raises(FrameUrlInvalid) as refused:
            signer.verify_frame(path, now=NOW)
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
def test_no_altered_path_leads_to_another_object(path: bytes) -> None:
    try:
        found = signer.verify_frame(path, now=NOW)
    except FrameUrlInvalid:
        return
    # Frame and variant are not signed: what is accepted is canonical and of the same object.
    assert (found.instance_id, found.revision, found.expires) == (INSTANCE, "deadbeef", EXPIRES)
    canonical = signer.frame_path(INSTANCE, "deadbeef", found.frame_index, found.variant, now=NOW)
    assert canonical.path.encode() == path


@given(_mutated(VECTOR[: VECTOR.index(b"/7/")]))
def test_nothing_but_the_signed_part_is_accepted(signed: bytes) -> None:
    with pytest.raises(FrameUrlInvalid):
        signer.verify_frame(signed + b"/7/w40x400-s256.png", now=NOW)


@pytest.mark.parametrize("last", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefhijklmnopqrstuvwxyz0123456789-_")
def test_other_spellings_of_the_same_signature_are_refused(last: str) -> None:
    path = VECTOR.replace(b"YqC7g/", b"YqC7" + last.encode() + b"/")
    with pytest.raises(FrameUrlInvalid):
        signer.verify_frame(path, now=NOW)


def test_a_path_that_was_right_once_still_expires() -> None:
    own = FrameUrlSigner(FrameUrlKeys((("k1", MASTER),)))
    path = own.frame_path(INSTANCE, "deadbeef", 7, now=NOW).path.encode()
    first = own.verify_frame(path, now=NOW)
    assert own.verify_frame(path, now=first.expires + 29) == first
    with pytest.raises(FrameUrlExpired):
        own.verify_frame(path, now=first.expires + 30)
    with pytest.raises(FrameUrlInvalid):
        own.verify_frame(path, now=NOW - 3600)


def test_what_is_refused_is_remembered_nowhere() -> None:
    own = FrameUrlSigner(FrameUrlKeys((("k1", MASTER),)))
    for number in range(100):
        with pytest.raises(FrameUrlInvalid):
            own.verify_frame(VECTOR + b"%d" % number, now=NOW)
    assert own._verified.cache_info().currsize == 0


def test_archives_have_their_own_key_and_path() -> None:
    revision = study_revision(datetime(2024, 7, 24, 7, 20, 0, 5000, tzinfo=UTC))
    assert revision == "0190e39c7505" == study_revision(datetime(2024, 7, 24, 7, 20, 0, 5000))  # noqa: DTZ001  # as MongoDB answers
    minted = signer.archive_path(INSTANCE, revision, now=NOW)
    assert minted.path.endswith(f"/{INSTANCE}/{revision}.zip")
    path = minted.path.encode()
    assert signer.verify_archive(path, now=NOW) == ArchiveReference(INSTANCE, revision, EXPIRES)
    for other in (
        path.replace(b"/archives/", b"/frames/"),
        path.replace(b".zip", b".png"),
        path.replace(b".zip", b""),
        path.replace(b"/0190e", b"/0191e"),
    ):
        with pytest.raises(FrameUrlInvalid):
            signer.verify_frame(other, now=NOW)
        with pytest.raises(FrameUrlInvalid):
            signer.verify_archive(other, now=NOW)


def test_archives_of_series_name_their_study() -> None:
    study = f"f{INSTANCE[1:]}"
    minted = signer.series_archive_path(INSTANCE, study, "0190e39c7505", now=NOW)
    assert minted.path.startswith("/archives/v2/series/")
    assert minted.path.endswith(f"/{INSTANCE}/{study}/0190e39c7505.zip")
    path = minted.path.encode()
    assert signer.verify_archive(path, now=NOW) == ArchiveReference(
        study, "0190e39c7505", EXPIRES, series_id=INSTANCE
    )
    for other in (
        path.replace(b"/series/", b"/"),
        path.replace(study.encode(), INSTANCE.encode()),
        path.replace(f"/{INSTANCE}/".encode(), f"/{study}/".encode()),
        path.replace(b"/0190e", b"/0191e"),
        path.replace(b".zip", b""),
        signer.archive_path(INSTANCE, "0190e39c7505", now=NOW)
        .path.replace("/v2/", "/v2/series/")
        .encode(),
    ):
        with pytest.raises(FrameUrlInvalid):
            signer.verify_archive(other, now=NOW)
    granted = signer.series_archive_path(INSTANCE, study, "0190e39c7505", now=NOW, grant=GRANT)
    assert signer.verify_archive(granted.path.encode(), now=NOW).share_id == GRANT.share_id


@pytest.mark.parametrize(
    ("instance", "revision", "rest"),
    [(INSTANCE, "deadbeef", "007/default.png"), (INSTANCE, "x", "0/default.png"),
     ("a", "deadbeef", "0/full.png"), (INSTANCE, "deadbeef", "0/w40.0x400.png"),
     (INSTANCE, "deadbeef", "0/default"), (INSTANCE, "deadbeef", "-1/default.png"),
     (INSTANCE, "deadbeef", "0//default.png"), (INSTANCE, "deadbeef", "0/default.gif")],
)  # fmt: skip
def test_even_a_signed_path_must_be_spelled_as_we_spell_it(
    instance: str, revision: str, rest: str
) -> None:
    path = f"{signer._frames.mint(instance, revision, NOW).path}/{rest}".encode()
    with pytest.raises(FrameUrlInvalid):
        signer.verify_frame(path, now=NOW)


def test_keys_are_rotated_without_a_url_that_stops_working() -> None:
    old, new = ("k1", MASTER), ("k2", bytes(32))
    stages = [FrameUrlSigner(FrameUrlKeys(keys)) for keys in ((old,), (new, old), (new,))]
    before, during, after = (
        stage.frame_path(INSTANCE, "deadbeef", 7, now=NOW).path.encode() for stage in stages
    )
    assert during == after != before
    for path in (before, during):
        assert stages[1].verify_frame(path, now=NOW).frame_index == 7
    with pytest.raises(FrameUrlInvalid):
        stages[2].verify_frame(before, now=NOW)


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
            signer.verify_frame(VECTOR, now=EXPIRES + 30)
    finally:
        monkeypatch.undo()
        time.tzset()


GRANT = ShareGrant("0123456789abcdef", int(NOW) + 100)


def test_what_is_minted_under_a_share_ends_with_it_and_names_it() -> None:
    signed = signer.frame_path(INSTANCE, "deadbeef", 0, now=NOW, grant=GRANT)
    assert signed.expires_at.timestamp() == GRANT.expires
    found = signer.verify_frame(signed.path.encode(), now=NOW)
    assert (found.share_id, found.expires) == (GRANT.share_id, GRANT.expires)
    template = signer.frame_template(INSTANCE, "deadbeef", now=NOW, grant=GRANT)
    assert template.path.startswith(signed.path.removesuffix("0/default.png"))
    archive = signer.archive_path(INSTANCE, "deadbeef", now=NOW, grant=GRANT)
    assert signer.verify_archive(archive.path.encode(), now=NOW).share_id == GRANT.share_id
    assert signer.frames_expire_at(now=NOW, grant=GRANT).timestamp() == GRANT.expires


def test_a_long_share_makes_its_urls_last_no_longer() -> None:
    grant = replace(GRANT, expires=int(NOW) + 10_000_000)
    ends = signer.frames_expire_at(now=NOW)
    assert signer.frame_path(INSTANCE, "deadbeef", 0, now=NOW, grant=grant).expires_at == ends


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.replace(f".{GRANT.share_id}", ""),
        lambda path: path.replace(GRANT.share_id, "0" * 16),
        lambda path: path.replace(GRANT.share_id, GRANT.share_id.upper()),
        lambda path: path.replace(f".{GRANT.share_id}", f".{GRANT.share_id}.{GRANT.share_id}"),
        lambda path: path.replace(f".{GRANT.share_id}", "."),
    ],
)
def test_a_url_without_its_own_share_is_not_ours(change: Callable[[str], str]) -> None:
    path = signer.frame_path(INSTANCE, "deadbeef", 0, now=NOW, grant=GRANT).path
    with pytest.raises(FrameUrlInvalid):
        signer.verify_frame(change(path).encode(), now=NOW)


def test_a_share_can_not_be_added_to_a_url() -> None:
    kid_exp_sig = VECTOR.split(b"/")[3]
    path = VECTOR.replace(kid_exp_sig, kid_exp_sig + b"." + GRANT.share_id.encode())
    with pytest.raises(FrameUrlInvalid):
        signer.verify_frame(path, now=NOW)
