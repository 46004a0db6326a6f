"""Display attributes of a header, for files that need more than what is indexed."""

import io
import threading

from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue

from services.dicom.lookup_tables import LookupTable, read_lookup_table
from services.dicom.values import parse_float
from services.dicom.windowing import Display, VoiFunction, Window


class DisplayHeader:
    """The header of one file, from which each frame's display attributes are read; by any thread.

    pydicom parses sequences when they are first used: then `frame` takes long.
    """

    def __init__(self, header: bytes) -> None:
        """Parse a file's bytes up to its PixelData; a cut end is no fault.

        Raises:
            InvalidDicomError: The bytes are no DICOM file.
        """
        self._dataset = dcmread(io.BytesIO(header), stop_before_pixels=True, force=True)
        self._parsing = threading.Lock()

    def frame(self, frame_index: int) -> Display:
        """Return the display attributes of a frame, 0-based.

        Functional groups (PS3.3 C.7.6.16) go before the attributes of the dataset, a frame's own
        group before the shared one.
        """
        with self._parsing:
            return self._frame(frame_index)

    def _frame(self, frame_index: int) -> Display:
        dataset = self._dataset
        is_signed = dataset.get("PixelRepresentation") == 1
        rescale = self._group(frame_index, "PixelValueTransformationSequence") or dataset
        voi = self._group(frame_index, "FrameVOILUTSequence") or dataset
        return Display(
            is_inverted=dataset.get("PhotometricInterpretation") == "MONOCHROME1",
            rescale_slope=_number(rescale, "RescaleSlope") or 1.0,
            rescale_intercept=_number(rescale, "RescaleIntercept") or 0.0,
            modality_lut=_lookup_table(dataset, "ModalityLUTSequence", is_signed=is_signed),
            window=_window(voi),
            voi_lut=_lookup_table(voi, "VOILUTSequence", is_signed=is_signed),
        )

    def _group(self, frame_index: int, keyword: str) -> Dataset | None:
        per_frame = self._dataset.get("PerFrameFunctionalGroupsSequence") or []
        shared = self._dataset.get("SharedFunctionalGroupsSequence") or []
        for group in (*per_frame[frame_index : frame_index + 1], *shared[:1]):
            if items := group.get(keyword):
                item: Dataset = items[0]
                return item
        return None


def _window(dataset: Dataset) -> Window | None:
    return make_window(
        _number(dataset, "WindowCenter"),
        _number(dataset, "WindowWidth"),
        dataset.get("VOILUTFunction"),
    )


def make_window(center: float | None, width: float | None, function: str | None) -> Window | None:
    """Return a window, None when it is incomplete or its width means nothing."""
    if center is None or width is None or width <= 0:
        return None
    return Window(center, width, VoiFunction.of(function))


def _number(dataset: Dataset, keyword: str) -> float | None:
    value = dataset.get(keyword)
    if isinstance(value, MultiValue):
        value = value[0] if value else None
    return None if value is None else parse_float(str(value))


def _lookup_table(dataset: Dataset, keyword: str, *, is_signed: bool) -> LookupTable | None:
    items = dataset.get(keyword)
    if not items:
        return None
    descriptor, data = items[0].get("LUTDescriptor"), items[0].get("LUTData")
    if descriptor is None or len(descriptor) != 3 or data is None:  # noqa: PLR2004  # PS3.3 C.11.1.1.1
        return None
    count, first_mapped, bits = (int(value) for value in descriptor)
    content = bytes(data) if isinstance(data, bytes) else [int(number) for number in data]
    return read_lookup_table((count, first_mapped, bits), content, is_signed=is_signed)
