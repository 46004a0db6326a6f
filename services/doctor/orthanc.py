"""Orthanc: whether it answers, lets us in and is a safe release."""

from services.doctor.findings import Finding, ok, problem, warning
from services.errors import Error
from services.orthanc.answers import SystemInfo
from services.orthanc.client import OrthancClient
from services.orthanc.transport import open_http_client

_PART = "Orthanc"


ADVICE = "Check ORTHANC_URL and that Orthanc runs."
ADVICE_EMBEDDED = "The server restarts it when it ends; restart the server if Orthanc hangs."


async def examine_orthanc(
    url: str, username: str, password: str, *, advice: str = ADVICE, is_embedded: bool = False
) -> list[Finding]:
    """Check an Orthanc.

    Args:
        url: Base of its REST API.
        username: Its user, `""` for none.
        password: Of that user.
        advice: What to do when it does not answer.
        is_embedded: The server starts it.
    """
    async with open_http_client(url, username, password, connections=1) as http:
        client = OrthancClient(http)
        try:
            return judge(await client.system(), is_embedded=is_embedded)
        except Error as exc:
            said = exc.message if "ORTHANC_" in exc.message else f"{exc.message} {advice}"
            return [problem(_PART, said)]


def judge(system: SystemInfo, *, is_embedded: bool = False) -> list[Finding]:
    """Judge what Orthanc says about itself.

    Args:
        system: Its identity.
        is_embedded: The server starts it, to listen on loopback only.
    """
    findings = [ok(_PART, f"{system.version} lets us in")]
    vulnerability = system.vulnerability_warning(is_embedded=is_embedded)
    if vulnerability:
        advice = f"{vulnerability} Until then take files from known senders only."
        findings.append(warning(_PART, advice))
    if is_embedded and system.listens_everywhere:
        message = (
            f"{system.version} listens on all interfaces and refuses clients of other machines. "
            "Releases since 1.12.10 listen on loopback only."
        )
        findings.append(warning(_PART, message))
    return findings
