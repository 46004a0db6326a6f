from pathlib import Path

from services.migration.path_map import PathMap


def test_a_path_map_replaces_whole_folder_names() -> None:
    paths = PathMap([("/data", "/mnt/old"), ("/other/", "/x/")])
    assert paths.resolve("/data/a/b.dcm") == Path("/mnt/old/a/b.dcm")
    assert paths.resolve("/database/b.dcm") == Path("/database/b.dcm")
    assert paths.resolve("/other/b.dcm") == Path("/x/b.dcm")
