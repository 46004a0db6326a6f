import pytest

from services.orthanc.identifiers import OrthancIds, is_orthanc_id, orthanc_ids


def test_identifiers_equal_those_that_orthanc_gave_to_pydicoms_ct_small() -> None:
    assert orthanc_ids(
        "1CT1",
        "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322",
        "1.3.6.1.4.1.5962.1.3.1.1.20040119072730.12322",
        "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322",
    ) == OrthancIds(
        patient="fa558bce-587a86d3-ad0da9b3-9d043d9d-4f5c5718",
        study="8a8cf898-ca27c490-d0c7058c-929d0581-2bbf104d",
        series="93034833-163e42c3-bc9a428b-194620cf-2c5799e5",
        instance="f689ddd2-662f8fe1-8b18180d-ec2a2cee-937917af",
    )


@pytest.mark.parametrize(
    "value",
    [
        "",
        "f689ddd2",
        "F689DDD2-662f8fe1-8b18180d-ec2a2cee-937917af",
        "f689ddd2-662f8fe1-8b18180d-ec2a2cee-937917af\n",
        "f689ddd2-662f8fe1-8b18180d-ec2a2cee-937917af/..",
        "../../system",
    ],
)
def test_what_is_no_orthanc_identifier_is_told(value: str) -> None:
    assert not is_orthanc_id(value)
