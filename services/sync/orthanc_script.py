"""The Lua script with which Orthanc reports each deletion immediately."""

import re

from services.errors import InvalidInput

EVENTS_PATH = "/internal/orthanc-events"
"""The route that the script calls."""

SECRET_HEADER = "X-Orthanc-Events-Secret"  # noqa: S105  # a header's name

_SCRIPT = """\
-- Reports deleted instances to orthanc-graphql, which then need not wait for a comparison.
-- Orthanc calls this in its own thread; without a listener a call fails at once and nothing
-- is lost, because the next comparison finds the deletion.
function OnDeletedInstance(instanceId)
  pcall(HttpPost, '{url}', '{{"deleted":["' .. instanceId .. '"]}}',
        {{ ['Content-Type'] = 'application/json', ['{header}'] = '{secret}' }})
end
"""


_URL = re.compile(r"https?://[A-Za-z0-9._~:/\[\]%-]+")
"""The text that may be inserted into the strings of the script."""


def deletion_script(base_url: str, secret: str) -> str:
    """Return the script for the setting `LuaScripts` of Orthanc's configuration.

    Args:
        base_url: Scheme, host and port of this server as Orthanc reaches it.
        secret: Authenticates Orthanc's calls: letters and digits.

    Raises:
        InvalidInput: A value would end its string in the script.
    """
    if _URL.fullmatch(base_url) is None:
        raise InvalidInput("Give the address as http://host:port, as Orthanc reaches this server.")
    if not (secret.isascii() and secret.isalnum()):
        raise InvalidInput("ORTHANC_EVENTS_SECRET must be letters and digits.")
    return _SCRIPT.format(
        url=base_url.rstrip("/") + EVENTS_PATH, header=SECRET_HEADER, secret=secret
    )
