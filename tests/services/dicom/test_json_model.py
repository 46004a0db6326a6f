import io
import json
import struct
import warnings
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian

from services.dicom.checking import check_file
from services.dicom.json_model import (
    BULK_ROOT,
    KnownElements,
    bulk_value,
    header_json,
    header_text,
)


def test_every_good_header_has_a_json_model(good_files: list[Path]) -> None:
    for path in good_files:
        with path.open("rb") as file:
            model = header_json(file)
        assert json.loads(json.dumps(model, allow_nan=False)) == model
        assert not any(tag.startswith("7FE0") for tag in model), path.name


def test_values_are_told_by_their_vr(ct_bytes: bytes) -> None:
    model = header_json(io.BytesIO(ct_bytes))
    assert model["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert model["00080008"] == {"vr": "CS", "Value": ["ORIGINAL", "PRIMARY", "AXIAL"]}
    assert model["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "CompressedSamples^CT1"}]}
    assert model["00100030"] == {"vr": "DA"}
    assert model["00200013"] == {"vr": "IS", "Value": [1]}
    assert model["00280010"] == {"vr": "US", "Value": [128]}
    assert model["00281053"] == {"vr": "DS", "Value": [1.0]}


def test_tags_are_eight_hexadecimal_digits(ct_bytes: bytes) -> None:
    pointer = b"\x28\0\x09\0AT\x08\0\x18\0\x63\x10\xfe\xff\x0d\xe0"
    place = ct_bytes.index(b"\x28\0\x10\0US")
    model = header_json(io.BytesIO(ct_bytes[:place] + pointer + ct_bytes[place:]))
    assert model["00280009"] == {"vr": "AT", "Value": ["00181063", "FFFEE00D"]}


def test_an_empty_sequence_of_unknown_vr_is_one_whatever_follows(ct_bytes: bytes) -> None:
    # PS3.5 6.2.2 note 2; pydicom takes the VR from the dictionary.
    empty = b"\x28\0\0\x30UN\0\0" + struct.pack("<I", 0)
    place = ct_bytes.index(b"\xe0\x7f\x10\0OW")
    for text in (b"ABCDEFGH", b"abcdefgh"):
        following = b"\x28\0\x03\x30LO\x08\0" + text
        content = ct_bytes[:place] + empty + following + ct_bytes[place:]
        assert header_json(io.BytesIO(content))["00283000"] == {"vr": "SQ"}


INLINE_MAX_BYTES = 64 * 1024


def _comparable(model: dict[str, Any]) -> dict[str, Any]:
    """Leave out what the two may write differently.

    Group lengths are retired, SpecificCharacterSet is that of the answer, padding within values is
    none of them (PS3.5 6.2), an empty one of several is null (PS3.18 F.2.5), and empty lists say
    nothing.
    """
    found: dict[str, Any] = {}
    for tag, element in model.items():
        if tag.endswith("0000") or tag >= "7FE0" or tag == "00080005":
            continue
        kept = {name: value for name, value in element.items() if value not in ([], "")}
        if str(kept.get("BulkDataURI", "")).startswith(BULK_ROOT):
            del kept["BulkDataURI"]
        if "Value" in kept and kept["vr"] == "SQ":
            kept["Value"] = [_comparable(item) for item in kept["Value"]]
        elif "Value" in kept:
            stripped = [v.strip() if isinstance(v, str) else v for v in kept["Value"]]
            kept["Value"] = [None if value == "" else value for value in stripped]
        found[tag] = kept
    return found


def _without_long_values(dataset: Dataset) -> None:
    for element in dataset.iterall():
        if isinstance(element.value, bytes) and len(element.value) > INLINE_MAX_BYTES:
            element.value = b""


@pytest.mark.no_cover
def test_models_are_those_of_pydicom(good_files: list[Path]) -> None:
    differences = {}
    for path in good_files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of what these files are here for
            dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True)
            _without_long_values(dataset)
            theirs = _comparable(dataset.to_json_dict(suppress_invalid_tags=True))
        ours = _comparable(header_json(io.BytesIO(path.read_bytes())))
        different = {tag for tag in ours | theirs if ours.get(tag) != theirs.get(tag)}
        if different:
            differences[path.name] = different
    # A number that is none: pydicom suppresses the element.
    assert differences == {"badVR.dcm": {"00280008"}}


def test_implicit_vr_has_signed_values_private_values_and_small_binaries() -> None:
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    dataset.PixelRepresentation = 1
    dataset.add_new(0x00280120, "SS", -2000)
    known = dataset.private_block(0x0009, "GEMS_IDEN_01", create=True)
    known.add_new(0x02, "SH", "CT01")
    unknown = dataset.private_block(0x0041, "ACME 1.0", create=True)
    unknown.add_new(0x10, "LO", "text")
    dataset.add_new(0x00281201, "OW", b"\x01\x00\x02\x00")
    dataset.add_new(0x00281202, "OW", bytes(INLINE_MAX_BYTES + 2))
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, implicit_vr=True, little_endian=True)
    model = header_json(file)
    assert model["00280120"] == {"vr": "SS", "Value": [-2000]}
    assert model["00090010"] == {"vr": "LO", "Value": ["GEMS_IDEN_01"]}
    assert model["00091002"] == {"vr": "SH", "Value": ["CT01"]}
    assert model["00410010"] == {"vr": "LO", "Value": ["ACME 1.0"]}
    assert model["00411010"] == {"vr": "UN", "InlineBinary": "dGV4dA=="}
    assert model["00281201"] == {"vr": "OW", "InlineBinary": "AQACAA=="}
    assert model["00281202"] == {"vr": "OW", "BulkDataURI": f"{BULK_ROOT}00281202"}
    assert bulk_value(file, "00281202") == bytes(INLINE_MAX_BYTES + 2)


def with_long_values() -> io.BytesIO:
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    item = Dataset()
    item.add_new(0x00281202, "OW", b"\2" * (INLINE_MAX_BYTES + 2))
    dataset.IconImageSequence = Sequence([Dataset(), item])
    file = io.BytesIO()
    dataset.save_as(file)
    return file


def test_long_binary_values_are_found_by_their_path() -> None:
    file = with_long_values()
    icon = header_json(file)["00880200"]["Value"][1]["00281202"]
    path = icon["BulkDataURI"].removeprefix(BULK_ROOT)
    assert path == "00880200/2/00281202"
    assert bulk_value(file, path) == b"\2" * (INLINE_MAX_BYTES + 2)
    for wrong in ("", "00100010", "00880200", "00880200/3/00281202", "00880200/x/y", "zz", "1/2"):
        assert bulk_value(file, wrong) is None


@pytest.mark.no_cover
def test_known_elements_change_nothing(good_files: list[Path]) -> None:
    known = KnownElements(max_entries=500)
    for path in good_files * 2:
        content = io.BytesIO(path.read_bytes())
        assert header_json(content, known=known) == header_json(content), path.name


def test_the_beginning_of_a_file_has_all_of_its_header(good_files: list[Path]) -> None:
    checked = 0
    for path in good_files:
        content = io.BytesIO(path.read_bytes())
        found = check_file(content, is_stored=True)
        if found.beginning is not None:
            beginning = io.BytesIO(found.beginning)
            size = found.layout.file_size
            assert header_text(beginning, file_size=size) == header_text(content), path.name
            checked += 1
    assert checked > len(good_files) // 2


def test_shared_models_of_lut_data_depend_on_their_descriptor() -> None:
    known = KnownElements()
    for entries, vr in ((1, "US"), (2, "OW")):
        lut = struct.pack("<HHI3H", 0x0028, 0x3002, 6, entries, 0, 16)
        lut += struct.pack("<HHIH", 0x0028, 0x3006, 2, 7)
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(lut)) + lut
        content = struct.pack("<HHI", 0x0008, 0x0008, 0)
        content += struct.pack("<HHI", 0x0028, 0x3000, len(item)) + item
        model = header_json(io.BytesIO(content), known=known)
        assert model["00283000"]["Value"][0]["00283006"]["vr"] == vr
