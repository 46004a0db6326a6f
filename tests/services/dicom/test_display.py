import io
import subprocess
import sys

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from services.dicom.display import DisplayHeader, FrameDisplay, Window

READ_A_WRONG_HEADER = """
import logging, sys
logging.basicConfig()
from services.dicom.display import DisplayHeader
import pydicom
header = DisplayHeader(sys.stdin.buffer.read())
assert header.frame(0).windows == ()
assert "SECRET" in str(header._dataset.StudyInstanceUID)
"""


def written(dataset: Dataset) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=False, little_endian=True, implicit_vr=False)
    return bytes(128) + b"DICM" + stream.getvalue().removeprefix(bytes(128) + b"DICM")


def group(keyword: str, **values: object) -> Dataset:
    item, outer = Dataset(), Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    setattr(outer, keyword, Sequence([item]))
    return outer


def enhanced() -> Dataset:
    dataset = Dataset()
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.WindowCenter, dataset.WindowWidth = 1, 2
    shared = group("FrameVOILUTSequence", WindowCenter=40, WindowWidth=400)
    shared.update(group("PixelValueTransformationSequence", RescaleSlope=2, RescaleIntercept=-1024))
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    own = group("FrameVOILUTSequence", WindowCenter=50, WindowWidth=350)
    dataset.PerFrameFunctionalGroupsSequence = Sequence([own, Dataset()])
    return dataset


@pytest.mark.parametrize(
    ("frame_index", "window"), [(0, Window(50, 350)), (1, Window(40, 400)), (7, Window(40, 400))]
)
def test_a_frames_own_group_goes_before_the_shared_one_and_both_before_the_dataset(
    frame_index: int, window: Window
) -> None:
    header = DisplayHeader(written(enhanced()))
    assert header.frame(frame_index) == FrameDisplay(
        is_inverted=True, rescale_slope=2, rescale_intercept=-1024, windows=(window,)
    )


def test_a_frames_group_brings_its_own_lookup_table() -> None:
    dataset = enhanced()
    dataset.VOILUTSequence = Sequence([table(1)])
    own = group("FrameVOILUTSequence", VOILUTSequence=Sequence([table(7)]))
    dataset.PerFrameFunctionalGroupsSequence = Sequence([own])
    header = DisplayHeader(written(dataset))
    [found] = header.frame(0).voi_luts
    assert found.first_mapped == 7
    # The shared group has a window and no table: the dataset's does not belong to it.
    assert header.frame(1).voi_luts == ()


def table(first_mapped: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4, first_mapped, 16])
    item.add_new("LUTData", "OW", bytes(8))
    return item


def test_a_header_without_groups_speaks_for_all_frames() -> None:
    dataset = Dataset()
    dataset.WindowCenter, dataset.WindowWidth = [10, 20], [30, 40]
    assert DisplayHeader(written(dataset)).frame(3) == FrameDisplay(
        windows=(Window(10, 30), Window(20, 40))
    )


def test_values_of_headers_never_reach_the_log() -> None:
    uid = b"SECRET^NAME "
    element = b"\x20\x00\x0d\x00UI" + len(uid).to_bytes(2, "little") + uid
    content = written(Dataset()) + element
    done = subprocess.run(  # noqa: S603  # our own interpreter and text
        [sys.executable, "-W", "default", "-c", READ_A_WRONG_HEADER],
        input=content,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
