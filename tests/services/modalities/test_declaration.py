from typing import Any

import pytest

from models.modality import DicomService, RetrieveMethod
from services.errors import InvalidInput
from services.modalities.declaration import check_declaration, is_mirrored

GIVEN: dict[str, Any] = {
    "name": "pacs",
    "ae_title": "ARCHIVE",
    "host": "pacs.example.org",
    "port": 104,
    "allows": None,
    "retrieve_method": RetrieveMethod.AUTO,
    "timeout_seconds": 30,
    "description": None,
}


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        ({"name": "a b"}, "name"),
        ({"name": "ä"}, "name"),
        ({"name": ""}, "name"),
        ({"ae_title": ""}, "aeTitle"),
        ({"ae_title": "   "}, "aeTitle"),
        ({"ae_title": "A" * 17}, "aeTitle"),
        ({"ae_title": "A\\B"}, "aeTitle"),
        ({"ae_title": "A\nB"}, "aeTitle"),
        ({"ae_title": "Ä"}, "aeTitle"),
        ({"host": "http://pacs"}, "host"),
        ({"host": "pacs:104"}, "host"),
        ({"host": ""}, "host"),
        ({"host": "999.1.1.1"}, "host"),
        ({"host": "a" * 254}, "host"),
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"timeout_seconds": 0}, "timeoutSeconds"),
        ({"description": "x" * 257}, "description"),
    ],
)
def test_a_wrong_declaration_names_its_argument(given: dict[str, Any], argument: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_declaration(**GIVEN | given)
    assert caught.value.argument == argument
    assert str(caught.value).startswith(f"{argument}: ")


@pytest.mark.parametrize("host", ["10.0.0.5", "::1", "pacs", "pacs-1.example.org", "PACS_1"])
def test_hosts_are_names_and_addresses(host: str) -> None:
    assert check_declaration(**GIVEN | {"host": f" {host} "}).host == host


def test_padding_is_no_part_of_an_ae_title_and_all_services_are_allowed_unless_named() -> None:
    declared = check_declaration(**GIVEN | {"ae_title": " MY PACS  ", "description": " "})
    assert declared.ae_title == "MY PACS"
    assert declared.allows == list(DicomService)
    assert declared.description is None
    few = check_declaration(**GIVEN | {"allows": [DicomService.STORE, DicomService.ECHO]})
    assert few.allows == [DicomService.ECHO, DicomService.STORE]


def test_what_orthanc_answers_of_a_modality_is_compared_with_what_it_should_be() -> None:
    wanted = {"AET": "A", "AllowStore": True, "AllowStorageCommitment": False, "Timeout": 30}
    # Orthanc 1.10.1.
    present = {"AET": "A", "AllowStore": True, "AllowNAction": False, "Manufacturer": "Generic"}
    assert is_mirrored(wanted, present)
    assert not is_mirrored(wanted, None)
    assert not is_mirrored(wanted, present | {"AET": "B"})
    assert not is_mirrored(wanted, present | {"AllowStore": False})
    assert not is_mirrored(wanted, present | {"AllowNAction": True})
