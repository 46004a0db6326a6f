from collections.abc import Callable
from unittest.mock import AsyncMock

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import get_frame
from pydicom.uid import JPEG2000Lossless

from services.errors import FrameQuarantined, OrthancError, OrthancNotFound, OrthancUnavailable
from services.frames.pixels import check_codestream
from services.orthanc.frames import OrthancFrames
from tests.graph.routes.stage import INSTANCE_ID, IndexedInstance

DATASET = dcmread(str(get_testdata_file("JPEG2000.dcm", download=False)))
FRAME = get_frame(DATASET.PixelData, 0)


def frames_of(content: bytes | OrthancError) -> AsyncMock:
    async def get(
        instance_id: str, frame_index: int, route: str, use: Callable[[bytes], object]
    ) -> object:
        assert (instance_id, frame_index, route) == (INSTANCE_ID, 3, "raw")
        if isinstance(content, OrthancError):
            raise content
        return use(content)

    frames = AsyncMock(spec=OrthancFrames)
    frames.get.side_effect = get
    return frames


def instance(
    rows: int = DATASET.Rows,
    columns: int = DATASET.Columns,
    syntax: str | None = JPEG2000Lossless,
) -> IndexedInstance:
    return IndexedInstance(rows=rows, columns=columns, transfer_syntax_uid=syntax)


async def test_a_frame_of_the_size_of_its_instance_passes() -> None:
    await check_codestream(frames_of(FRAME), instance(), 3)


@pytest.mark.parametrize(
    ("content", "refused"),
    [
        (FRAME, instance(rows=DATASET.Rows - 1)),
        (FRAME, instance(columns=DATASET.Columns + 1)),
        (b"no codestream", instance()),
        (OrthancError(), instance()),
    ],
)
async def test_a_frame_of_another_size_or_of_none_is_quarantined(
    content: bytes | OrthancError, refused: IndexedInstance
) -> None:
    with pytest.raises(FrameQuarantined, match="JPEG 2000"):
        await check_codestream(frames_of(content), refused, 3)


@pytest.mark.parametrize("error", [OrthancNotFound(), OrthancUnavailable()])
async def test_an_orthanc_that_gives_no_frame_says_nothing_about_it(error: OrthancError) -> None:
    with pytest.raises(type(error)):
        await check_codestream(frames_of(error), instance(), 3)


@pytest.mark.parametrize("syntax", [None, "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"])
async def test_other_transfer_syntaxes_cost_no_call(syntax: str | None) -> None:
    frames = frames_of(b"")
    await check_codestream(frames, instance(syntax=syntax), 3)
    frames.get.assert_not_awaited()
