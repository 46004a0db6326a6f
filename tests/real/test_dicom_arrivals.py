"""A study that a modality sends by C-STORE is in GraphQL, complete."""

import asyncio
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from services.embedded.orthanc import run_orthanc
from services.embedded.orthanc_configuration import DicomServer
from services.embedded.ports import find_free_port
from services.runtime import open_runtime
from services.settings import Settings
from tests.real.sync_stage import eventually, instance_bytes, running
from tests.servers import run_server

QUERY = """{ studies { nodes {
  studyInstanceUID numberOfSeries numberOfInstances series { numberOfInstances }
} } }"""


async def test_a_study_from_storescu_is_complete(settings: Settings, tmp_path: Path) -> None:
    files = []
    for number in range(1, 21):
        files.append(tmp_path / f"{number}.dcm")
        files[-1].write_bytes(instance_bytes(1, 1 + number % 2, number))
    port = find_free_port()
    async with run_orthanc(
        tmp_path / "orthanc", dicom=DicomServer(port, unknown_may_store=True)
    ) as orthanc:
        changed = {
            "orthanc_url": orthanc.url,
            "orthanc_username": orthanc.username,
            "orthanc_password": SecretStr(orthanc.password),
            # Only the feed can tell.
            "sync_interval_seconds": 3600.0,
        }
        settings = settings.model_copy(update=changed)
        async with open_runtime(settings) as runtime, run_server(settings, runtime) as server:
            assert runtime.sync is not None
            async with running(runtime.sync):
                sender = await asyncio.create_subprocess_exec(
                    "storescu", "-aec", "ORTHANC", "127.0.0.1", str(port), *map(str, files)
                )
                assert await sender.wait() == 0

                async def is_complete() -> bool:
                    data: Any = await server.graphql(QUERY)
                    return bool(data["studies"]["nodes"] == [EXPECTED])

                await eventually(is_complete)


EXPECTED = {
    "studyInstanceUID": "1.2.826.0.1.3680043.8.498.1",
    "numberOfSeries": 2,
    "numberOfInstances": 20,
    "series": [{"numberOfInstances": 10}, {"numberOfInstances": 10}],
}
