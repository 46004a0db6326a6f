import asyncio
import struct
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import ClassVar

import pytest
from pydicom.errors import BytesLengthException

from services.dicom.display import DisplayHeader, FrameDisplay, Window
from services.errors import OrthancTimedOut
from services.frames import records as displays
from services.frames.records import PresentationLoader
from services.orthanc.answers import StoredFile
from services.orthanc.client import OrthancClient
from tests.graph.routes.stage import IndexedInstance

CONTENT = bytes(1_000)


INSTANCE = IndexedInstance(window_center=3, window_width=4, has_complex_display=True)
INDEXED = FrameDisplay(windows=(Window(3, 4),))


class Orthanc(OrthancClient):
    """Gives the same file for every instance."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def stored_files(self, instance_ids: Sequence[str]) -> list[StoredFile]:
        return [
            StoredFile(
                instance_id=instance_id,
                series_id="its series",
                file_uuid="a name",
                file_size_bytes=len(CONTENT),
                metadata={},
            )
            for instance_id in instance_ids
        ]

    @asynccontextmanager
    async def instance_file(self, instance_id: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async def chunks() -> AsyncIterator[bytes]:
            yield CONTENT

        self.asked.append(instance_id)
        yield chunks()


class Header(DisplayHeader):
    """A header that tells which thread read a frame."""

    threads: ClassVar[list[int]] = []

    def __init__(self, header: bytes) -> None:
        super().__init__(header)
        self.threads.clear()

    def frame(self, frame_index: int) -> FrameDisplay:
        self.threads.append(threading.get_ident())
        return FrameDisplay(rescale_intercept=frame_index)


async def test_the_frames_of_a_cine_fetch_their_header_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(displays, "DisplayHeader", Header)
    catalogue = PresentationLoader(orthanc := Orthanc(), fetch_seconds=30)
    found = await asyncio.gather(*(catalogue.find(INSTANCE, index) for index in range(8)))
    assert [one.display.rescale_intercept for one in found] == list(range(8))
    assert orthanc.asked == [INSTANCE.id]
    assert len(Header.threads) == 8
    assert threading.get_ident() not in Header.threads


@pytest.mark.parametrize(("kept_bytes", "fetched"), [(0, "abab"), (10**6, "ab")])
async def test_headers_are_kept_as_far_as_memory_is_allowed(kept_bytes: int, fetched: str) -> None:
    catalogue = PresentationLoader(orthanc := Orthanc(), fetch_seconds=30, kept_bytes=kept_bytes)
    for name in "aabbaabb":
        await catalogue.find(replace(INSTANCE, id=name), 0)
    assert "".join(orthanc.asked) == fetched


async def test_a_header_that_takes_too_long_is_a_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stored_files(_instance_ids: Sequence[str]) -> list[StoredFile]:
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr(orthanc := Orthanc(), "stored_files", stored_files)
    with pytest.raises(OrthancTimedOut):
        await PresentationLoader(orthanc, fetch_seconds=0.01).find(INSTANCE, 0)


def raising(error: Exception) -> Callable[..., FrameDisplay]:
    def fail(*_given: object, **_options: object) -> FrameDisplay:
        raise error

    return fail


@pytest.fixture(
    params=[struct.error("x"), BytesLengthException("x"), OSError("x"), RecursionError("x")],
    ids=lambda error: type(error).__name__,
)
def fault(request: pytest.FixtureRequest) -> Exception:
    error: Exception = request.param
    return error


async def test_a_header_that_cannot_be_parsed_is_shown_by_the_index(
    fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(displays, "DisplayHeader", raising(fault))
    assert (
        await PresentationLoader(Orthanc(), fetch_seconds=30).find(INSTANCE, 0)
    ).display == INDEXED


async def test_a_frame_whose_groups_cannot_be_parsed_is_shown_by_the_index(
    fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DisplayHeader, "frame", raising(fault))
    assert (
        await PresentationLoader(Orthanc(), fetch_seconds=30).find(INSTANCE, 0)
    ).display == INDEXED
