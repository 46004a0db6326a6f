"""Limited principals get the answers of a server that stores nothing else.

One database holds studies of several people, some of them in the scope of a share and of a label.
The other holds those studies alone. Every root field answers a limited caller of the first as it
answers an unlimited caller of the second: data, counts, pages and errors.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
import strawberry

from graph.relay import TypeName, encode_node_id
from models import JobKind
from services.auth.roles import Principal, Role
from services.auth.scope import ALL, NOTHING, Scope
from services.embedded.mongod import EmbeddedMongod
from services.index.rollup import roll_up
from services.index.writes import Parents
from services.jobs.handler import NewJob
from services.worklist.entry import EntryValues
from tests.real.query_stage import BEGIN, QueryStage, open_query_stage, orthanc_id

SHARED = "1.2.1"
VIEWER = Principal("viewer", Role.VIEWER)

PAGE = "pageInfo { hasNextPage hasPreviousPage startCursor endCursor } totalCount"
PATIENT = f"""fragment P on Patient {{
  id patientID patientName patientDisplayName patientBirthDate patientSex issuerOfPatientID
  hasConflictingDemographics numberOfStudies
  studies(first: 1) {{ nodes {{ id studyDescription }} {PAGE} }}
}}"""
STUDY = """fragment S on Study {
  id studyInstanceUID patientName numberOfInstances labels
  patient { ...P } priors { id studyDescription } otherStudiesWithThisUID { id patientName }
  series {
    id instances(first: 2) { id sopInstanceUID frames { index } series { id } } study { id }
  }
}"""
SERIES = "fragment E on Series { id seriesInstanceUID study { ...S } instances { id } }"
INSTANCE = "fragment I on Instance { id sopInstanceUID parent: series { ...E } }"
FRAGMENTS = f"{PATIENT} {STUDY} {SERIES} {INSTANCE}"

NODES = "nodes(ids: [%s]) { __typename ...P ...S ...E ...I }"
FRAMES = "frames(refs: [%s]) { id index orthancInstanceId }"
NODE = "node(id: %s) { __typename ...P ...S ...E ...I }"
QUERIES: dict[str, list[str]] = {
    # These ask for everything that is or might be stored, by identifier.
    "node": [],
    "nodes": [],
    "frames": [],
    "patient": [f'patient(patientID: "{one}") {{ ...P }}' for one in ("P1", "P2", "P3", "P9", "")],
    "patients": [
        f"patients(first: 1) {{ nodes {{ ...P }} {PAGE} }}",
        f"patients {{ nodes {{ ...P }} edges {{ cursor }} {PAGE} }}",
        f'patients(filter: {{patientName: "huber"}}) {{ nodes {{ ...P }} {PAGE} }}',
        f'patients(filter: {{patientName: "meier"}}) {{ nodes {{ ...P }} {PAGE} }}',
        f'patients(filter: {{patientID: "P1"}}) {{ nodes {{ ...P }} {PAGE} }}',
        f'patients(filter: {{patientID: "P3"}}) {{ nodes {{ ...P }} {PAGE} }}',
        'patients(after: "x") { totalCount }',
    ],
    "study": [f'study(studyInstanceUID: "{uid}") {{ ...S }}' for uid in ("1.2.1", "1.2.2", "1.2.4")]
    + ['study(studyInstanceUID: "9") { ...S }'],
    "studies": [
        f"studies {{ nodes {{ ...S }} {PAGE} }}",
        f"studies(first: 1) {{ nodes {{ ...S }} {PAGE} }}",
        f"studies(last: 1) {{ nodes {{ ...S }} {PAGE} }}",
        "studies(first: 0) { totalCount pageInfo { hasNextPage } }",
        'studies(filter: {patientName: "meier"}) { nodes { ...S } totalCount }',
        'studies(filter: {patientID: "P1"}) { nodes { ...S } totalCount }',
        'studies(filter: {patientID: "P3"}) { nodes { ...S } totalCount }',
        'studies(filter: {text: "secret"}) { nodes { ...S } totalCount }',
        'studies(filter: {studyInstanceUIDs: ["1.2.1", "1.2.2"]}) { nodes { ...S } totalCount }',
        'studies(filter: {modalities: ["MR"]}) { nodes { ...S } totalCount }',
        "studies(orderBy: {field: PATIENT_NAME}) { nodes { id } edges { cursor } totalCount }",
        "studies { modalityCounts { modality count } }",
        'studies(where: {not: {matches: {patientName: "huber"}}}) { nodes { id } totalCount }',
        """studies(where: {or: [{matches: {patientID: "P3"}}, {matches: {patientID: "P2"}}]}) {
          nodes { id } totalCount modalityCounts { modality count }
        }""",
        'studies(filter: {labels: ["ward"]}) { nodes { id labels } totalCount }',
        'studies(filter: {labels: ["other", "x"]}) { nodes { id } totalCount }',
        'studies(where: {not: {matches: {labels: ["other"]}}}) { nodes { id } totalCount }',
        "studies(filter: {withoutLabels: true}) { nodes { id } totalCount }",
        "studies(filter: {withoutLabels: false}) { nodes { id } totalCount }",
        "studies(first: 501) { totalCount }",
    ],
    "series": [f'series(seriesInstanceUID: "{uid}") {{ ...E }}' for uid in ("1.3.1", "1.3.2", "9")],
    "instance": [
        f'instance(sopInstanceUID: "{uid}") {{ ...I }}' for uid in ("1.3.1.0", "1.3.2.0", "9")
    ],
    "server": ["server { numberOfPatients numberOfStudies numberOfInstances feed { message } }"],
    "labels": ["labels { label numberOfStudies }"],
    "shares": ["shares { totalCount }"],
    "backups": ["backups { name }"],
    "job": [f'job(id: "{encode_node_id("Job", "0" * 16)}") {{ id }}', 'job(id: "x") { id }'],
    "jobs": [f"jobs(first: 1) {{ nodes {{ id kind studies {{ id }} }} {PAGE} }}"],
    "orthancJobs": ["orthancJobs { id }"],
    "worklist": [f"worklist(first: 1) {{ nodes {{ id patientID }} {PAGE} }}"],
    "modalities": ["modalities { name }"],
    "forwardingRules": ["forwardingRules { name }"],
    "modality": ['modality(name: "x") { name }'],
    "remotePatients": ['remotePatients(modality: "x", filter: {patientID: "P1"}) { patientID }'],
    "remoteWorklist": ['remoteWorklist(modality: "x", filter: {}) { patientID }'],
    "remoteStudies": [
        'remoteStudies(modality: "x", filter: {patientID: "P1"}) { nodes { study { id } } }'
    ],
    "viewer": ["viewer { role canUpload canDelete canDownload }"],
}
"""What is asked, by root field. A new root field fails the tests until it stands here."""


LIMITED = {
    "share": replace(
        VIEWER,
        scope=Scope(study_ids=frozenset({orthanc_id("P1", SHARED), orthanc_id("P2", "1.2.3")})),
    ),
    "label": replace(VIEWER, scope=Scope(labels=frozenset({"ward", "unused"}))),
}

Answer = tuple[dict[str, Any] | None, list[str]]


@dataclass(frozen=True, slots=True)
class Stages:
    """Everything that is stored, and the answers of the server that stores a part of it."""

    whole: QueryStage
    expected: dict[str, dict[str, list[tuple[str, Answer]]]]


async def _store(
    stage: QueryStage, numbers: set[int], *, are_labelled: bool = True
) -> list[tuple[TypeName, str]]:
    """Store studies; answers the identifiers of all that could be stored."""
    described: dict[int, tuple[str, dict[str, Any]]] = {
        1: ("P1", {"patient_name": "Huber^Maria", "study_date": "2020-01-01"}),
        # Earlier than the first one: one of its priors.
        2: (
            "P1",
            {
                "patient_name": "Meier^Eva",
                "study_description": "secret",
                "study_date": "2019-01-01",
                "modalities_in_study": ["MR"],
            },
        ),
        3: ("P2", {"patient_name": "Yamada^Tarou", "study_description": "shared as well"}),
        4: ("P3", {"patient_name": "Weber^Karl", "modalities_in_study": ["MR"]}),
        # The UIDs of the first study under another PatientID, changed later.
        5: ("P3", {"patient_name": "Weber^Karl", "study_instance_uid": SHARED}),
    }
    ids: list[tuple[TypeName, str]] = []
    for number, (patient_id, fields) in described.items():
        uid = fields.get("study_instance_uid", f"1.2.{number}")
        study_id = orthanc_id(patient_id, uid)
        series = 2 if number in {2, 4} else 1
        series_id = orthanc_id(study_id, series)
        ids += [
            ("Patient", orthanc_id(patient_id)),
            ("Study", study_id),
            ("Series", series_id),
            ("Instance", orthanc_id(series_id, 0)),
        ]
        if number in numbers:
            await stage.store_study(
                patient_id,
                number,
                labels=_labels(number) if are_labelled else [],
                number_of_instances=2,
                number_of_series=1,
                latest_indexed_at=BEGIN + timedelta(minutes=number),
                demographics_of_files=[{"patientName": fields["patient_name"]}],
                **fields,
            )
            await stage.store_series(study_id, series, 2)
    patients = Parents((), (), {orthanc_id(patient) for patient, _ in described.values()})
    await roll_up(stage.runtime.database, patients, BEGIN, children_written=True)
    return ids


def _labels(number: int) -> list[str]:
    """Name another group on one of the studies: nobody else may know of it."""
    return {1: ["ward"], 3: ["ward"]}.get(number, ["other"])


@pytest.fixture(scope="module")
async def stages(
    mongodb: EmbeddedMongod, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stages]:
    """One after the other: document classes are bound to the database that was opened last."""
    expected: dict[str, dict[str, list[tuple[str, Answer]]]] = {}
    for caller in LIMITED:
        async with open_query_stage(mongodb, tmp_path_factory.mktemp("part")) as part:
            # Labels are none of the business of a share.
            stored = await _store(part, {1, 3}, are_labelled=caller == "label")
            node_ids = [encode_node_id(type_name, one) for type_name, one in stored]
            node_ids += [encode_node_id("Study", orthanc_id("?")), strawberry.ID("U3R1ZHk6eA==")]
            expected[caller] = {
                field: [
                    (query, await part.run(query, principal=VIEWER))
                    for query in map(_with_fragments, asked or _by_id(field, node_ids))
                ]
                for field, asked in QUERIES.items()
            }
    async with open_query_stage(mongodb, tmp_path_factory.mktemp("whole")) as whole:
        await _store(whole, {1, 2, 3, 4, 5})
        planned = EntryValues(
            accession_number="A1",
            patient_id="P1",
            patient_name="Huber",
            modality="CT",
            scheduled_procedure_step_start_date="2026-01-01",
        )
        await whole.runtime.worklist.create(planned, ALL)
        secret = NewJob(kind=JobKind.SEND, orthanc_study_ids=[orthanc_id("P1", "1.2.2")])
        await whole.runtime.jobs.start(secret, replace(VIEWER, name="another"))
        yield Stages(whole, expected)


def _by_id(field: str, node_ids: list[strawberry.ID]) -> list[str]:
    if field == "node":
        return [NODE % f'"{one}"' for one in node_ids]
    if field == "nodes":
        return [NODES % ", ".join(f'"{one}"' for one in node_ids)]
    return [FRAMES % ", ".join(f'{{instanceId: "{one}"}}' for one in node_ids)]


def _with_fragments(selection: str) -> str:
    """Add the fragments that a selection uses, directly or through another one."""
    order = "PSEI"
    used = [order.index(name) for name in order if f"...{name}" in selection]
    fragments = FRAGMENTS.split("fragment ")[1:]
    return " ".join(
        [
            f"{{ {selection} }}",
            *(f"fragment {one}" for one in fragments[: max(used, default=-1) + 1]),
        ]
    )


def test_every_root_field_is_asked(stages: Stages) -> None:
    query = stages.whole.schema._schema.query_type
    assert query is not None
    assert set(query.fields) == set(QUERIES)


def test_the_part_is_found(stages: Stages) -> None:
    expected = stages.expected["label"]
    codes = {
        field: [codes for _, (_, codes) in asked if codes] for field, asked in expected.items()
    }
    forbidden = [["FORBIDDEN"]]
    assert {field: refused for field, refused in codes.items() if refused} == {
        # A cursor that was never given out, a page that is too large, an id of nothing.
        "patients": [["INVALID_INPUT"]],
        "studies": [["INVALID_INPUT"]],
        "job": [["INVALID_INPUT"]],
        # A viewer has no shares, and asks neither other archives nor what administrators may.
        **dict.fromkeys(
            (
                "shares",
                "backups",
                "forwardingRules",
                "orthancJobs",
                "remotePatients",
                "remoteStudies",
                "remoteWorklist",
            ),
            forbidden,
        ),
    }
    (data, _) = expected["studies"][0][1]
    assert data is not None
    assert data["studies"]["totalCount"] == 2


@pytest.mark.parametrize("caller", LIMITED)
@pytest.mark.parametrize("field", QUERIES)
async def test_a_limited_caller_is_answered_as_if_nothing_else_were_stored(
    stages: Stages, field: str, caller: str
) -> None:
    for query, answer in stages.expected[caller][field]:
        assert await stages.whole.run(query, principal=LIMITED[caller]) == answer, query


async def test_the_limit_is_none_for_whoever_sees_everything(stages: Stages) -> None:
    found = await stages.whole.data("{ server { numberOfStudies numberOfPatients } }")
    assert found["server"] == {"numberOfStudies": 5, "numberOfPatients": 3}


async def test_a_caller_limited_to_a_label_learns_of_no_other_one(stages: Stages) -> None:
    studies = stages.whole.runtime.database["studies"]
    shared = {"_id": orthanc_id("P2", "1.2.3")}
    await studies.update_one(shared, {"$set": {"labels": ["other", "ward"]}})
    query = """{
      studies { nodes { labels } } labels { label numberOfStudies }
      other: studies(filter: {labels: ["other"]}) { totalCount }
    }"""
    found = await stages.whole.run(query, principal=LIMITED["label"])
    await studies.update_one(shared, {"$set": {"labels": ["ward"]}})
    assert found == (
        {
            "studies": {"nodes": [{"labels": ["ward"]}, {"labels": ["ward"]}]},
            "labels": [{"label": "ward", "numberOfStudies": 2}],
            "other": {"totalCount": 0},
        },
        [],
    )


async def test_an_empty_scope_finds_nothing(stages: Stages) -> None:
    nobody = replace(VIEWER, scope=NOTHING)
    query = "{ studies { totalCount } patients { totalCount } server { numberOfInstances } }"
    assert await stages.whole.run(query, principal=nobody) == (
        {
            "studies": {"totalCount": 0},
            "patients": {"totalCount": 0},
            "server": {"numberOfInstances": 0},
        },
        [],
    )


@pytest.mark.parametrize("caller", LIMITED)
async def test_what_is_hidden_costs_the_commands_of_what_is_not_there(
    stages: Stages, caller: str
) -> None:
    """The time of an answer is that of its commands: as many, on the same collections."""
    hidden: dict[str, list[str]] = {
        "node(id: %s) { id }": [
            encode_node_id("Instance", orthanc_id(orthanc_id(orthanc_id("P3", "1.2.4"), 2), 0)),
            encode_node_id("Instance", orthanc_id("never stored")),
        ],
        "instance(sopInstanceUID: %s) { id }": ["1.3.2.0", "9.9"],
        "series(seriesInstanceUID: %s) { id }": ["1.3.2", "9.9"],
        "study(studyInstanceUID: %s) { id }": ["1.2.4", "9.9"],
        "patient(patientID: %s) { id }": ["P3", "P9"],
    }
    for query, arguments in hidden.items():
        commands = []
        for argument in arguments:
            text = "{ " + query % f'"{argument}"' + " }"
            asked = await stages.whole.asked(text, principal=LIMITED[caller])
            commands.append([(one.command, one.collection) for one in asked])
        assert commands[0] == commands[1], query
