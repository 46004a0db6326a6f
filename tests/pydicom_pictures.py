"""Pictures as pydicom makes them: what ours are compared with."""

import io
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.pixels.processing import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi,
    apply_windowing,
)
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from services.dicom.display import DisplayHeader, PixelDescription
from services.dicom.pixel_support import format_fault
from services.errors import FrameNotRenderable
from services.frames.rendering import RenderRequest, render_frame
from services.frames.variant import FrameVariant

Levels = npt.NDArray[np.float64]

DEFAULT = FrameVariant()
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def has_pixels(dataset: Dataset) -> bool:
    return any(keyword in dataset for keyword in _PIXELS)


def decoded(picture: bytes) -> npt.NDArray[np.int64]:
    """Return the levels of a PNG or JPEG; colours in the order of OpenCV."""
    shown = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown is not None
    return np.asarray(shown).astype(np.int64)


def written(dataset: Dataset) -> bytes:
    """Return a dataset as a file; deflated ones as they are once inflated."""
    copied = deepcopy(dataset)
    if copied.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        copied.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = io.BytesIO()
    copied.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def render(
    dataset: Dataset,
    frame_index: int = 0,
    variant: FrameVariant = DEFAULT,
    *,
    content: bytes | None = None,
) -> npt.NDArray[np.int64]:
    """Render a frame, 0-based, of a dataset by our own decoders and display.

    Args:
        dataset: With its pixels.
        frame_index: 0-based.
        variant: How to show it.
        content: The file that the dataset is from; made of it when None.

    Raises:
        FrameNotRenderable: As `render_frame`, and for what `format_fault` says.
    """
    header = DisplayHeader(content or written(dataset))
    description = header.description(str(dataset.file_meta.TransferSyntaxUID))
    fault = format_fault(description)
    if fault is not None:
        raise FrameNotRenderable(fault)
    frame, bit_offset = stored_frame(dataset, description, frame_index)
    request = RenderRequest(frame, description, header.frame(frame_index), variant, bit_offset)
    return decoded(render_frame(request))


def stored_frame(
    dataset: Dataset, description: PixelDescription, frame_index: int
) -> tuple[bytes, int]:
    value = next(dataset[keyword].value for keyword in _PIXELS if keyword in dataset)
    if description.is_native:
        span = description.frame_span(frame_index)
        return value[span.begin : span.end], span.bit_offset
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    return get_frame(value, frame_index, number_of_frames=frames), 0


def expected(dataset: Dataset, frame_index: int = 0, variant: FrameVariant = DEFAULT) -> Levels:
    """Return a frame, 0-based, as pydicom decodes and shows it; colours in the order of OpenCV."""
    samples = pixel_array(dataset, index=frame_index)
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        samples = apply_color_lut(samples, dataset)
        colours = samples >> (8 * samples.dtype.itemsize - 8)
        return np.asarray(colours[..., 2::-1], np.float64)
    if samples.ndim == 3:
        shift = max(0, dataset.BitsStored - 8)
        return np.asarray((samples >> shift)[..., ::-1], np.float64)
    return grey_levels(samples, shown_by(dataset, frame_index), variant)


def shown_by(dataset: Dataset, frame_index: int) -> Dataset:
    """Return the attributes of display of one frame, out of its functional groups."""
    shown = Dataset()
    for element in dataset:
        if element.keyword not in (*_PIXELS, "PerFrameFunctionalGroupsSequence"):
            shown.add(element)
    shared = dataset.get("SharedFunctionalGroupsSequence", [])[:1]
    own = dataset.get("PerFrameFunctionalGroupsSequence", [])[frame_index : frame_index + 1]
    for group in (*shared, *own):
        for keyword, attributes in _GROUPS.items():
            for item in group.get(keyword, [])[:1]:
                for attribute in attributes:
                    shown.pop(attribute, None)
                shown.update(item)
    return shown


_GROUPS = {
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
}


def grey_levels(samples: npt.NDArray[np.generic], shown: Dataset, variant: FrameVariant) -> Levels:
    """Return stored values as levels from 0 to 255, without rounding (PS3.4 N.2)."""
    if variant.window_center is not None:
        shown = deepcopy(shown)
        shown.WindowCenter, shown.WindowWidth = variant.window_center, variant.window_width
        shown.pop("VOILUTSequence", None)
    values = apply_modality_lut(samples, shown)
    has_window = bool(shown.get("WindowCenter") not in (None, "") and shown.get("WindowWidth"))
    if variant.full_range or not (has_window or "VOILUTSequence" in shown):
        values = values.astype(np.float64)
        low, high = values.min(), values.max()
        levels = (values - low) / ((high - low) or 1) * 255
    elif "VOILUTSequence" in shown:
        bits = shown.VOILUTSequence[0].LUTDescriptor[2]
        levels = apply_voi(values, shown).astype(np.float64) / (2**bits - 1) * 255
    else:
        low, high = output_range(shown)
        levels = (apply_windowing(values, shown).astype(np.float64) - low) / (high - low) * 255
    is_inverted = str(shown.PhotometricInterpretation).upper() == "MONOCHROME1"
    return np.asarray(255 - levels if is_inverted else levels)


def output_range(shown: Dataset) -> tuple[float, float]:
    """The output range that pydicom documents for `apply_windowing`."""
    if "ModalityLUTSequence" in shown:
        return 0, 2 ** int(shown.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    bits, is_signed = int(shown.BitsStored), shown.PixelRepresentation == 1
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
    slope, intercept = float(shown.get("RescaleSlope", 1)), float(shown.get("RescaleIntercept", 0))
    return low * slope + intercept, high * slope + intercept


def read(path: Path) -> Dataset:
    """Read a file; one that does not say its transfer syntax is Implicit or Explicit VR."""
    dataset = dcmread(path, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        is_implicit = dataset.original_encoding[0]
        syntax = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax
    return dataset
