import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.errors import InvalidInput
from services.frames.signing import KEY_FILE_NAME, FrameUrlKeys, generate_key, load_or_create_keys

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"


def test_keys_keep_their_order() -> None:
    keys = FrameUrlKeys.parse(f"new:{KEY}, old:{KEY}=")
    assert keys.masters == (("new", bytes(range(32))), ("old", bytes(range(32))))


def test_a_generated_key_is_read_and_never_twice_the_same() -> None:
    first, second = FrameUrlKeys.parse(generate_key()), FrameUrlKeys.parse(generate_key())
    assert len(first.masters[0][1]) == 32
    assert first.masters[0][1] != second.masters[0][1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "kid:key"),
        (KEY, "kid:key"),
        (f"a.b:{KEY}", "kid:key"),
        (f"{'k' * 17}:{KEY}", "kid:key"),
        ("k1:AAEC", "key k1 has 3 bytes; 32 are the minimum"),
        (f"k1:{KEY[:-3]}", "32 are the minimum"),
        (f"k1:{KEY}!", "key k1 is not base64url"),
        (f"k1:{KEY},k1:{KEY}", "used once"),
    ],
)
def test_wrong_keys_are_named_but_not_shown(text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        FrameUrlKeys.parse(text)
    assert words in refused.value.message
    assert KEY[:8] not in refused.value.message


def test_purposes_have_different_keys() -> None:
    keys = FrameUrlKeys.parse(f"k1:{KEY}")
    assert keys.derived("frame-url/v2") != keys.derived("archive-url/v2")


def test_keys_do_not_show_themselves() -> None:
    assert "x" * 32 not in repr(FrameUrlKeys((("k1", b"x" * 32),)))


def test_the_key_file_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with ThreadPoolExecutor(8) as threads:
        loaded = set(threads.map(load_or_create_keys, [folder] * 8))
    assert len({keys.masters for keys in loaded}) == 1
    assert [path.name for path in folder.iterdir()] == [KEY_FILE_NAME]
    assert stat.S_IMODE((folder / KEY_FILE_NAME).stat().st_mode) == 0o600
