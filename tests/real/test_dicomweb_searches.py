"""QIDO-RS on real stores."""

from typing import Any

import pytest

from models import AuditRecord
from services.auth.roles import Principal, Role
from services.auth.scope import Scope
from tests.real.dicomweb_stage import ROOT, made, slices, store, uid, values
from tests.servers import RunningServer


async def found(server: RunningServer, path: str, *parameters: tuple[str, str]) -> list[Any]:
    answer = await server.http.get(f"{ROOT}{path}", params=list(parameters))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom+json"
    models: list[Any] = answer.json()
    return models


async def test_a_study_is_answered_with_the_required_attributes(server: RunningServer) -> None:
    await store(server, slices("P1", 3, series=2, PatientName="Yamada^Tarou=山田^太郎",
        SpecificCharacterSet="ISO_IR 192", StudyDate="20260102", StudyTime="103015",
        AccessionNumber="A1", StudyDescription="Chest", ReferringPhysicianName="Ref^Erring",
        PatientBirthDate="19500101", PatientSex="F", StudyID="S1"))  # fmt: skip
    (study,) = await found(server, "/studies")
    assert study == {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080020": {"vr": "DA", "Value": ["20260102"]},
        "00080030": {"vr": "TM", "Value": ["103015"]},
        "00080050": {"vr": "SH", "Value": ["A1"]},
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        "00080061": {"vr": "CS", "Value": ["CT"]},
        "00080090": {"vr": "PN", "Value": [{"Alphabetic": "Ref^Erring"}]},
        "00081190": {"vr": "UR", "Value": [f"{server.url}{ROOT}/studies/{uid('P1')}"]},
        "00100010": {
            "vr": "PN",
            "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}],
        },
        "00100020": {"vr": "LO", "Value": ["P1"]},
        "00100030": {"vr": "DA", "Value": ["19500101"]},
        "00100040": {"vr": "CS", "Value": ["F"]},
        "0020000D": {"vr": "UI", "Value": [uid("P1")]},
        "00200010": {"vr": "SH", "Value": ["S1"]},
        "00201206": {"vr": "IS", "Value": [2]},
        "00201208": {"vr": "IS", "Value": [3]},
    }
    series = await found(server, f"/studies/{uid('P1')}/series", ("includefield", "00081030"))
    assert [values(one, "00200011") for one in series] == [[1], [2]]
    assert [values(one, "00201209") for one in series] == [[2], [1]]
    assert values(series[0], "00081030") == ["Chest"]
    path = f"/studies/{uid('P1')}/series/{uid('P1', 0)}"
    assert values(series[0], "00081190") == [f"{server.url}{ROOT}{path}"]
    instances = await found(server, f"{path}/instances")
    assert [values(one, "00080018") for one in instances] == [
        [uid("P1", "instance", 0)],
        [uid("P1", "instance", 2)],
    ]
    assert values(instances[0], "00280010") == [128]
    assert values(instances[0], "00081190") == [
        f"{server.url}{ROOT}{path}/instances/{uid('P1', 'instance', 0)}"
    ]


async def test_searches_of_all_levels_filter_and_page(server: RunningServer) -> None:
    await store(server, [*slices("P1", 6, series=2, StudyDate="20260101", PatientName="Doe^Jane"),
        *slices("P2", 4, StudyDate="20260202", PatientName="Roe^Ann", Modality="MR")])  # fmt: skip
    assert await found(server, "/studies", ("PatientID", "nobody")) == []
    names = [("PatientName", "doe*"), ("00100020", "P1")]
    assert [values(one, "0020000D") for one in await found(server, "/studies", *names)] == [
        [uid("P1")]
    ]
    newest_first = [values(one, "00100020") for one in await found(server, "/studies")]
    assert newest_first == [["P2"], ["P1"]]
    (second,) = await found(server, "/studies", ("limit", "1"), ("offset", "1"))
    assert values(second, "00100020") == ["P1"]
    (mr,) = await found(server, "/series", ("Modality", "MR"))
    assert values(mr, "00100010") == [{"Alphabetic": "Roe^Ann"}]
    pages = [
        await found(server, "/instances", ("limit", "4"), ("offset", str(offset)))
        for offset in (0, 4, 8, 12)
    ]
    assert [len(page) for page in pages] == [4, 4, 2, 0]
    assert len({values(one, "00080018")[0] for page in pages for one in page}) == 10
    (one,) = await found(server, "/instances", ("SOPInstanceUID", uid("P1", "instance", 3)))
    assert values(one, "0020000D") == [uid("P1")]
    assert len(await found(server, f"/studies/{uid('P1')}/instances", ("InstanceNumber", "1"))) == 2


async def test_what_is_not_understood_is_refused(server: RunningServer) -> None:
    unknown = await server.http.get(f"{ROOT}/studies", params={"Nonsense": "1"})
    assert unknown.status_code == 400
    assert unknown.json()["code"] == "INVALID_INPUT"
    assert (await server.http.get(f"{ROOT}/studies?includefield=Nonsense")).status_code == 200
    xml = 'multipart/related; type="application/dicom+xml"'
    answer = await server.http.get(f"{ROOT}/studies", headers={"Accept": xml})
    assert answer.status_code == 406
    malformed = await server.http.get(f"{ROOT}/studies", headers={"Accept": "nonsense"})
    assert malformed.status_code == 400


async def test_more_results_than_are_answered_are_told(server: RunningServer) -> None:
    await store(server, slices("P1", 3))
    answer = await server.http.get(f"{ROOT}/instances", params={"fuzzymatching": "true"})
    assert answer.headers["warning"] == (
        '299 - "The fuzzymatching parameter is not supported. Only literal matching has been '
        'performed."'
    )
    plain = await server.http.get(f"{ROOT}/instances", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    zipped = await server.http.get(f"{ROOT}/instances", headers={"Accept-Encoding": "gzip"})
    assert zipped.headers["content-encoding"] == "gzip"
    assert zipped.json() == plain.json()


async def test_two_patients_studies_of_one_uid_are_never_mixed(server: RunningServer) -> None:
    for patient in ("A", "B"):
        own = {"SOPInstanceUID": uid(patient), "SeriesInstanceUID": uid(patient, "series")}
        await store(server, [made(PatientID=patient, StudyInstanceUID=uid("shared"), **own)])
    studies = await found(server, "/studies", ("StudyInstanceUID", uid("shared")))
    assert sorted(values(one, "00100020")[0] for one in studies) == ["A", "B"]
    answer = await server.http.get(f"{ROOT}/studies/{uid('shared')}/series")
    assert answer.status_code == 409
    assert answer.json()["code"] == "AMBIGUOUS_STUDY"
    (series,) = await found(server, f"/studies/{uid('shared')}/series", ("PatientID", "B"))
    assert values(series, "0020000E") == [uid("B", "series")]


async def test_nothing_outside_a_scope_is_found(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(server, [*slices("P1", 2), *slices("P2", 2)])
    study = await server.graphql(
        "query($uid: String!) { study(studyInstanceUID: $uid) { orthancStudyId } }", uid=uid("P1")
    )
    own: Any = study["study"]
    limited = Principal("share", Role.VIEWER, Scope(frozenset({own["orthancStudyId"]})))

    async def authenticate(_: object) -> Principal:
        return limited

    monkeypatch.setattr(server.runtime.authenticator, "authenticate", authenticate)
    assert [values(one, "00100020") for one in await found(server, "/studies")] == [["P1"]]
    assert await found(server, "/studies", ("PatientID", "P2")) == []
    assert await found(server, f"/studies/{uid('P2')}/series") == []
    assert len(await found(server, "/instances")) == 2


async def test_every_search_is_recorded(server: RunningServer) -> None:
    await store(server, slices("P1", 1))
    await found(server, "/studies", ("PatientID", "P1"))
    await server.runtime.audit.flush()
    record = await AuditRecord.find_one({"action": "view"})
    assert record is not None
    assert record.detail == "GET /dicomweb/studies"
    assert record.searched == 'GET /dicomweb/studies {"PatientID":"P1"}'
    assert len(record.orthanc_study_ids) == 1
