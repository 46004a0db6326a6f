"""Names that look like a setting and are none: what they set is passed over silently."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from services.settings import Settings

_CLOSE_IN_FILE = 0.8
"""Likeness from 0 to 1. Reaches from MONGO_URI to MONGODB_URL, not from ORTHANC_IMAGE, which
compose.yaml reads, to ORTHANC_USERNAME."""

_CLOSE_IN_ENVIRONMENT = 0.85
"""The environment is full of names of others."""

_FOREIGN_PREFIXES = ("ORTHANC__", "MONGO_INITDB_")
"""Settings of the official images of Orthanc and MongoDB."""

_FOREIGN_IN_ENVIRONMENT = frozenset(
    {"DATADIR", "ORTHANC_NAME", "TOKEN_FILE", "UPLOAD_MAX_FILESIZE"}
)
"""Of databases, images of Orthanc, clouds and PHP."""


@dataclass(frozen=True, slots=True)
class SettingTypo:
    """A name that was given and is no setting.

    Attributes:
        name: In capitals, as given otherwise.
        meant: The setting that is most like it.
        place: Where it was given.
    """

    name: str
    meant: str
    place: str

    def __str__(self) -> str:
        return f"{self.name} in {self.place} is no setting. Did you mean {self.meant}?"


def read_setting_typos() -> list[SettingTypo]:
    """Look through `.env` and the environment, as `Settings` reads them. Blocks."""
    return find_setting_typos(
        settings=[name.upper() for name in Settings.model_fields],
        in_file=_names(DotEnvSettingsSource(Settings)),
        in_environment=_names(EnvSettingsSource(Settings)),
    )


def find_setting_typos(
    *, settings: Collection[str], in_file: Collection[str], in_environment: Collection[str]
) -> list[SettingTypo]:
    """Find the names that are no setting and close to one.

    A name of the environment is left alone when the setting that is like it is given as well:
    then it is another program's.

    Args:
        settings: Names of all settings, in capitals, as all others.
        in_file: Names that `.env` gives a value.
        in_environment: Names that the environment gives a value.
    """
    others = set(in_environment) - _FOREIGN_IN_ENVIRONMENT
    given = {*in_file, *in_environment}
    return [
        *_misspelt(in_file, settings, ".env", _CLOSE_IN_FILE),
        *(
            found
            for found in _misspelt(others, settings, "the environment", _CLOSE_IN_ENVIRONMENT)
            if found.meant not in given
        ),
    ]


def _names(source: EnvSettingsSource) -> list[str]:
    # Of a blank value nothing gets lost.
    return [name.upper() for name, value in source.env_vars.items() if value]


def _misspelt(
    names: Collection[str], settings: Collection[str], place: str, close: float
) -> Iterator[SettingTypo]:
    for name in sorted(names):
        if name in settings or name.startswith(_FOREIGN_PREFIXES):
            continue
        if alike := get_close_matches(name, settings, cutoff=close):
            # By its letters ORTHANC_USER is nearer to ORTHANC_URL.
            meant = next((setting for setting in alike if setting.startswith(name)), alike[0])
            yield SettingTypo(name, meant, place)
