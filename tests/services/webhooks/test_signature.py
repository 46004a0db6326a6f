import base64

import pytest

from services.errors import InvalidInput
from services.webhooks.signature import WebhookKeys

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_signature_is_that_of_the_specification() -> None:
    """The published vector of Standard Webhooks."""
    headers = WebhookKeys.parse(SECRET).headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_each_key_signs_while_one_replaces_the_other() -> None:
    other = "whsec_" + base64.b64encode(bytes(range(32))).decode()
    headers = WebhookKeys.parse(f"{SECRET}, {other}").headers("x", 1, b"{}")
    one, two = headers["webhook-signature"].split(" ")
    assert one == WebhookKeys.parse(SECRET).headers("x", 1, b"{}")["webhook-signature"]
    assert two == WebhookKeys.parse(other).headers("x", 1, b"{}")["webhook-signature"]


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_###", "whsec_c2hvcnQ=", SECRET[6:]])
def test_a_key_that_is_none_is_refused_without_being_repeated(secret: str) -> None:
    with pytest.raises(InvalidInput, match="WEBHOOK_SECRET") as refused:
        WebhookKeys.parse(secret)
    assert len(secret) < 8 or secret[6:] not in refused.value.message
