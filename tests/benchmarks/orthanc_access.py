"""How a rival's client reaches the Orthanc of a stage."""

import base64

from tests.benchmarks.stage import Stage


def orthanc_access(stage: Stage) -> tuple[str, dict[str, str]]:
    """Return where the stage's Orthanc is, and the headers of a request for a picture."""
    stores = stage.stores.stores
    user = f"{stores.orthanc_username}:{stores.orthanc_password}".encode()
    headers = {
        "Authorization": f"Basic {base64.b64encode(user).decode()}",
        "Accept": "image/png",
        "Accept-Encoding": "identity",
    }
    return stores.orthanc_url or "", headers
