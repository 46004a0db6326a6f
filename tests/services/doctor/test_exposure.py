"""What the doctor says about the certificate of DICOM over TLS."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from services.doctor.exposure import examine_dicom_tls
from services.doctor.findings import Verdict
from tests.certificates import Authority


def test_a_certificate_is_renewed_in_time(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    files = Authority.make().issue(tmp_path, "ours", valid_days=60)
    finding = examine_dicom_tls(files, now)
    assert finding.verdict is Verdict.OK
    assert f"valid until {now + timedelta(days=60):%Y-%m-%d}" in finding.message
    finding = examine_dicom_tls(files, now + timedelta(days=40))
    assert (finding.verdict, "expires on" in finding.message) == (Verdict.WARNING, True)
    finding = examine_dicom_tls(files, now + timedelta(days=61))
    assert (finding.verdict, "expired on" in finding.message) == (Verdict.PROBLEM, True)
    finding = examine_dicom_tls(replace(files, key=tmp_path / "none.key"), now)
    assert (finding.verdict, "DICOM_TLS_KEY" in finding.message) == (Verdict.PROBLEM, True)
