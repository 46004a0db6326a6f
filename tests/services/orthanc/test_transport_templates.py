"""Metrics and traces name routes of Orthanc, never what is in them."""

import pytest

from services.orthanc.transport import template_of

ID = "e272ec31-83f5a738-63442123-7ff8139b-67669f4e"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/system", "/system"),
        ("/changes?since=7&limit=100", "/changes"),
        ("/tools/bulk-content", "/tools/bulk-content"),
        (f"/instances/{ID}/file", "/instances/{id}/file"),
        (f"/instances/{ID}/attachments/dicom/md5", "/instances/{id}/attachments/dicom/md5"),
        (f"/instances/{ID}/frames/17/raw", "/instances/{id}/frames/{id}/raw"),
        (f"/studies/{ID}/labels/ward", "/studies/{id}/labels/{id}"),
        ("/modalities/scanner", "/modalities/{id}"),
        ("/jobs/6a0b6b3c-0a5a-4f5e-9d3c-3f1f0c1b2a3d", "/jobs/{id}"),
        ("/jobs/6a0b6b3c-0a5a-4f5e-9d3c-3f1f0c1b2a3d/cancel", "/jobs/{id}/cancel"),
        ("/jobs/abcdefab-abcd-abcd-abcd-abcdefabcdef", "/jobs/{id}"),
    ],
)
def test_a_path_becomes_its_template(path: str, expected: str) -> None:
    assert template_of(path) == expected
