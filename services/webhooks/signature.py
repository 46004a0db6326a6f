"""Signatures of webhooks, as the Standard Webhooks specification makes them (version 1)."""

import base64
import binascii
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from services.errors import InvalidInput

_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)
"""Lengths that the specification allows."""


@dataclass(frozen=True, slots=True, repr=False)
class WebhookKeys:
    """Keys that sign: a receiver needs one of them, so that they can be replaced one by one."""

    keys: Sequence[bytes]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `whsec_<base64>`, several separated by commas.

        Raises:
            InvalidInput: Says what is wrong, never the key.
        """
        return cls([_parse(part.strip()) for part in text.split(",")])

    def headers(self, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """Return the headers of a delivery.

        Args:
            event_id: The same for every attempt.
            timestamp: Of this attempt, in epoch seconds.
            body: As it is sent.
        """
        signed = f"{event_id}.{timestamp}.".encode() + body
        signatures = [
            base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in self.keys
        ]
        return {
            "webhook-id": event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(f"v1,{one}" for one in signatures),
        }


def _parse(text: str) -> bytes:
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidInput("WEBHOOK_SECRET: write whsec_ and a key in base64.") from exc
    if not text.startswith(_PREFIX) or len(key) not in _KEY_BYTES:
        raise InvalidInput(
            "WEBHOOK_SECRET: write whsec_ and a key of 24 to 64 bytes in base64. Make one with: "
            "echo whsec_$(openssl rand -base64 32)"
        )
    return key
