"""What the text of a setting may be, and what it becomes."""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from services.credentials.oidc_rules import is_safe_provider_url


def _none_if_blank(value: object) -> object:
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


_BLANK_IS_NONE = BeforeValidator(_none_if_blank)

OptionalText = Annotated[str | None, _BLANK_IS_NONE]
OptionalNumber = Annotated[int | None, _BLANK_IS_NONE]
OptionalPath = Annotated[Path | None, _BLANK_IS_NONE]
OptionalSecret = Annotated[SecretStr | None, _BLANK_IS_NONE]

OptionalHttpUrl = Annotated[Annotated[str, AfterValidator(_http_url)] | None, _BLANK_IS_NONE]
"""Without a slash at its end."""

OptionalProviderUrl = Annotated[
    Annotated[str, AfterValidator(_provider_url)] | None, _BLANK_IS_NONE
]
"""As it was given: an issuer is compared letter by letter."""

CommaSeparated = Annotated[list[str], NoDecode, BeforeValidator(_parts)]
"""A list without blanks around its parts and without empty ones."""

Networks = Annotated[CommaSeparated, AfterValidator(_networks)]
"""Addresses and networks, all spelled as networks."""
