"""What a caller may ask of an anonymisation."""

from typing import Any

import pytest

from services.anonymization.options import AnonymizationOptions
from services.errors import InvalidInput


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"keep": ["PatientName"]}, "input.keep"),
        ({"keep": ["Plantagenet"]}, "input.keep"),
        ({"keep": ["StudyDate"] * 101}, "input.keep"),
        ({"replace": {"StudyInstanceUID": "1.2"}}, "input.replace"),
        ({"replace": {"PatientID": "X"}}, "input.replace"),
        ({"replace": {"StudyDate": "Plantagenet"}}, "input.replace"),
        ({"replace": {"PixelSpacing": "1"}}, "input.replace"),
        ({"replace": {"PixelData": "1"}}, "input.replace"),
        ({"replace": {"TransferSyntaxUID": "1"}}, "input.replace"),
        ({"replace": {"StudyDescription": "x" * 65}}, "input.replace"),
        ({"replace": {"ImageComments": "x" * 1025}}, "input.replace"),
        ({"patient_id": "a\\b"}, "patientID"),
        ({"patient_name": "x" * 65}, "patientName"),
    ],
)
def test_what_makes_no_sense_is_refused_and_not_quoted(
    options: dict[str, Any], argument: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        AnonymizationOptions(**options).check()
    assert refused.value.argument == argument
    assert "Plantagenet" not in refused.value.message


def test_good_options_pass_and_are_the_same_after_they_were_stored() -> None:
    options = AnonymizationOptions(
        patient_id="TRIAL-7",
        patient_name="山田^太郎",
        keep=["PatientAge", "StudyDate"],
        replace={"StudyDescription": "Trial 7", "ImageType": "DERIVED\\SECONDARY"},
        confirm_burned_in=True,
    )
    options.check()
    assert AnonymizationOptions.from_parameters(options.to_parameters()) == options
