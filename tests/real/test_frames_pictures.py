"""Every file of pydicom and pydicom-data that is renderable, beside pydicom's own picture."""

import asyncio
import io
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, fields
from pathlib import Path

import data_store  # type: ignore[import-untyped]  # a folder of files
import httpx
import numpy as np
import pydicom
import pytest

from services.dicom.checking import check_file
from services.dicom.parser import walk
from services.dicom.patient_override import PatientOverride
from services.dicom.rewriting import prepare
from services.embedded.orthanc import EmbeddedOrthanc
from services.errors import FileRejected, FrameNotRenderable
from services.frames.records import RenderableInstance
from services.frames.service import FrameService, open_frames
from services.frames.signing import FrameUrlKeys, FrameUrlSigner
from services.frames.variant import FrameVariant
from services.orthanc.client import OrthancClient
from services.orthanc.connection_pool import ConnectionPool
from services.orthanc.endpoints import Endpoint, Endpoints
from services.orthanc.frames import Fetch, OrthancFrames
from services.orthanc.transport import open_http_client
from tests.graph.routes.stage import NoCrashes
from tests.pydicom_pictures import DEFAULT, decoded, expected, read

_FOLDERS = (
    Path(pydicom.__file__).parent / "data" / "test_files",
    Path(data_store.__file__).parent / "data",
)
_DECODE_SECONDS = 30
# Some of the files are wrong on purpose, and pydicom says so.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

FULL = FrameVariant(full_range=True)

NOT_DECODED_BY_PYDICOM = {"JPEG-lossy.dcm", "JPGExtended.dcm"}
"""JPEG of 12 bits, which GDCM refuses."""

PLAIN = {
    name: _FOLDERS[1] / name.replace("_expb", "")
    for name in ("OBXXXX1A_expb.dcm", "OBXXXX1A_expb_2frame.dcm")
}
"""Palettes in big-endian files, which pydicom reads as little-endian, by the same ones that are."""


async def nothing_follows(_: RenderableInstance, __: int) -> list[RenderableInstance]:
    return []


async def nothing_is_indexed(_: str) -> RenderableInstance | None:
    return None


@asynccontextmanager
async def opened_frames(
    orthanc: EmbeddedOrthanc, client: OrthancClient, fetch: Fetch | None = None
) -> AsyncIterator[FrameService]:
    signer = FrameUrlSigner(FrameUrlKeys((("k1", bytes(32)),)))
    kept = ConnectionPool(
        orthanc.url, orthanc.username, orthanc.password, timeout_seconds=_DECODE_SECONDS
    )
    with ThreadPoolExecutor(4) as threads, closing(kept):
        sources = OrthancFrames(Endpoints(Endpoint(fetch or kept.get)), threads)
        async with open_frames(
            signer,
            client,
            sources,
            find=nothing_is_indexed,
            following=nothing_follows,
            records=NoCrashes(),
        ) as frames:
            yield frames


@dataclass
class Instance:
    id: str
    number_of_frames: int
    rows: int | None
    columns: int | None
    samples_per_pixel: int | None
    bits_allocated: int | None
    bits_stored: int | None
    pixel_representation: int | None
    photometric_interpretation: str | None
    window_center: float | None
    window_width: float | None
    voi_lut_function: str | None
    rescale_slope: float | None
    rescale_intercept: float | None
    has_complex_display: bool
    transfer_syntax_uid: str | None
    file_size_bytes: int
    revision: str = "deadbeef"
    orthanc_series_id: str = "alone"
    instance_number: int | None = None
    use_orthanc_preview: bool = True
    not_renderable_reason: str | None = None


@dataclass(frozen=True)
class Stage:
    http: httpx.AsyncClient
    client: OrthancClient
    frames: FrameService
    files: dict[Path, RenderableInstance]


def read_instance(instance_id: str, content: bytes) -> Instance | None:
    """Read an instance as uploads are read; None for what is rejected."""
    try:
        checked = check_file(io.BytesIO(content))
    except FileRejected:
        return None
    image = checked.header.image
    return Instance(
        id=instance_id,
        number_of_frames=checked.number_of_frames,
        transfer_syntax_uid=checked.header.transfer_syntax_uid,
        file_size_bytes=len(content),
        not_renderable_reason=checked.not_renderable_reason,
        **{
            field.name: getattr(image, field.name)
            for field in fields(Instance)
            if field.name != "number_of_frames" and hasattr(image, field.name)
        },
    )


def parts() -> list[Path]:
    paths = (path for folder in _FOLDERS for path in sorted(folder.rglob("*")))
    return [path for path in paths if path.is_file() and path.suffix in ("", ".dcm")]


def for_a_patient_of_its_own(content: bytes, patient_id: str) -> bytes | None:
    """Write another PatientID: several of the files have one set of UIDs. None: rejected."""
    file = io.BytesIO(content)
    try:
        layout = walk(file)
        prepared = prepare(file, layout, override=PatientOverride(patient_id=patient_id))
    except FileRejected:
        return None
    return b"".join(prepared.chunks())


@pytest.fixture(scope="module")
async def stage(orthanc: EmbeddedOrthanc) -> AsyncIterator[Stage]:
    async with open_http_client(orthanc.url, orthanc.username, orthanc.password) as http:
        client = OrthancClient(http)
        files: dict[Path, RenderableInstance] = {}
        for number, path in enumerate(parts()):
            content = for_a_patient_of_its_own(path.read_bytes(), f"PICTURES-{number}")
            if content is None:
                continue
            answer = await http.post("/instances", content=content)
            instance = read_instance(answer.json()["ID"], content) if answer.is_success else None
            if instance is not None and instance.number_of_frames:
                files[path] = instance
        async with opened_frames(orthanc, client) as frames:
            yield Stage(http, client, frames, files)


@pytest.mark.no_cover
@pytest.mark.parametrize("variant", [DEFAULT, FULL], ids=["default", "full range"])
async def test_first_and_last_frames_of_what_is_renderable_equal_those_of_pydicom(
    stage: Stage, variant: FrameVariant
) -> None:
    compared: set[Path] = set()
    wrong: list[str] = []
    for path, instance in stage.files.items():
        for frame_index in {0, instance.number_of_frames - 1}:
            try:
                ours = decoded((await stage.frames.render(instance, frame_index, variant)).content)
            except FrameNotRenderable as exc:
                wrong.append(f"{path.name} {frame_index}: {exc} {exc.detail}")
                continue
            if path.name in NOT_DECODED_BY_PYDICOM:
                continue
            dataset = read(PLAIN.get(path.name, path))
            if path.name == "badVR.dcm":
                # "1A", which stops pydicom.
                dataset.NumberOfFrames = 1
            theirs = expected(dataset, frame_index, variant)
            difference = np.abs(ours - theirs).max() if ours.shape == theirs.shape else None
            if difference is None or difference > 1:
                wrong.append(f"{path.name} {frame_index}: {difference}")
            compared.add(path)
    assert wrong == []
    assert len(compared) >= 110


async def test_200_simultaneous_requests_are_one_call_to_orthanc(
    orthanc: EmbeddedOrthanc, stage: Stage
) -> None:
    instance = next(iter(stage.files.values()))
    asked: list[str] = []
    kept = ConnectionPool(
        orthanc.url, orthanc.username, orthanc.password, timeout_seconds=_DECODE_SECONDS
    )

    def fetch(path: str) -> bytes:
        asked.append(path)
        return kept.get(path)

    with closing(kept):
        async with opened_frames(orthanc, stage.client, fetch) as frames:
            pictures = await asyncio.gather(*(frames.render(instance, 0, FULL) for _ in range(200)))
    assert len(set(map(id, pictures))) == 1
    assert len(asked) == 1
