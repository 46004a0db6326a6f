from typing import get_args

import pytest

from graph.relay import (
    TypeName,
    decode_node_id,
    encode_node_id,
    frame_local_id,
    parse_frame_local_id,
    require_node_id,
)
from services.errors import InvalidInput

ORTHANC_ID = "f689ddd2-662f8fe1-8b18180d-ec2a2cee-937917af"
SHARE_ID = "0123456789abcdef"


@pytest.mark.parametrize("type_name", get_args(TypeName))
def test_an_id_is_read_back(type_name: TypeName) -> None:
    own_ids = {
        "Share": SHARE_ID,
        "Job": SHARE_ID,
        "WorklistEntry": SHARE_ID * 2,
        "Frame": frame_local_id(ORTHANC_ID, 7),
    }
    own_id = own_ids.get(type_name, ORTHANC_ID)
    assert decode_node_id(encode_node_id(type_name, own_id)) == (type_name, own_id)


def test_the_id_of_a_frame_holds_its_instance_and_its_index() -> None:
    assert parse_frame_local_id(frame_local_id(ORTHANC_ID, 7)) == (ORTHANC_ID, 7)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Study",
        "né",
        ORTHANC_ID,
        encode_node_id("Study", "../../system"),
        encode_node_id("Frame", ORTHANC_ID),
        encode_node_id("Frame", f"{ORTHANC_ID}/-1"),
        encode_node_id("Frame", f"{ORTHANC_ID}/01"),
        encode_node_id("Frame", f"{ORTHANC_ID}/1/2"),
        encode_node_id("Study", f"{ORTHANC_ID}/1"),
        encode_node_id("Study", ORTHANC_ID).rstrip("="),
        encode_node_id("Study", ORTHANC_ID) + "=",
        "UXVlcnk6" + encode_node_id("Study", ORTHANC_ID),
    ],
)
def test_what_was_never_given_out_is_no_id(text: str) -> None:
    assert decode_node_id(text) is None


def test_the_id_of_another_type_is_refused_with_the_type_that_is_wanted() -> None:
    with pytest.raises(InvalidInput, match="not the id of a Study"):
        require_node_id("Study", encode_node_id("Series", ORTHANC_ID))
