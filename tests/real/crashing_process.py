"""A process that works on the real stores and kills itself at a given point.

Arguments: the point, how often it is passed before, JSON of addresses, then the files to store; no
files means following Orthanc instead.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from services.database import open_database
from services.dicom.layout import WalkLimits
from services.index import indexer as indexing
from services.index.indexer import open_indexer
from services.ingest.archives import ArchiveLimits
from services.ingest.service import Ingest, SentFile
from services.ingest.storing import FileStorage
from services.orthanc.client import OrthancClient
from services.orthanc.files import OrthancFiles, open_orthanc_files
from services.orthanc.transport import open_http_client
from services.sync.follower import FeedCursor
from services.sync.service import SyncService

POINTS = {
    "push": (OrthancFiles, "in_thread"),
    "index": (indexing.Indexer, "index"),
    "roll-up": (indexing, "roll_up"),
    "cursor": (FeedCursor, "move"),
}
"""Names of points, and the call before which the process dies."""


def die_before(point: str, passes: int) -> None:
    """Arm a point."""
    holder, name = POINTS[point]
    original = getattr(holder, name)
    calls = 0

    async def armed(*args: Any, **options: Any) -> Any:  # noqa: ANN401  # wraps any of the calls
        nonlocal calls
        calls += 1
        if calls > passes:
            os.kill(os.getpid(), signal.SIGKILL)
        return await original(*args, **options)

    setattr(holder, name, armed)


async def main(addresses: dict[str, str], files: list[Path]) -> None:
    """Store the files, or follow until killed."""
    async with (
        open_database(addresses["mongodb"], addresses["database"]) as database,
        open_indexer(database) as indexer,
        open_http_client(
            addresses["orthanc"], addresses["username"], addresses["password"]
        ) as http,
        open_orthanc_files(
            addresses["orthanc"], addresses["username"], addresses["password"]
        ) as to_orthanc,
    ):
        orthanc = OrthancClient(http)
        if files:
            storage = FileStorage(orthanc, to_orthanc, indexer.index, WalkLimits())
            ingest = Ingest(storage, limits=ArchiveLimits(), concurrency=2)
            middle = len(files) // 2
            # What comes at once is indexed together: the halves are two batches at least.
            for half in (files[:middle], files[middle:]):
                async for result in ingest.results([SentFile.from_path(file) for file in half]):
                    sys.stdout.write(f"{result.status} {result.instance_id}\n")
                    sys.stdout.flush()
            return
        sync = SyncService(
            orthanc,
            to_orthanc.beginnings,
            database,
            indexer,
            poll_seconds=0.1,
            interval_seconds=60,
            limits=WalkLimits(),
            lease_seconds=1.5,
        )
        await sync.run()


if __name__ == "__main__":
    die_before(sys.argv[1], int(sys.argv[2]))
    asyncio.run(main(json.loads(sys.argv[3]), [Path(name) for name in sys.argv[4:]]))
