"""A JPEG 2000 frame that a modality sent and that would stop Orthanc is never decoded."""

import io
import time

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from services.embedded.orthanc import EmbeddedOrthanc
from services.frames.variant import FrameVariant
from tests.real.sync_stage import modality_client
from tests.servers import RunningServer


@pytest.mark.parametrize(("rows", "status"), [(None, 200), (12, 415)])
async def test_a_frame_that_contradicts_its_rows_is_415_and_orthanc_lives(
    server: RunningServer,
    empty_orthanc: EmbeddedOrthanc,
    rows: int | None,
    status: int,
) -> None:
    runtime = server.runtime
    pid = empty_orthanc.child.pid
    instance_id = await sent_by_a_modality(empty_orthanc, rows)
    assert runtime.sync is not None
    assert runtime.orthanc is not None
    await runtime.sync.reconciler.reconcile([instance_id])
    [file] = await runtime.orthanc.stored_files([instance_id])
    for variant in (FrameVariant(), FrameVariant(full_range=True)):
        signed = runtime.frames.signer.frame_path(
            instance_id, file.revision, 0, variant, now=time.time()
        )
        answer = await server.http.get(signed.path)
        assert answer.status_code == status, answer.text
        if status != 200:
            assert answer.json()["code"] == "FRAME_NOT_RENDERABLE"
    await runtime.orthanc.system()
    assert empty_orthanc.child.pid == pid


async def sent_by_a_modality(orthanc: EmbeddedOrthanc, rows: int | None) -> str:
    """Store a file without our checks, with other Rows than its image has."""
    dataset = dcmread(str(get_testdata_file("JPEG2000.dcm", download=False)))
    dataset.Rows = rows or dataset.Rows
    written = io.BytesIO()
    dataset.save_as(written)
    async with modality_client(orthanc) as http:
        answer = await http.post("/instances", content=written.getvalue())
    return str(answer.raise_for_status().json()["ID"])
