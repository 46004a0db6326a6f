"""What the index says of a frame's display is what the header of its file says."""

import io
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from pydicom import Dataset, dcmwrite
from pydicom.config import disable_value_validation
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    XRayAngiographicImageStorage,
)

from services.dicom.checking import check_file
from services.dicom.display import DisplayHeader, FrameDisplay, PixelDescription
from services.dicom.header import ImageModule
from services.frames.records import indexed_presentation
from tests.services.frames.test_pipeline_wrong_pictures import COLUMNS, ROWS, made, rle

if TYPE_CHECKING:
    from models import InstanceDocument

BYTES = np.zeros((ROWS, COLUMNS), np.uint8)
WORDS = BYTES.astype("<u2")
with disable_value_validation():
    SHAPE_IN_SMALL_LETTERS = made(WORDS, PresentationLUTShape="inverse")
SMALL_LETTERS = pytest.mark.filterwarnings("ignore:Invalid value for VR CS:UserWarning")
COLOURS = np.zeros((ROWS, COLUMNS, 3), np.uint8)


def said(dataset: Dataset) -> tuple[bool, tuple[PixelDescription, FrameDisplay], Any]:
    """Return whether the index is not enough, what it says, and what the header says."""
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2", "1.2.4"
    stream = io.BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    content = stream.getvalue()
    checked = check_file(io.BytesIO(content))
    assert checked.number_of_frames == 1, checked.not_renderable_reason
    image = checked.header.image
    attributes = {field.name: getattr(image, field.name) for field in fields(ImageModule)}
    instance = SimpleNamespace(**attributes, transfer_syntax_uid=checked.header.transfer_syntax_uid)
    indexed = indexed_presentation(cast("InstanceDocument", instance))
    header = DisplayHeader(content)
    description, display = header.description(), header.frame(0)
    if not description.is_big_endian:
        # The VR of the pixel data matters in big-endian files alone.
        description = replace(description, is_stored_in_words=False)
    return (
        image.has_complex_display,
        (indexed.description, indexed.display),
        # Windows but the first change no picture.
        (description, replace(display, windows=display.windows[:1])),
    )


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"WindowCenter": 40, "WindowWidth": 400},
        {"WindowCenter": [40, 100], "WindowWidth": [0, 500]},
        {"WindowCenter": [None, 100], "WindowWidth": [80, 500]},
        {"WindowCenter": [40, 100], "WindowWidth": 80},
        {"WindowCenter": 40, "WindowWidth": -1},
        {"WindowCenter": 40},
        {"WindowCenter": 0.25, "WindowWidth": 0.5, "VOILUTFunction": "SIGMOID"},
        {"RescaleSlope": 0, "RescaleIntercept": -1024},
        {"RescaleSlope": "-2.5", "RescaleIntercept": "1e2"},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PixelRepresentation": 1, "bits_stored": 12},
    ],
)
def test_of_plain_images_the_index_says_all(attributes: dict[str, Any]) -> None:
    is_complex, indexed, header = said(made(WORDS, **attributes))
    assert not is_complex
    assert indexed == header


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_of_plain_colours_the_index_says_all(syntax: str) -> None:
    pixels = rle([BYTES] * 3) if syntax == RLELossless else None
    is_complex, indexed, header = said(made(COLOURS, syntax=syntax, pixels=pixels))
    assert not is_complex
    assert indexed == header


@pytest.mark.parametrize(
    "dataset",
    [
        made(BYTES, syntax=ExplicitVRBigEndian),
        made(COLOURS, syntax=ExplicitVRBigEndian),
        made(COLOURS, PlanarConfiguration=1),
        made(WORDS, PresentationLUTShape="INVERSE"),
        made(WORDS, SOPClassUID=XRayAngiographicImageStorage, RescaleSlope=2, RescaleIntercept=0),
        pytest.param(SHAPE_IN_SMALL_LETTERS, marks=SMALL_LETTERS),
        made(WORDS, bits_stored=12, HighBit=15),
    ],
)
def test_where_the_header_is_needed_the_index_says_so(dataset: Dataset) -> None:
    assert said(dataset)[0]
