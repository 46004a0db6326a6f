"""What the text of a setting may be, and what it becomes."""

from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from services.credentials.oidc_rules import is_safe_provider_url


def none_if_blank(value: object) -> object:
    """Return a setting as it is, or None when it is text without a character that shows."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    return None if isinstance(text, str) and not text.strip() else value


def _http_url(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    return value.rstrip("/")


def _provider_url(value: str) -> str:
    if not is_safe_provider_url(value):
        raise ValueError("must start with https:// (http:// only for this machine)")
    return value


def _parts(value: object) -> object:
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


def _networks(value: list[str]) -> list[str]:
    # A slip of the pen would otherwise be a proxy that is silently not believed.
    return [str(ip_network(part)) for part in value]


HttpUrl = Annotated[str, AfterValidator(_http_url)]
"""Without a slash at its end."""

ProviderUrl = Annotated[str, AfterValidator(_provider_url)]
"""As it was given: an issuer is compared letter by letter."""

CommaSeparated = Annotated[list[str], NoDecode, BeforeValidator(_parts)]
"""A list without blanks around its parts and without empty ones."""

Networks = Annotated[CommaSeparated, AfterValidator(_networks)]
"""Addresses and networks, all spelled as networks."""
