"""WADO-RS frames and rendered pictures on real stores."""

import io
from collections.abc import Mapping
from email.parser import BytesParser
from typing import Any

import cv2
import httpx
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder

from models import InstanceDocument
from services.auth.scope import ALL
from services.dicomweb.resources import Resources
from services.embedded.orthanc import EmbeddedOrthanc
from services.errors import NotFound
from tests.real.dicomweb_stage import ROOT, file_named, slices, store
from tests.servers import RunningServer


@pytest.fixture
def server(shared_server: RunningServer, empty_orthanc: EmbeddedOrthanc) -> RunningServer:
    """One for all: some files have the same UIDs, so Orthanc forgets those before."""
    del empty_orthanc
    return shared_server


STORED = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
DECODED = 'multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.1'


def path_of(dataset: Dataset) -> str:
    return (
        f"{ROOT}/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}"
        f"/instances/{dataset.SOPInstanceUID}"
    )


async def opened(server: RunningServer, name: str) -> Dataset:
    content = file_named(name)
    await store(server, [content])
    return pydicom.dcmread(io.BytesIO(content))


async def fetched(server: RunningServer, path: str, accept: str | None = None) -> httpx.Response:
    headers = {} if accept is None else {"Accept": accept}
    answer = await server.http.get(path, headers=headers)
    assert answer.status_code == 200, (path, answer.text)
    return answer


def parts_of(answer: httpx.Response) -> list[tuple[str, bytes]]:
    """Read a multipart body with the parser of the standard library."""
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + answer.content)
    parts = []
    boundary = message.get_boundary()
    assert boundary is not None
    for part in answer.content.split(f"--{boundary}".encode())[1:-1]:
        header, _, body = part.partition(b"\r\n\r\n")
        parts.append((header.decode().removeprefix("\r\nContent-Type: "), body[:-2]))
    assert answer.content.endswith(f"--{boundary}--\r\n".encode())
    return parts


async def test_instances_of_a_series_are_looked_up_together(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = [pydicom.dcmread(io.BytesIO(file)) for file in slices("TOGETHER", 8)]
    await store(server, slices("TOGETHER", 8))
    asked: list[str] = []
    actual = Resources._instances_of

    async def counting(self: Resources, series_id: str) -> dict[str, Mapping[str, Any]]:
        asked.append(series_id)
        return await actual(self, series_id)

    async def find(resources: Resources, dataset: Dataset) -> InstanceDocument:
        uids = dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID
        return await resources.instance(*uids, ALL)

    monkeypatch.setattr(Resources, "_instances_of", counting)
    resources = Resources(max_seconds=60, clock=lambda: 0.0)
    found = [await find(resources, dataset) for dataset in datasets]
    assert [one.sop_instance_uid for one in found] == [one.SOPInstanceUID for one in datasets]
    assert found[0].model_dump(exclude=UNUSED) == (await find(resources, datasets[0])).model_dump(
        exclude=UNUSED
    )
    assert len(asked) == 1
    for dataset in datasets:
        await find(server.runtime.resources, dataset)
    await server.runtime.indexer.remove([found[7].id])
    with pytest.raises(NotFound):
        await find(server.runtime.resources, datasets[7])
    assert (await find(server.runtime.resources, datasets[6])).id == found[6].id


UNUSED = {
    *("study_attributes", "series_attributes"),
    *("stack_key", "grouped_stack_key", "time_key", "number_key"),
}
"""Fields that are not read of many."""


@pytest.mark.parametrize(
    "name",
    [
        "JPEG2000.dcm",
        "emri_small_jpeg_2k_lossless.dcm",
        "emri_small_jpeg_ls_lossless.dcm",
        "MR_small_RLE.dcm",
        "JPGLosslessP14SV1_1s_1f_8b.dcm",
        "color3d_jpeg_baseline.dcm",
    ],
)
async def test_encoded_frames_come_as_stored_or_decoded(server: RunningServer, name: str) -> None:
    dataset = await opened(server, name)
    syntax = dataset.file_meta.TransferSyntaxUID
    count = int(dataset.get("NumberOfFrames", 1))
    path = f"{path_of(dataset)}/frames/{count}"
    ((content_type, stored),) = parts_of(await fetched(server, path, STORED))
    assert content_type == f"application/octet-stream; transfer-syntax={syntax}"
    expected = get_frame(dataset.PixelData, count - 1, number_of_frames=count)
    assert stored.rstrip(b"\0") == expected.rstrip(b"\0")
    for accept in (DECODED, 'multipart/related; type="application/octet-stream"'):
        ((content_type, decoded),) = parts_of(await fetched(server, path, accept))
        assert content_type == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
        theirs = get_decoder(syntax).as_array(dataset, raw=True, index=count - 1)[0]
        ours = np.frombuffer(decoded, theirs.dtype).reshape(theirs.shape)
        if "YBR" in dataset.PhotometricInterpretation or theirs.ndim == 3:
            assert ours.shape == theirs.shape
        else:
            assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "emri_small_big_endian.dcm",
        "SC_rgb_expb_16bit_2frame.dcm",
        "OBXXXX1A_expb_2frame.dcm",
        "rtdose.dcm",
        "liver.dcm",
        "image_dfl.dcm",
    ],
)
async def test_native_frames_are_little_endian(server: RunningServer, name: str) -> None:
    dataset = await opened(server, name)
    count = int(dataset.get("NumberOfFrames", 1))
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    for accept in (None, STORED, DECODED, 'multipart/related; type="*/*"', "multipart/related"):
        answer = await fetched(server, f"{path_of(dataset)}/frames/{count}", accept)
        ((content_type, frame),) = parts_of(answer)
        assert content_type == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
        theirs = decoder.as_array(dataset, raw=True, index=count - 1)[0]
        if dataset.BitsAllocated == 1:
            bits = np.unpackbits(np.frombuffer(frame, np.uint8), bitorder="little")
            ours = bits[: theirs.size].reshape(theirs.shape)
        else:
            ours = np.frombuffer(frame, theirs.dtype.newbyteorder("<")).reshape(theirs.shape)
        assert np.array_equal(ours, theirs)


async def test_several_frames_and_a_single_part(server: RunningServer) -> None:
    dataset = await opened(server, "rtdose.dcm")
    path = f"{path_of(dataset)}/frames"
    parts = parts_of(await fetched(server, f"{path}/3,1,3", STORED))
    assert [len(body) for _, body in parts] == [400, 400, 400]
    assert parts[0] == parts[2] != parts[1]
    alone = await fetched(server, f"{path}/3", "application/octet-stream")
    assert alone.content == parts[0][1]
    assert alone.headers["content-type"] == (
        "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
    )
    known = await server.http.get(
        f"{path}/3",
        headers={"Accept": "application/octet-stream", "If-None-Match": alone.headers["etag"]},
    )
    assert known.status_code == 304


@pytest.mark.parametrize(
    ("frames", "accept", "status"),
    [
        ("0", STORED, 404),
        ("2", STORED, 404),
        ("1,2", STORED, 404),
        ("x", STORED, 400),
        ("1,", STORED, 400),
        ("-1", STORED, 400),
        ("1", "image/jpeg", 406),
        ("1", 'multipart/related; type="application/octet-stream"; transfer-syntax=1.2.3', 406),
        ("1,1", "application/octet-stream", 406),
    ],
)
async def test_what_is_not_there_or_not_accepted(
    server: RunningServer, frames: str, accept: str, status: int
) -> None:
    dataset = await opened(server, "CT_small.dcm")
    answer = await server.http.get(
        f"{path_of(dataset)}/frames/{frames}", headers={"Accept": accept}
    )
    assert answer.status_code == status


async def test_a_stored_jpeg_can_be_asked_for_by_its_media_type(server: RunningServer) -> None:
    dataset = await opened(server, "JPEG-lossy.dcm")
    accept = 'multipart/related; type="image/jpeg"'
    ((content_type, frame),) = parts_of(
        await fetched(server, f"{path_of(dataset)}/frames/1", accept)
    )
    assert content_type == f"image/jpeg; transfer-syntax={dataset.file_meta.TransferSyntaxUID}"
    assert frame.startswith(b"\xff\xd8")


def shape_of(answer: httpx.Response) -> tuple[int, ...]:
    read = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert read is not None
    shape: tuple[int, ...] = read.shape
    return shape


async def test_pictures_are_those_of_the_renderer(server: RunningServer) -> None:
    dataset = await opened(server, "CT_small.dcm")
    path = path_of(dataset)
    jpeg = await fetched(server, f"{path}/rendered")
    assert jpeg.headers["content-type"] == "image/jpeg"
    png = await fetched(server, f"{path}/frames/1/rendered", "image/png")
    assert shape_of(png) == (128, 128)
    by_parameter = await fetched(server, f"{path}/rendered?accept=image/png", "image/jpeg")
    assert by_parameter.content == png.content
    windowed = await fetched(server, f"{path}/rendered?window=40,80&accept=image/png")
    same = await fetched(server, f"{path}/rendered?window=39.5,79,linear-exact&accept=image/png")
    assert windowed.content == same.content != png.content
    small = await fetched(server, f"{path}/rendered?viewport=64,32&accept=image/png")
    assert shape_of(small) == (32, 32)
    rough = await fetched(server, f"{path}/rendered?quality=10")
    assert len(rough.content) < len(jpeg.content)
    for level in (path, path.partition("/instances")[0], path.partition("/series")[0]):
        thumbnail = await fetched(server, f"{level}/thumbnail?accept=image/jpeg")
        assert shape_of(thumbnail) == (128, 128)
    known = await server.http.get(
        f"{path}/rendered", headers={"If-None-Match": jpeg.headers["etag"]}
    )
    assert known.status_code == 304


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("window=40", 400),
        ("window=40,80,cubic", 400),
        ("window=40,80,sigmoid", 400),
        ("window=nan,80", 400),
        ("window=40,0", 400),
        ("viewport=0,5", 400),
        ("viewport=10,10,0,0,5,5", 400),
        ("quality=0", 400),
        ("quality=high", 400),
        ("accept=image/gif", 406),
    ],
)
async def test_wrong_parameters_of_pictures_are_refused(
    server: RunningServer, query: str, status: int
) -> None:
    dataset = await opened(server, "CT_small.dcm")
    answer = await server.http.get(f"{path_of(dataset)}/rendered?{query}")
    assert answer.status_code == status


async def test_what_has_no_pixels_has_no_picture(server: RunningServer) -> None:
    dataset = await opened(server, "reportsi.dcm")
    assert (await server.http.get(f"{path_of(dataset)}/rendered")).status_code == 415
    assert (await server.http.get(f"{path_of(dataset)}/frames/1")).status_code == 415
    series = path_of(dataset).partition("/instances")[0]
    assert (await server.http.get(f"{series}/thumbnail")).status_code == 404


async def test_images_of_a_study_have_one_record(server: RunningServer) -> None:
    [content] = slices("viewed", 1)
    await store(server, [content])
    dataset = pydicom.dcmread(io.BytesIO(content))
    audit, views = server.runtime.database["audit"], {"action": "view"}
    await server.runtime.audit.flush()
    before = await audit.count_documents(views)
    for _ in range(3):
        await fetched(server, f"{path_of(dataset)}/frames/1")
        await fetched(server, f"{path_of(dataset)}/rendered")
    await server.runtime.audit.flush()
    assert await audit.count_documents(views) == before + 1
