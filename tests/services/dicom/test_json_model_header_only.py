"""Long binary values are never read, however deep they are; everything else is."""

import tracemalloc
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.filereader import dcmread
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from services.dicom.json_model import header_json

BULK_BYTES = 16 * 1024 * 1024
MEMORY_BYTES = 4 * 1024 * 1024
LONG_TEXT = "x" * 100_000
SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]


def bulky(*, is_undefined_length: bool) -> Dataset:
    """A waveform without pixels: bulk at the top, in items, in items of items, and among text."""
    dataset = dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    del dataset.PixelData, dataset.DataSetTrailingPadding
    channel = Dataset()
    channel.ChannelLabel = "Lead I"
    channel.add_new(0x54000110, "OW", bytes(BULK_BYTES))
    channel.is_undefined_length_sequence_item = is_undefined_length
    waveform = Dataset()
    waveform.SamplingFrequency = 500
    waveform.ChannelDefinitionSequence = Sequence([channel, channel])
    waveform.WaveformData = bytes(BULK_BYTES)
    waveform["WaveformData"].VR = "OW"
    waveform.is_undefined_length_sequence_item = is_undefined_length
    dataset.WaveformSequence = Sequence([waveform])
    dataset["WaveformSequence"].is_undefined_length = is_undefined_length
    dataset.EncapsulatedDocument = bytes(BULK_BYTES)
    dataset.TextValue = LONG_TEXT
    block = dataset.private_block(0x0041, "ACME", create=True)
    block.add_new(0x10, "UN", bytes(BULK_BYTES))
    return dataset


@pytest.mark.parametrize("is_undefined_length", [True, False])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: str(syntax.name))
def test_a_header_with_long_binary_values_takes_little_memory(
    syntax: UID, is_undefined_length: bool, tmp_path: Path
) -> None:
    path = tmp_path / "bulky.dcm"
    dataset = bulky(is_undefined_length=is_undefined_length)
    dataset.file_meta.TransferSyntaxUID = syntax
    dcmwrite(
        path, dataset, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian
    )
    del dataset
    with path.open("rb") as file:
        tracemalloc.start()
        try:
            model = header_json(file)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak_bytes < MEMORY_BYTES
    [waveform] = model["54000100"]["Value"]
    assert waveform["003A001A"] == {"vr": "DS", "Value": [500.0]}
    bulk = "urn:x-orthanc-graphql:bulkdata"
    assert waveform["54001010"] == {"vr": "OW", "BulkDataURI": f"{bulk}/54000100/1/54001010"}
    channels = waveform["003A0200"]["Value"]
    assert [channel["003A0203"]["Value"] for channel in channels] == [["Lead I"]] * 2
    assert [channel["54000110"]["vr"] for channel in channels] == ["OW"] * 2
    assert model["00420011"] == {"vr": "OB", "BulkDataURI": f"{bulk}/00420011"}
    assert model["00411010"] == {"vr": "UN", "BulkDataURI": f"{bulk}/00411010"}
    assert model["0040A160"] == {"vr": "UT", "Value": [LONG_TEXT]}
    assert model["00100010"]["Value"] == [{"Alphabetic": "CompressedSamples^CT1"}]


def test_a_length_that_is_the_code_of_a_capital_is_taken_for_no_vr(tmp_path: Path) -> None:
    path = tmp_path / "character_sets.dcm"
    dataset = dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    # 76 bytes, and 76 is the code of L.
    dataset.SpecificCharacterSet = [
        *("ISO 2022 IR 6", "ISO 2022 IR 13", "ISO 2022 IR 87"),
        *("ISO 2022 IR 159", "ISO 2022 IR 149"),
    ]
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dcmwrite(path, dataset, implicit_vr=True, little_endian=True)
    with path.open("rb") as file:
        model = header_json(file)
    assert model["00100010"]["Value"] == [{"Alphabetic": "CompressedSamples^CT1"}]
