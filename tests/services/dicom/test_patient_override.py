import pytest

from services.dicom.patient_override import PatientOverride


@pytest.mark.parametrize("empty", [None, "", " ", "\u3000\t", "\u200b"])
def test_an_input_without_a_visible_character_keeps_what_the_file_says(empty: str | None) -> None:
    assert PatientOverride.of(empty, empty) == PatientOverride(None, None)
    assert PatientOverride.of("PAT001", empty) == PatientOverride("PAT001", None)
    assert PatientOverride.of(empty, "Doe^Jane") == PatientOverride(None, "Doe^Jane")


def test_a_value_stays_as_it_was_sent() -> None:
    assert PatientOverride.of(" PAT001", "Doe^Jane ") == PatientOverride(" PAT001", "Doe^Jane ")
