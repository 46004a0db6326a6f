"""Faults that a real Orthanc can't be brought to on demand; tests/real has the rest."""

from collections.abc import AsyncIterator

import httpx
import pytest
import respx

from services import errors
from services.orthanc.client import OrthancClient
from services.orthanc.transport import open_http_client

URL = "http://orthanc.test"
INSTANCE = "f689ddd2-662f8fe1-8b18180d-ec2a2cee-937917af"


@pytest.fixture
async def client() -> AsyncIterator[OrthancClient]:
    async with open_http_client(URL, "user", "secret") as http:
        yield OrthancClient(http)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (302, errors.OrthancError),
        (400, errors.OrthancRefused),
        (401, errors.OrthancAuthenticationFailed),
        (403, errors.OrthancAuthenticationFailed),
        (404, errors.OrthancNotFound),
        (415, errors.OrthancRefused),
        (500, errors.OrthancError),
        (503, errors.OrthancBusy),
        (504, errors.OrthancOutcomeUnknown),
        (507, errors.OrthancFull),
    ],
)
async def test_a_status_of_orthanc_is_an_error_of_ours(
    client: OrthancClient, status: int, error: type[errors.OrthancError]
) -> None:
    with respx.mock:
        respx.get(f"{URL}/system").respond(status)
        with pytest.raises(errors.OrthancError) as raised:
            await client.system()
    assert type(raised.value) is error
    assert URL not in raised.value.message


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (b'{"OrthancStatus": 19}', errors.OrthancFull, "no room left"),
        (b'{"OrthancStatus": 14}', errors.OrthancFull, "write to its disk"),
        (b'{"OrthancStatus": 1009}', errors.OrthancError, "its own database"),
        (b'{"OrthancStatus": 15}', errors.OrthancError, "answered with an error"),
        (b'{"OrthancStatus": "19"}', errors.OrthancError, "answered with an error"),
        (b"[19]", errors.OrthancError, "answered with an error"),
        (b"{", errors.OrthancError, "answered with an error"),
        (b"", errors.OrthancError, "answered with an error"),
    ],
)
async def test_an_internal_error_of_orthanc_tells_its_kind(
    client: OrthancClient, body: bytes, error: type[errors.OrthancError], message: str
) -> None:
    with respx.mock:
        respx.get(f"{URL}/system").respond(500, content=body)
        with pytest.raises(errors.OrthancError) as raised:
            await client.system()
    assert type(raised.value) is error
    assert message in raised.value.message


@pytest.mark.parametrize(
    "fault",
    [
        fault
        for fault in vars(httpx).values()
        if isinstance(fault, type) and issubclass(fault, httpx.RequestError)
    ],
)
async def test_every_fault_of_the_http_library_is_translated(
    client: OrthancClient, fault: type[httpx.RequestError]
) -> None:
    with respx.mock:
        respx.get(f"{URL}/system").mock(side_effect=fault("secret in the text"))
        with pytest.raises(errors.OrthancUnavailable) as raised:
            await client.system()
    assert "secret" not in raised.value.message + raised.value.detail


@pytest.mark.parametrize("fault", [httpx.ReadError, httpx.RemoteProtocolError, httpx.ReadTimeout])
async def test_a_connection_that_breaks_after_sending_leaves_the_outcome_unknown(
    client: OrthancClient, fault: type[httpx.RequestError]
) -> None:
    with respx.mock:
        respx.delete(f"{URL}/instances/{INSTANCE}").mock(side_effect=fault("broken"))
        with pytest.raises(errors.OrthancOutcomeUnknown):
            await client.delete("instances", INSTANCE)


async def test_an_answer_that_is_cut_off_counts_as_unknown(client: OrthancClient) -> None:
    with respx.mock:
        respx.get(f"{URL}/system").respond(200, text='{"Version": "1.1')
        with pytest.raises(errors.OrthancOutcomeUnknown):
            await client.system()


async def test_a_long_answer_is_waited_for_and_a_connection_is_not(client: OrthancClient) -> None:
    study = f"{URL}/studies/{INSTANCE}"
    with respx.mock:
        routes = [
            respx.post(f"{URL}/tools/bulk-content").respond(200, json=[]),
            respx.get(f"{study}/series").respond(200, json=[]),
            respx.delete(study).respond(200),
            respx.get(f"{study}/archive").respond(200),
        ]
        await client.stored_files([INSTANCE])
        await client.study_series(INSTANCE)
        await client.delete("studies", INSTANCE)
        async with client.study_archive(INSTANCE):
            pass
    for route in routes:
        waited = route.calls.last.request.extensions["timeout"]
        assert (waited["connect"], waited["read"]) == (3, 120)


async def test_orthanc_is_asked_not_to_compress(client: OrthancClient) -> None:
    with respx.mock:
        route = respx.get(f"{URL}/system").respond(404)
        with pytest.raises(errors.OrthancNotFound):
            await client.system()
    assert route.calls.last.request.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("identifier", ["../system", "", f"{INSTANCE}/../..", INSTANCE.upper()])
async def test_what_is_no_identifier_never_becomes_a_path(
    client: OrthancClient, identifier: str
) -> None:
    with respx.mock(assert_all_called=False) as orthanc:
        with pytest.raises(errors.OrthancError):
            await client.dicom_md5(identifier)
        assert not orthanc.calls
