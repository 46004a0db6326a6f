import io
import json
from pathlib import Path

from services.dicom.json_model import header_json


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
