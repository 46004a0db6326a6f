"""The secrets of an installation in containers: made once, in a folder for each container.

Each container has only its own folder: Orthanc does not learn the password of MongoDB, nor MongoDB
the keys of signed URLs. The files can be read by every user of their container, because the images
choose different ones.
"""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from services.frames.signing import generate_key
from services.sync.orthanc_script import deletion_script

_USER = "orthanc-graphql"
_READABLE = 0o644
_SCRIPT_NAME = "orthanc-events.lua"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the containers find each other.

    Attributes:
        mongodb: Host and port of MongoDB.
        replica_set: Name of its replica set.
        server: Base URL of this server, as Orthanc reaches it.
        orthanc_folder: Where Orthanc's container has its folder of secrets.
    """

    mongodb: str = "mongodb:27017"
    replica_set: str = "rs0"
    server: str = "http://server:8000"
    orthanc_folder: str = "/run/secrets"


def make_secrets(folder: Path, places: Places = Places()) -> bool:  # frozen
    """Make the secrets of all containers, unless they are there. Blocks.

    The folder of the server has a file for each setting (`SECRETS_DIR`), that of MongoDB its
    password and the key of its replica set, that of Orthanc a part of its configuration.

    Args:
        folder: Has the folders `server`, `mongodb` and `orthanc`, or gets them.
        places: Where the containers find each other.

    Returns:
        Whether they were made now. An interrupted start makes all of them again: nothing was
        started with them.
    """
    done = folder / "server" / "complete"
    if done.exists():
        return False
    password = secrets.token_hex(32)
    orthanc_password, events_secret = secrets.token_hex(32), secrets.token_hex(16)
    url = f"mongodb://{_USER}:{quote(password)}@{places.mongodb}/"
    script = f"{places.orthanc_folder}/{_SCRIPT_NAME}"
    files = {
        "mongodb/username": _USER,
        "mongodb/password": password,
        "mongodb/keyfile": secrets.token_hex(64),
        "orthanc/orthanc.json": json.dumps(
            {"RegisteredUsers": {_USER: orthanc_password}, "LuaScripts": [script]}
        ),
        f"orthanc/{_SCRIPT_NAME}": deletion_script(places.server, events_secret),
        "server/mongodb_url": f"{url}?replicaSet={places.replica_set}&authSource=admin",
        "server/orthanc_username": _USER,
        "server/orthanc_password": orthanc_password,
        "server/orthanc_events_secret": events_secret,
        "server/frame_url_keys": generate_key(),
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        path.chmod(_READABLE)
    done.touch()
    return True
