from pathlib import Path

from services.migration.path_map import PathMap


def test_a_path_map_replaces_whole_folder_names() -> None:
    paths = PathMap([("/data", "/mnt/old"), ("/other/", "/x/")])
    assert paths.resolve("/data/a/b.dcm") == Path("/mnt/old/a/b.dcm")
    assert paths.resolve("/database/b.dcm") == Path("/database/b.dcm")
    assert paths.resolve("/other/b.dcm") == Path("/x/b.dcm")


def test_a_path_map_moves_the_root_of_a_disk() -> None:
    assert PathMap([("/", "/mnt/old")]).resolve("/data/b.dcm") == Path("/mnt/old/data/b.dcm")
    assert PathMap([("/mnt", "/")]).resolve("/mnt/data/b.dcm") == Path("/data/b.dcm")
