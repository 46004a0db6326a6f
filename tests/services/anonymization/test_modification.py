"""Other values in a header, and what they were before."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid

from services.anonymization.modification import (
    ModificationOptions,
    ModificationRules,
    is_as_wanted,
    modified,
)
from services.anonymization.pseudonyms import Pseudonyms
from services.dicom.layout import WalkLimits
from services.dicom.new_header import rewritten
from services.errors import InvalidInput
from tests.planted import planted_image, written

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

AT = datetime(2026, 11, 27, 20, 15, tzinfo=UTC)


def source() -> FileDataset:
    return planted_image(generate_uid(), generate_uid(), 1)


def result_of(
    ds: FileDataset,
    *,
    replace: dict[str, str] | None = None,
    remove: Sequence[str] = (),
    **rules: Any,
) -> FileDataset:
    options = ModificationOptions(replace=replace or {}, remove=remove)
    options.check()
    given = ModificationRules(options=options, modified_at=AT, **rules)
    with (
        io.BytesIO(written(ds)) as file,
        rewritten(file, lambda header: modified(header, given), WalkLimits()) as made,
    ):
        return dcmread(io.BytesIO(made.read()))


def test_values_change_and_the_former_ones_are_noted() -> None:
    ds = source()
    result = result_of(
        ds,
        replace={"StudyDescription": "Thorax", "PatientName": "Doe^Jane", "EthnicGroup": "70"},
        remove=["AccessionNumber", "ImageComments", "RequestAttributesSequence"],
    )
    assert (result.StudyDescription, str(result.PatientName)) == ("Thorax", "Doe^Jane")
    assert result.EthnicGroup == "70"
    for keyword in ("AccessionNumber", "ImageComments", "RequestAttributesSequence"):
        assert keyword not in result
    earlier, item = result.OriginalAttributesSequence
    assert earlier.ModifiedAttributesSequence[0].PatientName == "formername-P"
    assert item.ModifyingSystem == "orthanc-graphql"
    assert item.ReasonForTheAttributeModification == "CORRECT"
    assert item.AttributeModificationDateTime == "20261127201500.000000+0000"
    (former,) = item.ModifiedAttributesSequence
    assert former.StudyDescription == ds.StudyDescription
    assert former.PatientName == ds.PatientName
    assert former.AccessionNumber == ds.AccessionNumber
    assert not former.EthnicGroup
    assert len(former.RequestAttributesSequence) == 1
    # Everything else is as it was.
    assert result.SOPInstanceUID == ds.SOPInstanceUID
    assert result.PixelData == ds.PixelData
    assert result[0x00291001].value == ds[0x00291001].value


def test_a_file_of_another_patient_names_one_person_alone() -> None:
    result = result_of(source(), replace={"PatientID": "P9", "PatientName": "Doe^Jane"})
    content = written(result).lower()
    for word in (b"plantagenet", b"qz77190456", b"other-551-id", b"rosengasse", b"issuer-zrh-9"):
        found = content.count(word)
        # Texts that nobody asked to change may hold the name: they are the caller's to replace.
        assert not found or word == b"plantagenet", word
    former = result.OriginalAttributesSequence[-1].ModifiedAttributesSequence[0]
    assert not former.PatientID
    assert not former.PatientName
    assert "PatientAddress" in former
    assert "OtherPatientIDsSequence" not in result


def test_a_copy_has_uids_of_its_own_and_refers_to_itself() -> None:
    ds = source()
    own = frozenset(map(str, (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)))
    result = result_of(
        ds,
        replace={"StudyDescription": "Copy"},
        pseudonyms=Pseudonyms(bytes(32)),
        own_uids=own,
    )
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert str(result[keyword].value) not in own
    (reference,) = result.ReferencedImageSequence
    assert reference.ReferencedSOPInstanceUID == result.SOPInstanceUID
    assert result.SOPClassUID == ds.SOPClassUID
    assert result.FrameOfReferenceUID == ds.FrameOfReferenceUID


def test_texts_in_any_script_are_written_right() -> None:
    ds = source()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName, ds.InstitutionName = "Müller^Jörg", "Zürich"
    result = result_of(ds, replace={"StudyDescription": "胸部"})
    assert (result.StudyDescription, result.InstitutionName) == ("胸部", "Zürich")
    assert str(result.PatientName) == "Müller^Jörg"


def test_what_is_as_wanted_is_known() -> None:
    ds = source()
    wanted = ModificationOptions(replace={"StudyDescription": "Thorax"}, remove=["ImageComments"])
    assert not is_as_wanted(ds, wanted)
    again = result_of(ds, replace=dict(wanted.replace), remove=wanted.remove)
    assert is_as_wanted(again, wanted)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({}, None),
        ({"replace": {"SOPInstanceUID": "1.2"}}, "replace"),
        ({"replace": {"PatientID": " "}}, "replace"),
        ({"replace": {"StudyDate": "2026-11-27"}}, "replace"),
        ({"remove": ["PatientID"]}, "remove"),
        ({"remove": ["PixelData"]}, "remove"),
        ({"remove": ["SeriesInstanceUID"]}, "remove"),
        ({"remove": ["StudyDate"] * 101}, "remove"),
        ({"replace": {"StudyDate": "20261127"}, "remove": ["StudyDate"]}, "remove"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], argument: str | None) -> None:
    with pytest.raises(InvalidInput) as refused:
        ModificationOptions(**options).check()
    assert refused.value.argument == argument


def test_options_are_the_same_after_they_were_stored() -> None:
    options = ModificationOptions(
        replace={"StudyID": "7"}, remove=["StudyDate"], delete_source=True
    )
    assert ModificationOptions.from_parameters(options.to_parameters()) == options
