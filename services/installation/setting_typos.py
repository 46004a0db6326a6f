"""Names in `.env` and in the environment that look like a misspelt setting.

pydantic-settings ignores what is no setting, so a misspelt one would have no effect and no message.
"""

from collections.abc import Collection, Iterator
from difflib import get_close_matches

from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from services.settings import Settings

_CLOSE_IN_FILE = 0.8
"""Likeness from 0 to 1. Reaches from MONGO_URI to MONGODB_URL, not from ORTHANC_IMAGE, which
compose.yaml reads, to ORTHANC_USERNAME."""

_CLOSE_IN_ENVIRONMENT = 0.85
"""The environment is full of names of other programs."""

_FOREIGN_PREFIXES = ("ORTHANC__", "MONGO_INITDB_")
"""Settings of the official images of Orthanc and MongoDB."""

_FOREIGN_IN_ENVIRONMENT = frozenset(
    {"DATADIR", "ORTHANC_NAME", "TOKEN_FILE", "UPLOAD_MAX_FILESIZE"}
)
"""Of databases, images of Orthanc, clouds and PHP."""


def read_setting_typos() -> list[str]:
    """Check `.env` and the environment as `Settings` reads them. Blocks.

    Returns:
        A sentence for each misspelt setting; see `find_setting_typos`.
    """
    return find_setting_typos(
        settings=[name.upper() for name in Settings.model_fields],
        in_file=_names(DotEnvSettingsSource(Settings)),
        in_environment=_names(EnvSettingsSource(Settings)),
    )


def find_setting_typos(
    *, settings: Collection[str], in_file: Collection[str], in_environment: Collection[str]
) -> list[str]:
    """Find the names that are no setting and close to one.

    A name in the environment belongs to another program, and is ignored, when the setting that is
    close to it is given as well.

    Args:
        settings: Names of all settings; these and all others in capitals.
        in_file: Names to which `.env` gives a value.
        in_environment: Names to which the environment gives a value.

    Returns:
        A sentence for each, which names the place and the setting that may be meant.
    """
    others = set(in_environment) - _FOREIGN_IN_ENVIRONMENT
    given = {*in_file, *in_environment}
    found = [(".env", *typo) for typo in _misspelt(in_file, settings, _CLOSE_IN_FILE)]
    for name, meant in _misspelt(others, settings, _CLOSE_IN_ENVIRONMENT):
        if meant not in given:
            found.append(("the environment", name, meant))
    return [f"{name} in {place} is no setting. Did you mean {to}?" for place, name, to in found]


def _names(source: EnvSettingsSource) -> list[str]:
    # A blank value sets nothing, so a blank typo loses nothing.
    return [name.upper() for name, value in source.env_vars.items() if value]


def _misspelt(
    names: Collection[str], settings: Collection[str], close: float
) -> Iterator[tuple[str, str]]:
    """Yield each name with the setting that it resembles."""
    for name in sorted(names):
        if name in settings or name.startswith(_FOREIGN_PREFIXES):
            continue
        if alike := get_close_matches(name, settings, cutoff=close):
            # By its letters ORTHANC_USER is nearer to ORTHANC_URL than to ORTHANC_USERNAME.
            yield name, next((one for one in alike if one.startswith(name)), alike[0])
