"""The secrets of containers are made once, and all of them are different."""

from pathlib import Path

from services.installation.container_secrets import make_secrets


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in files}


def test_secrets_are_made_once(tmp_path: Path) -> None:
    assert make_secrets(tmp_path)
    first = contents(tmp_path)
    assert not make_secrets(tmp_path)
    assert contents(tmp_path) == first


def test_an_interrupted_start_makes_them_again(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    first = contents(tmp_path)
    (tmp_path / "server" / "complete").unlink()
    assert make_secrets(tmp_path)
    again = contents(tmp_path)
    assert again.keys() == first.keys()
    fixed = {"mongodb/username", "server/orthanc_username", "server/complete"}
    assert {name for name in first if again[name] == first[name]} == fixed


def test_two_installations_share_nothing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_secrets(tmp_path / name)
    assert (
        contents(tmp_path / "a")["server/frame_url_keys"]
        != (contents(tmp_path / "b")["server/frame_url_keys"])
    )


def test_a_container_does_not_hold_the_secrets_of_another(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    found = contents(tmp_path)
    of_orthanc = "".join(text for name, text in found.items() if name.startswith("orthanc/"))
    of_mongodb = "".join(text for name, text in found.items() if name.startswith("mongodb/"))
    assert found["mongodb/password"] not in of_orthanc
    assert found["server/frame_url_keys"] not in of_orthanc + of_mongodb
    assert found["server/orthanc_password"] not in of_mongodb
    # MongoDB takes 6 to 1024 characters of Base64.
    assert len(found["mongodb/keyfile"]) == 128
