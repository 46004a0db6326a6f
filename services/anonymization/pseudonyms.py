"""Names and UIDs that stand for others: the same for the same, and without a way back.

All are derived by HMAC-SHA256 from what they stand for and a secret key of this server, which is
made once and kept in MongoDB. So the studies of a patient stay together without a table of pairs,
references between files stay right, and a job that is repeated makes the same files again. Who has
the key and a PatientID can compute its pseudonym: keep backups of the database as safe as the
database.
"""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase

from models import SecretDocument
from services.database import translated_database_faults

_KEY_ID = "pseudonyms"
_KEY_BYTES = 32
_PSEUDONYM_BYTES = 10
"""16 letters and digits; two of a million patients get the same one in one of 10^12 archives."""

_UUID_BITS = 128
_UUID_ROOT = "2.25"
"""UIDs of UUIDs (PS3.5 B.2)."""


async def load_or_create_pseudonym_key(database: AsyncDatabase[dict[str, Any]]) -> bytes:
    """Return the key of this archive; of several processes the first makes it.

    Raises:
        DatabaseUnavailable: MongoDB does not answer.
    """
    with translated_database_faults():
        document = await database[SecretDocument.Settings.name].find_one_and_update(
            {"_id": _KEY_ID},
            {"$setOnInsert": {"value": secrets.token_bytes(_KEY_BYTES)}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
    assert document is not None  # noqa: S101  # it was made if it was not there
    return bytes(document["value"])


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Derives what stands for identifiers.

    Attributes:
        key: Secret of this archive.
        salt: Differs for outputs that must not share UIDs: the same file, anonymised with other
            options, is another file.
    """

    key: bytes
    salt: bytes = b""

    def for_output(self, options: Mapping[str, Any] | Sequence[Any]) -> "Pseudonyms":
        """Return the ones of an output that is made with certain options."""
        text = json.dumps(options, sort_keys=True, ensure_ascii=True, default=str)
        return Pseudonyms(self.key, hashlib.sha256(text.encode()).digest())

    def patient_id(self, patient_id: str) -> str:
        """Return the PatientID that stands for another: `ANON-` and 16 letters and digits."""
        digest = self._digest(b"patient", patient_id, b"")[:_PSEUDONYM_BYTES]
        return f"ANON-{base64.b32encode(digest).decode()}"

    def uid(self, uid: str) -> str:
        """Return the UID that stands for another, derived as a UUID (PS3.5 B.2)."""
        number = int.from_bytes(self._digest(b"uid", uid, self.salt)[: _UUID_BITS // 8], "big")
        # Version 8 and the variant of RFC 9562: made by its maker's own rule.
        number = number & ~(0xF << 76) | 0x8 << 76
        number = number & ~(0x3 << 62) | 0x2 << 62
        return f"{_UUID_ROOT}.{number}"

    def _digest(self, purpose: bytes, text: str, salt: bytes) -> bytes:
        return hmac.digest(self.key, b"\0".join([purpose, salt, text.encode()]), "sha256")
