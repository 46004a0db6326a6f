"""Secrets that all processes share and that nobody enters."""

from models.stored import NamedDocument


class SecretDocument(NamedDocument):
    """A secret by its purpose, such as `pseudonyms`."""

    value: bytes

    class Settings:
        """Collection."""

        name = "secrets"
