"""dicomweb-client on our DICOMweb, with its own client of files as the oracle."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pydicom
import pytest
from dicomweb_client import DICOMfileClient, DICOMwebClient
from pydicom.dataset import Dataset
from requests.exceptions import HTTPError

from services.tasks import finish_in_thread
from tests.real.dicomweb_stage import ROOT, file_named, slices, store, uid
from tests.real.test_dicomweb_metadata import with_long_binaries
from tests.servers import RunningServer

_T = TypeVar("_T")

FILES = [
    *slices("P1", 4, series=2, StudyDate="20260101", PatientName="Doe^Jane", StudyID="S1"),
    *slices("P2", 2, StudyDate="20260202", PatientName="Roe^Ann", AccessionNumber="A2"),
    file_named("SC_rgb_2frame.dcm"),
    file_named("MR_small.dcm"),
    file_named("examples_rgb_color.dcm"),
]
P1, SERIES, INSTANCE = uid("P1"), uid("P1", 0), uid("P1", "instance", 0)

_NOT_COMPARED = {
    "00080005",  # of the answer: text is Unicode in both
    "00080056",
    "00081190",  # where it is
    "00280008",  # only where there are several
}


@pytest.fixture
async def clients(server: RunningServer, tmp_path: Path) -> tuple[DICOMwebClient, DICOMfileClient]:
    await store(server, FILES)
    folder = tmp_path / "files"
    folder.mkdir()
    for number, content in enumerate(FILES):
        (folder / f"{number}.dcm").write_bytes(content)

    def files() -> DICOMfileClient:
        return DICOMfileClient(f"file://{folder}", update_db=True, db_dir=tmp_path)

    return DICOMwebClient(f"{server.url}{ROOT}"), files()


async def both(
    clients: tuple[DICOMwebClient, DICOMfileClient], ask: Callable[[Any], _T]
) -> tuple[_T, _T]:
    """Ask our server from a thread, and the files."""
    web, files = clients
    return await finish_in_thread(ask, web), ask(files)


def by_uid(models: list[dict[str, Any]], tag: str) -> dict[str, dict[str, Any]]:
    return {model[tag]["Value"][0]: model for model in models}


def assert_the_same(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], tag: str) -> None:
    """Compare what was found: every value that both answer."""
    mine, oracle = by_uid(ours, tag), by_uid(theirs, tag)
    assert mine.keys() == oracle.keys()
    compared = 0
    for name, model in mine.items():
        for element in (model.keys() & oracle[name].keys()) - _NOT_COMPARED:
            wanted = [value for value in oracle[name][element].get("Value", []) if value != ""]
            assert model[element].get("Value", []) == wanted, (name, element)
            compared += 1
    assert compared > 3


@pytest.mark.parametrize(
    "search",
    [
        lambda client: client.search_for_studies(),
        lambda client: client.search_for_studies(search_filters={"PatientID": "P1"}),
        lambda client: client.search_for_studies(search_filters={"00100020": "P2"}),
        lambda client: client.search_for_studies(search_filters={"StudyDate": "20260101"}),
        lambda client: client.search_for_studies(fields=["StudyDescription"]),
    ],
)
async def test_studies_are_found(
    clients: tuple[DICOMwebClient, DICOMfileClient], search: Callable[[Any], Any]
) -> None:
    ours, theirs = await both(clients, search)
    assert_the_same(ours, theirs, "0020000D")


async def test_all_pages_are_found(clients: tuple[DICOMwebClient, DICOMfileClient]) -> None:
    web, files = clients
    ours = await finish_in_thread(
        lambda: web.search_for_studies(get_remaining=True, limit=2, offset=0)
    )
    assert_the_same(ours, files.search_for_studies(), "0020000D")


@pytest.mark.parametrize(
    "search",
    [
        lambda client: client.search_for_series(),
        lambda client: client.search_for_series(P1),
        lambda client: client.search_for_series(P1, search_filters={"SeriesNumber": 2}),
        lambda client: client.search_for_series(search_filters={"Modality": "CT"}),
    ],
)
async def test_series_are_found(
    clients: tuple[DICOMwebClient, DICOMfileClient], search: Callable[[Any], Any]
) -> None:
    ours, theirs = await both(clients, search)
    assert_the_same(ours, theirs, "0020000E")


@pytest.mark.parametrize(
    "search",
    [
        lambda client: client.search_for_instances(),
        lambda client: client.search_for_instances(P1),
        lambda client: client.search_for_instances(P1, SERIES),
        lambda client: client.search_for_instances(P1, search_filters={"InstanceNumber": 1}),
        lambda client: client.search_for_instances(search_filters={"SOPInstanceUID": INSTANCE}),
    ],
)
async def test_instances_are_found(
    clients: tuple[DICOMwebClient, DICOMfileClient], search: Callable[[Any], Any]
) -> None:
    ours, theirs = await both(clients, search)
    assert_the_same(ours, theirs, "00080018")


@pytest.mark.parametrize(
    "retrieve",
    [
        lambda client: client.retrieve_study(P1),
        lambda client: list(client.iter_study(P1)),
        lambda client: client.retrieve_series(P1, SERIES),
        lambda client: list(client.iter_series(P1, SERIES)),
        lambda client: [client.retrieve_instance(P1, SERIES, INSTANCE)],
    ],
)
async def test_files_are_retrieved(
    clients: tuple[DICOMwebClient, DICOMfileClient], retrieve: Callable[[Any], list[Dataset]]
) -> None:
    ours, theirs = await both(clients, retrieve)
    found = {one.SOPInstanceUID: one for one in ours}
    assert found == {one.SOPInstanceUID: one for one in theirs}


@pytest.mark.parametrize(
    "retrieve",
    [
        lambda client: client.retrieve_study_metadata(P1),
        lambda client: client.retrieve_series_metadata(P1, SERIES),
        lambda client: [client.retrieve_instance_metadata(P1, SERIES, INSTANCE)],
    ],
)
async def test_metadata_are_those_of_the_files(
    clients: tuple[DICOMwebClient, DICOMfileClient], retrieve: Callable[[Any], Any]
) -> None:
    ours, theirs = await both(clients, retrieve)
    mine, oracle = by_uid(ours, "00080018"), by_uid(theirs, "00080018")
    assert mine.keys() == oracle.keys()
    for name, model in mine.items():
        public = {tag for tag in oracle[name] if int(tag[:4], 16) % 2 == 0 and tag < "7FE0"}
        public = {tag for tag in public if not tag.endswith("0000")}
        assert {tag for tag in model if int(tag[:4], 16) % 2 == 0} == public
        ours_read, theirs_read = Dataset.from_json(model), Dataset.from_json(oracle[name])
        for tag in public - _NOT_COMPARED:
            assert ours_read[tag].value == theirs_read[tag].value, tag


def _path(dataset: Dataset) -> tuple[str, str, str]:
    return dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID


@pytest.mark.parametrize("name", ["SC_rgb_2frame.dcm", "MR_small.dcm", "examples_rgb_color.dcm"])
async def test_frames_are_retrieved(
    clients: tuple[DICOMwebClient, DICOMfileClient], name: str
) -> None:
    dataset = pydicom.dcmread(io.BytesIO(file_named(name)))
    numbers = [1] if "NumberOfFrames" not in dataset else [2, 1]
    path = _path(dataset)
    size = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated // 8

    def frames(client: Any) -> list[bytes]:  # noqa: ANN401  # both clients have it
        return list(client.retrieve_instance_frames(*path, frame_numbers=numbers))

    def iterated(client: Any) -> list[bytes]:  # noqa: ANN401
        return list(client.iter_instance_frames(*path, frame_numbers=numbers))

    for ask in (frames, iterated):
        ours, theirs = await both(clients, ask)
        # The file client takes what stands behind the last frame of a file for pixels.
        assert [bytes(one) for one in ours] == [one[:size] for one in theirs]
    octets = ("application/octet-stream",)
    web, _ = clients
    again = await finish_in_thread(web.retrieve_instance_frames, *path, numbers, octets)
    assert again == ours


async def test_pictures_are_retrieved(clients: tuple[DICOMwebClient, DICOMfileClient]) -> None:
    web, _ = clients
    png = ("image/png",)

    def pictures() -> Iterator[Any]:
        yield web.retrieve_instance_rendered(P1, SERIES, INSTANCE, png)
        yield web.retrieve_instance_frames_rendered(P1, SERIES, INSTANCE, [1], png)
        yield web.retrieve_series_rendered(P1, SERIES, png)
        yield web.retrieve_instance_rendered(P1, SERIES, INSTANCE, ("image/jpeg",))

    for picture in await finish_in_thread(lambda: list(pictures())):
        assert picture[:4] in {b"\x89PNG", b"\xff\xd8\xff\xfe"}


async def test_files_are_stored_and_bulk_data_are_retrieved(server: RunningServer) -> None:
    web = DICOMwebClient(f"{server.url}{ROOT}")
    dataset = pydicom.dcmread(io.BytesIO(with_long_binaries()))
    answer = await finish_in_thread(web.store_instances, [dataset])
    assert answer.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == dataset.SOPInstanceUID
    model = await finish_in_thread(web.retrieve_instance_metadata, *_path(dataset))
    # The client leaves the port out of `Host`, and so does the address: PUBLIC_URL tells it.
    address = server.url + urlsplit(model["00091010"]["BulkDataURI"]).path
    for value in (
        await finish_in_thread(web.retrieve_bulkdata, address),
        await finish_in_thread(lambda: list(web.iter_bulkdata(address))),
    ):
        assert value == [b"\2" * 70_000]


async def test_nothing_is_deleted(clients: tuple[DICOMwebClient, DICOMfileClient]) -> None:
    web, _ = clients
    for delete in (
        lambda: web.delete_study(P1),
        lambda: web.delete_series(P1, SERIES),
        lambda: web.delete_instance(P1, SERIES, INSTANCE),
    ):
        with pytest.raises(HTTPError):
            await finish_in_thread(delete)
    assert len(await finish_in_thread(web.search_for_instances, P1)) == 4


async def test_names_are_looked_up(clients: tuple[DICOMwebClient, DICOMfileClient]) -> None:
    ours, theirs = await both(
        clients, lambda client: (client.lookup_tag("PatientID"), client.lookup_keyword("00100020"))
    )
    assert ours == theirs == ("00100020", "PatientID")


def test_every_public_method_is_asked() -> None:
    methods = {
        name
        for name in dir(DICOMwebClient)
        if not name.startswith("_") and callable(getattr(DICOMwebClient, name))
    }
    source = Path(__file__).read_text(encoding="utf-8")
    local = {"set_chunk_size", "set_http_retry_params"}
    assert {name for name in methods - local if f".{name}" not in source} == set()
