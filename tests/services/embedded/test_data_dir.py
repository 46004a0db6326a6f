import os
from pathlib import Path

import pytest

from services.embedded.data_dir import (
    DataDirInUse,
    RunningStores,
    Stores,
    lock_data_dir,
    read_running_stores,
    write_running_stores,
)

_STORES = Stores(
    mongodb_url="mongodb://user:canary@127.0.0.1:20001/",
    orthanc_url="http://127.0.0.1:20002",
    orthanc_username="user",
    orthanc_password="canary",
)


def test_a_second_holder_is_told_who_the_first_is(tmp_path: Path) -> None:
    with (
        lock_data_dir(tmp_path, address="http://127.0.0.1:8000"),
        pytest.raises(DataDirInUse) as caught,
        lock_data_dir(tmp_path),
    ):
        pytest.fail("two holders")
    assert caught.value.message == (
        f"Process {os.getpid()} at http://127.0.0.1:8000 already uses the data directory "
        f"{tmp_path}. Stop it first, or choose another one with --data-dir."
    )


def test_a_data_directory_is_free_again_after_its_holder(tmp_path: Path) -> None:
    with lock_data_dir(tmp_path):
        pass
    with lock_data_dir(tmp_path):
        assert read_running_stores(tmp_path) is None


def test_running_stores_are_read_as_they_were_written(tmp_path: Path) -> None:
    running = RunningStores(pid=os.getpid(), address="http://127.0.0.1:8000", stores=_STORES)
    with lock_data_dir(tmp_path):
        write_running_stores(tmp_path, running)
        assert read_running_stores(tmp_path) == running
        assert (tmp_path / "stores.json").stat().st_mode & 0o777 == 0o600
    assert read_running_stores(tmp_path) is None
    assert not (tmp_path / "stores.json").exists()


def test_stores_that_a_killed_process_left_behind_do_not_count(tmp_path: Path) -> None:
    with lock_data_dir(tmp_path):
        pass
    write_running_stores(tmp_path, RunningStores(pid=1, address="", stores=_STORES))
    assert read_running_stores(tmp_path) is None
    with lock_data_dir(tmp_path):
        assert read_running_stores(tmp_path) is None


def test_a_data_directory_that_does_not_exist_has_no_running_stores(tmp_path: Path) -> None:
    assert read_running_stores(tmp_path / "nothing") is None


def test_passwords_are_not_printed_with_the_stores() -> None:
    assert "canary" not in repr(RunningStores(pid=1, address="", stores=_STORES))
