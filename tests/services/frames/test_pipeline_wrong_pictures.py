"""Pictures that were wrong or missing once: each test makes a file of one property."""

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import convert_color_space
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    MPEG2MPML,
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

from services.dicom.display import PixelDescription
from services.errors import FrameNotRenderable
from services.frames.decoding import decode_frame
from services.frames.variant import FrameVariant
from tests.pydicom_pictures import expected, render

FULL = FrameVariant(full_range=True)
ROWS, COLUMNS = 16, 24
RANDOM = np.random.default_rng(7)
Samples = npt.NDArray[np.integer[Any]]


def made(
    samples: npt.NDArray[Any],
    *,
    bits_stored: int | None = None,
    syntax: str = ExplicitVRLittleEndian,
    pixels: bytes | bytearray | None = None,
    **attributes: object,
) -> Dataset:
    """Make a file of the samples of one frame; `pixels` are its encoded bytes."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = UID("1.2.3")
    dataset.SamplesPerPixel = 1 if samples.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if samples.ndim == 2 else "RGB"
    if samples.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = samples.shape[:2]
    dataset.BitsAllocated = samples.dtype.itemsize * 8
    dataset.BitsStored = bits_stored or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(samples.dtype.kind == "i")
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    content = samples.tobytes() if pixels is None else bytes(pixels)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        content = encapsulate([content])
    vr = "OW" if dataset.BitsAllocated > 8 else "OB"
    dataset.add_new("PixelData", vr, content + bytes(len(content) % 2))
    return dataset


def assert_as_pydicom(dataset: Dataset, frame_index: int = 0) -> None:
    window = FrameVariant(window_center=40, window_width=80)
    for variant in (FrameVariant(), FULL, window):
        ours = render(dataset, frame_index, variant)
        theirs = expected(dataset, frame_index, variant)
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= 1, variant.text


def grey(bits: int, kind: str = "u2") -> Samples:
    low = -(1 << (bits - 1)) if kind[0] == "i" else 0
    values = RANDOM.integers(low, low + (1 << bits), (ROWS, COLUMNS))
    return np.asarray(values, f"<{kind}")


# 1. Eight bits stored in sixteen.
@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (ExplicitVRLittleEndian, lambda words: words.tobytes()),
        (JPEGLSLossless, imagecodecs.jpegls_encode),
        (JPEGLosslessSV1, lambda words: imagecodecs.ljpeg_encode(words, bitspersample=16)),
        (JPEG2000Lossless, lambda words: imagecodecs.jpeg2k_encode(words, codecformat="j2k")),
        (RLELossless, lambda words: rle([(words >> 8), words & 255])),
    ],
)
def test_eight_bits_in_sixteen(syntax: str, encode: Callable[[Samples], bytes]) -> None:
    words = grey(8)
    assert_as_pydicom(made(words, bits_stored=8, syntax=syntax, pixels=encode(words)))


def rle(segments: list[npt.NDArray[Any]]) -> bytes:
    """Encode bytes as RLE of literal runs (PS3.5 G)."""
    encoded = []
    for segment in segments:
        content = segment.astype(np.uint8).tobytes()
        runs = (content[at : at + 128] for at in range(0, len(content), 128))
        literal = b"".join(bytes([len(run) - 1]) + run for run in runs)
        encoded.append(literal + bytes(len(literal) % 2))
    offsets, at = [], 64
    for literal in encoded:
        offsets.append(at)
        at += len(literal)
    header = np.array([len(encoded), *offsets, *[0] * (15 - len(offsets))], "<u4").tobytes()
    return header + b"".join(encoded)


# 2. RLE has planes whatever PlanarConfiguration says.
@pytest.mark.parametrize("planar_configuration", [0, 1])
def test_rle_colours(planar_configuration: int) -> None:
    colours = RANDOM.integers(0, 256, (ROWS, COLUMNS, 3)).astype(np.uint8)
    dataset = made(
        colours,
        syntax=RLELossless,
        pixels=rle([colours[:, :, sample] for sample in range(3)]),
        PlanarConfiguration=planar_configuration,
    )
    assert_as_pydicom(dataset)


def test_segments_of_rle_may_be_padded() -> None:
    colours = RANDOM.integers(0, 256, (3, 3, 3)).astype(np.uint8)
    segments = [np.append(colours[:, :, sample], 77) for sample in range(3)]
    dataset = made(colours, syntax=RLELossless, pixels=rle(segments))
    assert (render(dataset)[..., ::-1] == colours).all()


@pytest.mark.parametrize(
    ("at", "number", "reason"),
    [
        (0, 1, "SamplesPerPixel"),
        (0, 2**32 - 1, "SamplesPerPixel"),
        (4, 2**31, "damaged"),
        (4, 0, "damaged"),
        (8, 64, "shorter"),
        (12, 2**32 - 1, "damaged"),
    ],
)
def test_wrong_offsets_of_rle_are_refused(at: int, number: int, reason: str) -> None:
    colours = RANDOM.integers(0, 256, (ROWS, COLUMNS, 3)).astype(np.uint8)
    pixels = bytearray(rle([colours[:, :, sample] for sample in range(3)]))
    pixels[at : at + 4] = number.to_bytes(4, "little")
    with pytest.raises(FrameNotRenderable, match=reason):
        render(made(colours, syntax=RLELossless, pixels=pixels))


@pytest.mark.parametrize("cut", [2, 30, 64, 90])
def test_rle_that_is_cut_off_is_refused(cut: int) -> None:
    values = grey(8, "u1")
    with pytest.raises(FrameNotRenderable, match="RLE"):
        render(made(values, syntax=RLELossless, pixels=rle([values])[:cut]))


def jpeg(values: Samples) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(values.astype("u1"), level=90))


def jpeg_lossless(values: Samples) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(values.astype("u1"), lossless=True))


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (JPEGBaseline8Bit, jpeg),
        (JPEGLosslessSV1, jpeg_lossless),
        (JPEGLSLossless, imagecodecs.jpegls_encode),
        (JPEG2000Lossless, imagecodecs.jpeg2k_encode),
    ],
)
def test_no_picture_is_made_of_half_a_codestream(
    syntax: str, encode: Callable[[Samples], bytes]
) -> None:
    values = RANDOM.integers(0, 256, (64, 64), "u1")
    whole = bytes(encode(values))
    for part in (0.5, 0.7, 0.9):
        cut = whole[: int(len(whole) * part)]
        with pytest.raises(FrameNotRenderable, match=r"damaged|cut off"):
            render(made(values, syntax=syntax, pixels=cut))


@pytest.mark.parametrize("encode", [jpeg, jpeg_lossless])
def test_a_jpeg_that_lacks_nothing_but_its_end_marker_is_shown(
    encode: Callable[[Samples], bytes],
) -> None:
    values = RANDOM.integers(0, 256, (64, 64), "u1")
    whole = encode(values)
    syntax = JPEGBaseline8Bit if encode is jpeg else JPEGLosslessSV1
    shown = render(made(values, syntax=syntax, pixels=whole))
    assert whole.endswith(b"\xff\xd9")
    ended_early = render(made(values, syntax=syntax, pixels=whole[:-2]))
    assert np.array_equal(ended_early, shown)


# 3. Bits beside the stored ones.
def test_signed_twelve_bits_are_not_sign_extended_in_the_file() -> None:
    values = grey(12, "i2")
    assert_as_pydicom(made(values & 0x0FFF, bits_stored=12, PixelRepresentation=1))


def test_overlays_and_garbage_in_high_bits_are_no_pixels() -> None:
    values = grey(12)
    overlaid = values | (RANDOM.integers(0, 16, values.shape) << 12).astype("<u2")
    assert_as_pydicom(made(overlaid, bits_stored=12))
    assert (render(made(overlaid, bits_stored=12)) == render(made(values, bits_stored=12))).all()


def test_the_high_bit_says_where_the_stored_bits_are() -> None:
    values = grey(12)
    shifted = made(values << 4, bits_stored=12, HighBit=15)
    assert (render(shifted) == render(made(values, bits_stored=12))).all()
    signed = grey(12, "i2")
    shifted = made(signed << 4, bits_stored=12, HighBit=15)
    assert (render(shifted) == render(made(signed, bits_stored=12))).all()


# 4. 32 bits.
def test_rle_of_32_bits() -> None:
    values = RANDOM.integers(0, 2**32, (ROWS, COLUMNS)).astype("<u4")
    segments = [values >> shift & 255 for shift in (24, 16, 8, 0)]
    dataset = made(values, syntax=RLELossless, pixels=rle(segments), DoseGridScaling="1e-6")
    assert_as_pydicom(dataset)


# 5. JPEG 2000.
@pytest.mark.parametrize(
    ("syntax", "photometric_interpretation"),
    [(JPEG2000Lossless, "YBR_RCT"), (JPEG2000, "YBR_ICT"), (JPEG2000Lossless, "RGB")],
)
def test_jpeg2000_colours(syntax: str, photometric_interpretation: str) -> None:
    colours = RANDOM.integers(0, 256, (ROWS, COLUMNS, 3)).astype(np.uint8)
    pixels = imagecodecs.jpeg2k_encode(
        colours, codecformat="j2k", reversible=syntax == JPEG2000Lossless,
        mct=photometric_interpretation != "RGB",
    )  # fmt: skip
    dataset = made(
        colours, syntax=syntax, pixels=pixels, PhotometricInterpretation=photometric_interpretation
    )
    assert_as_pydicom(dataset)


def test_jpeg2000_whose_header_is_signed_and_whose_codestream_is_not() -> None:
    values = grey(13, "i2")
    words = (values & 0x1FFF).astype(np.uint16)
    pixels = imagecodecs.jpeg2k_encode(words, codecformat="j2k", bitspersample=13)
    dataset = made(values, bits_stored=13, syntax=JPEG2000Lossless, pixels=pixels)
    assert_as_pydicom(dataset)


@pytest.mark.parametrize(("function", "width"), [("SIGMOID", 30), ("LINEAR", 2), ("LINEAR", 900)])
def test_jpeg2000_windows(function: str, width: float) -> None:
    values = grey(12)
    dataset = made(
        values, bits_stored=12, syntax=JPEG2000Lossless,
        pixels=imagecodecs.jpeg2k_encode(values, codecformat="j2k", bitspersample=12),
        WindowCenter=1000, WindowWidth=width, VOILUTFunction=function,
    )  # fmt: skip
    assert_as_pydicom(dataset)


# 6. The modality LUT counts without a window too.
def test_a_falling_slope_without_window() -> None:
    assert_as_pydicom(made(grey(12), bits_stored=12, RescaleSlope=-1, RescaleIntercept=4095))


@pytest.mark.parametrize("is_inverting", [False, True])
def test_a_modality_lut_without_window(is_inverting: bool) -> None:
    entries = np.sort(RANDOM.integers(0, 4096, 4096)).astype("<u2")
    entries = entries[::-1].copy() if is_inverting else entries
    lut = table(entries, 0, 16)
    lut.ModalityLUTType = "US"
    assert_as_pydicom(made(grey(12), bits_stored=12, ModalityLUTSequence=Sequence([lut])))


def table(entries: npt.NDArray[Any], first_mapped: int, bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [entries.size & 0xFFFF, first_mapped, bits])
    item.add_new("LUTData", "US", entries.tolist())
    return item


def test_a_voi_lut() -> None:
    entries = RANDOM.integers(0, 1024, 500).astype("<u2")
    lut = table(entries, 1000, 10)
    dataset = made(grey(12), bits_stored=12, VOILUTSequence=Sequence([lut]))
    assert_as_pydicom(dataset)


@pytest.mark.parametrize(
    ("kind", "bits_stored", "intercept", "first_mapped"),
    [("u2", 12, -1024, -1024), ("i2", 12, 0, -2048), ("i2", 16, 32_768, 40_000)],
)
def test_a_voi_lut_maps_what_the_modality_lut_gives(
    kind: str, bits_stored: int, intercept: int, first_mapped: int
) -> None:
    """Its first value is written as US whether it is negative or not."""
    values = grey(bits_stored, kind)
    entries = RANDOM.integers(0, 1 << 16, 4096).astype("<u2")
    dataset = made(
        values, bits_stored=bits_stored, RescaleSlope=1, RescaleIntercept=intercept,
        VOILUTSequence=Sequence([table(entries, first_mapped & 0xFFFF, 16)]),
    )  # fmt: skip
    mapped = entries[np.clip(values.astype(int) + intercept - first_mapped, 0, 4095)]
    assert np.abs(render(dataset) - mapped / 65_535 * 255).max() <= 1


@pytest.mark.parametrize(
    "sop_class", [XRayAngiographicImageStorage, XRayRadiofluoroscopicImageStorage]
)
@pytest.mark.parametrize("variant", [FrameVariant(), FULL, FrameVariant(100, 50)])
def test_of_angiographies_the_modality_lut_is_not_for_display(
    sop_class: str, variant: FrameVariant
) -> None:
    values = grey(8, "u1")
    plain = made(values, WindowCenter=127, WindowWidth=255)
    logarithmic = table(np.sort(RANDOM.integers(0, 4096, 256))[::-1].astype("<u2"), 0, 12)
    with_lut = made(
        values, WindowCenter=127, WindowWidth=255, SOPClassUID=sop_class,
        ModalityLUTSequence=Sequence([logarithmic]),
    )  # fmt: skip
    assert (render(with_lut, 0, variant) == render(plain, 0, variant)).all()
    rescaled = made(
        values, WindowCenter=127, WindowWidth=255, SOPClassUID=sop_class,
        RescaleSlope=-2, RescaleIntercept=9,
    )  # fmt: skip
    assert (render(rescaled, 0, variant) == render(plain, 0, variant)).all()


# 7. Windows below 1.
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("is_explicit", [False, True])
def test_widths_below_one(function: str, is_explicit: bool) -> None:
    values, center, width = grey(12), 0.2, 0.25
    dataset = made(values, bits_stored=12, RescaleSlope="0.0001", VOILUTFunction=function)
    dataset.RescaleIntercept = 0
    dataset.WindowCenter, dataset.WindowWidth = (9, 9) if is_explicit else (center, width)
    scaled = values * 0.0001
    if function == "SIGMOID":
        levels = 255 / (1 + np.exp(-4 * (scaled - center) / width))
    else:
        levels = np.clip((scaled - center) / width + 0.5, 0, 1) * 255
    variant = FrameVariant(center, width) if is_explicit else FrameVariant()
    assert np.abs(render(dataset, 0, variant) - levels).max() <= 1


# 9. The codestream says what its colours are.
@pytest.mark.parametrize("photometric_interpretation", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.filterwarnings("ignore:The .0028,0004. .Photometric Interpretation. value is")
def test_jfif_is_ycbcr_whatever_the_header_says(photometric_interpretation: str) -> None:
    colours = np.zeros((ROWS, COLUMNS, 3), np.uint8)
    colours[:, :8, 0], colours[:, 8:16, 1], colours[:, 16:, 2] = 200, 150, 250
    pixels = imagecodecs.jpeg8_encode(
        colours, 95, colorspace="rgb", outcolorspace="ycbcr", subsampling="444"
    )
    assert b"JFIF" in pixels
    dataset = made(
        colours,
        syntax=JPEGBaseline8Bit,
        pixels=pixels,
        PhotometricInterpretation=photometric_interpretation,
    )
    assert_as_pydicom(dataset)
    assert np.abs(render(dataset)[..., ::-1] - colours).max() <= 12


def test_a_jpeg_of_rgb_is_rgb() -> None:
    colours = np.full((ROWS, COLUMNS, 3), (200, 30, 90), np.uint8)
    pixels = imagecodecs.jpeg8_encode(colours, 95, colorspace="rgb", outcolorspace="rgb")
    dataset = made(colours, syntax=JPEGBaseline8Bit, pixels=pixels)
    assert np.abs(render(dataset)[..., ::-1] - colours).max() <= 2


# 10. Functional groups: each frame speaks for itself.
def test_each_frame_has_its_own_window_and_slope() -> None:
    values = np.stack([grey(12), grey(12)])
    dataset = made(values[0], bits_stored=12)
    dataset.NumberOfFrames = 2
    dataset.PixelData = values.tobytes()
    groups = [
        group(RescaleSlope=slope, RescaleIntercept=-100, RescaleType="US")
        for slope in (1.5, -0.5)
    ]  # fmt: skip
    groups[1].FrameVOILUTSequence = Sequence([window := Dataset()])
    window.WindowCenter, window.WindowWidth = -500, 1000
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    shared = Dataset()
    shared.FrameVOILUTSequence = Sequence([window := Dataset()])
    window.WindowCenter, window.WindowWidth, window.VOILUTFunction = 2000, 3000, "SIGMOID"
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    assert_as_pydicom(dataset, 0)
    assert_as_pydicom(dataset, 1)


def group(**attributes: object) -> Dataset:
    outer, item = Dataset(), Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    outer.PixelValueTransformationSequence = Sequence([item])
    return outer


# 11. Small letters.
@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_monochrome1_in_small_letters() -> None:
    dataset = made(grey(12), bits_stored=12)
    dataset.PhotometricInterpretation = "MONOCHROME1"
    assert_as_pydicom(dataset)
    inverted = render(dataset)
    dataset.PhotometricInterpretation = "monochrome1"
    assert (render(dataset) == inverted).all()


def test_an_inverse_presentation_lut_shape() -> None:
    values = grey(12)
    inverted = render(made(values, bits_stored=12, PresentationLUTShape="INVERSE"))
    plain = render(made(values, bits_stored=12, PresentationLUTShape="IDENTITY"))
    assert np.abs(255 - plain - inverted).max() <= 1


# 12. Native kinds.
def test_ybr_full() -> None:
    ybr = RANDOM.integers(0, 256, (ROWS, COLUMNS, 3)).astype(np.uint8)
    assert_as_pydicom(made(ybr, PhotometricInterpretation="YBR_FULL"))


def test_ybr_full_422() -> None:
    ybr = RANDOM.integers(0, 256, (ROWS, COLUMNS, 3)).astype(np.uint8)
    ybr[:, 1::2, 1:] = ybr[:, ::2, 1:]
    pairs = np.stack([ybr[:, ::2, 0], ybr[:, 1::2, 0], ybr[:, ::2, 1], ybr[:, ::2, 2]], axis=2)
    dataset = made(ybr, pixels=pairs.tobytes(), PhotometricInterpretation="YBR_FULL_422")
    assert_as_pydicom(dataset)
    rgb = convert_color_space(ybr, "YBR_FULL", "RGB").astype(int)
    assert np.abs(render(dataset)[..., ::-1] - rgb).max() <= 1


@pytest.mark.parametrize("bits_stored", [12, 16])
@pytest.mark.parametrize("planar_configuration", [0, 1])
def test_colours_of_sixteen_bits(bits_stored: int, planar_configuration: int) -> None:
    colours = RANDOM.integers(0, 1 << bits_stored, (ROWS, COLUMNS, 3)).astype("<u2")
    stored = np.moveaxis(colours, 2, 0) if planar_configuration else colours
    dataset = made(
        colours, bits_stored=bits_stored, pixels=stored.tobytes(),
        PlanarConfiguration=planar_configuration,
    )  # fmt: skip
    assert_as_pydicom(dataset)


@pytest.mark.parametrize(
    ("entries", "first_mapped", "bits", "is_packed"),
    [(256, 0, 8, True), (256, 0, 16, False), (100, 50, 16, False), (16, 3, 8, True)],
)
@pytest.mark.parametrize("word", ["u1", "u2"])
def test_palettes(entries: int, first_mapped: int, bits: int, is_packed: bool, word: str) -> None:
    dataset = made(
        RANDOM.integers(0, 256, (ROWS, COLUMNS)).astype(f"<{word}"),
        PhotometricInterpretation="PALETTE COLOR",
    )
    for colour in ("Red", "Green", "Blue"):
        keyword = f"{colour}PaletteColorLookupTable"
        dataset.add_new(f"{keyword}Descriptor", "US", [entries, first_mapped, bits])
        values = RANDOM.integers(0, 1 << bits, entries)
        dataset.add_new(
            f"{keyword}Data", "OW", values.astype("u1" if is_packed else "<u2").tobytes()
        )
    assert_as_pydicom(dataset)


def test_a_palette_of_65536_entries() -> None:
    dataset = made(grey(16), PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        keyword = f"{colour}PaletteColorLookupTable"
        dataset.add_new(f"{keyword}Descriptor", "US", [0, 0, 16])
        dataset.add_new(f"{keyword}Data", "OW", grey_ramp().tobytes())
    assert_as_pydicom(dataset)


def grey_ramp() -> npt.NDArray[np.uint16]:
    return RANDOM.permutation(65_536).astype("<u2")


@pytest.mark.parametrize("bits", [8, 16])
def test_segmented_palettes(bits: int) -> None:
    dataset = made(
        RANDOM.integers(0, 256, (ROWS, COLUMNS)).astype(np.uint8),
        PhotometricInterpretation="PALETTE COLOR",
    )
    largest = (1 << bits) - 1
    # Two single values, a line to the largest, and a line back to nothing.
    segments = np.array([0, 2, 7, 9, 1, 200, largest, 1, 54, 0], f"<u{bits // 8}")
    for colour in ("Red", "Green", "Blue"):
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, bits])
        keyword = f"Segmented{colour}PaletteColorLookupTableData"
        dataset.add_new(keyword, "OW", segments.tobytes())
    assert_as_pydicom(dataset)


@pytest.mark.parametrize("kind", ["u4", "i4"])
def test_grey_values_of_32_bits(kind: str) -> None:
    info = np.iinfo(kind)
    values = RANDOM.integers(info.min, info.max, (ROWS, COLUMNS)).astype(f"<{kind}")
    assert_as_pydicom(made(values, WindowCenter=1e8, WindowWidth=1e9))


@pytest.mark.parametrize(
    ("keyword", "kind"), [("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8")]
)
def test_float_pixels(keyword: str, kind: str) -> None:
    values = RANDOM.normal(size=(ROWS, COLUMNS)).astype(kind)
    dataset = made(values, WindowCenter=0.2, WindowWidth=0.5)
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.add_new(keyword, "OF" if kind == "<f4" else "OD", values.tobytes())
    levels = np.clip((values - 0.2) / 0.5 + 0.5, 0, 1) * 255
    assert np.abs(render(dataset) - levels).max() <= 1
    stretched = (values - values.min()) / (values.max() - values.min()) * 255
    assert np.abs(render(dataset, 0, FULL) - stretched).max() <= 1


def test_signed_eight_bits() -> None:
    assert_as_pydicom(made(grey(8, "i1"), WindowCenter=-20, WindowWidth=100))


def test_four_bits_of_eight() -> None:
    assert_as_pydicom(made(grey(8, "u1"), bits_stored=4))


def test_masks_of_one_bit_need_not_end_on_a_byte() -> None:
    mask = RANDOM.integers(0, 2, (3, 5, 7)).astype(np.uint8)
    dataset = made(mask[0], pixels=np.packbits(mask.ravel(), bitorder="little").tobytes())
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit, dataset.NumberOfFrames = 0, 3
    for frame_index in range(3):
        assert (render(dataset, frame_index) == mask[frame_index].astype(int) * 255).all()


def test_24_bits_in_three_bytes() -> None:
    values = RANDOM.integers(0, 1 << 24, (ROWS, COLUMNS)).astype("<u4")
    three = values.view(np.uint8).reshape(ROWS, COLUMNS, 4)[..., :3]
    dataset = made(values, pixels=three.tobytes())
    dataset.BitsAllocated = dataset.BitsStored = 24
    dataset.HighBit = 23
    levels = (values - values.min()) / (values.max() - values.min()) * 255.0
    assert np.abs(render(dataset) - levels).max() <= 1


@pytest.mark.parametrize("kind", ["u2", "i2", "u4"])
def test_big_endian_values(kind: str) -> None:
    values = grey(16, kind)
    big = made(values, syntax=ExplicitVRBigEndian, pixels=values.byteswap().tobytes())
    little = made(values)
    for dataset in (big, little):
        dataset.WindowCenter, dataset.WindowWidth = 100, 30_000
    assert (render(big) == render(little)).all()


def test_big_endian_words_of_8_bits_need_not_end_with_a_frame() -> None:
    values = RANDOM.integers(0, 256, (3, 3, 5), np.uint8)
    in_words = np.append(values, np.uint8(0)).view("<u2").byteswap().tobytes()
    dataset = made(values[0], syntax=ExplicitVRBigEndian, WindowCenter=128, WindowWidth=256)
    del dataset.PixelData
    dataset.NumberOfFrames = 3
    dataset.add_new("PixelData", "OW", in_words)
    for frame_index in range(3):
        assert np.abs(render(dataset, frame_index) - values[frame_index]).max() <= 1


# 13. High-throughput JPEG 2000.
@pytest.mark.parametrize("is_colour", [False, True])
def test_htj2k(is_colour: bool) -> None:
    shape = (64, 64, 3) if is_colour else (64, 64)
    samples = RANDOM.integers(0, 256, shape).astype(np.uint8)
    pixels = imagecodecs.htj2k_encode(samples)
    dataset = made(samples, syntax=HTJ2KLossless, pixels=pixels)
    if is_colour:
        dataset.PhotometricInterpretation = "YBR_RCT"
        assert (render(dataset)[..., ::-1] == samples).all()
    else:
        assert np.abs(render(dataset) - render(made(samples))).max() == 0


def test_jpeg_xl() -> None:
    colours = RANDOM.integers(0, 256, (ROWS, COLUMNS, 3)).astype(np.uint8)
    description = PixelDescription(
        transfer_syntax_uid="1.2.840.10008.1.2.4.110",
        rows=ROWS,
        columns=COLUMNS,
        samples_per_pixel=3,
        bits_allocated=8,
        bits_stored=8,
        high_bit=7,
        photometric_interpretation="RGB",
    )
    decoded = decode_frame(bytes(imagecodecs.jpegxl_encode(colours, lossless=True)), description)
    assert (decoded.samples == colours).all()


# 14. Videos.
def test_a_video_is_not_shown_and_says_why() -> None:
    dataset = made(grey(8, "u1"), syntax=MPEG2MPML, pixels=b"\0\0\1\xb3")
    with pytest.raises(FrameNotRenderable, match="MPEG-2"):
        render(dataset)


# A codestream that contradicts its header is refused before it is decoded.
@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"Rows": ROWS + 1}, "Rows and Columns"),
        ({"Columns": COLUMNS - 1}, "Rows and Columns"),
        ({"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}, "SamplesPerPixel"),
        ({"SamplesPerPixel": 1, "PhotometricInterpretation": "PALETTE COLOR"}, "SamplesPerPixel"),
        ({"PhotometricInterpretation": "MONOCHROME2"}, "contradicts"),
        ({"PhotometricInterpretation": None}, "PhotometricInterpretation is missing"),
    ],
)
@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (JPEG2000Lossless, lambda colours: imagecodecs.jpeg2k_encode(colours, codecformat="j2k")),
        (JPEGBaseline8Bit, imagecodecs.jpeg8_encode),
        (JPEGLSLossless, imagecodecs.jpegls_encode),
    ],
)
def test_contradictions_are_refused(
    syntax: str,
    encode: Callable[[Samples], bytes],
    attributes: dict[str, Any],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    colours = RANDOM.integers(0, 256, (ROWS, COLUMNS, 3)).astype(np.uint8)
    dataset = made(colours, syntax=syntax, pixels=encode(colours), **attributes)
    monkeypatch.setattr("services.frames.decoding._DECODERS", {})
    with pytest.raises(FrameNotRenderable, match=reason):
        render(dataset)


def test_more_bits_than_are_allocated_are_refused() -> None:
    values = grey(12)
    dataset = made(
        values.astype(np.uint8), syntax=JPEGLSLossless, pixels=imagecodecs.jpegls_encode(values)
    )
    with pytest.raises(FrameNotRenderable, match="BitsAllocated"):
        render(dataset)
