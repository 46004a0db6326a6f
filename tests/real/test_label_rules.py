"""New studies get labels by who sent them and what they say."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from services.auth.scope import Scope
from services.embedded.orthanc import run_orthanc
from services.embedded.orthanc_configuration import DicomServer
from services.embedded.ports import find_free_port
from services.labels.rules import LabelRules
from services.labels.service import Labels
from services.runtime import open_runtime
from services.settings import LabelRule, Settings
from tests.real.dicomweb_stage import slices, store, uid
from tests.real.sync_stage import eventually, instance_bytes, running
from tests.servers import RunningServer

RULES = [
    LabelRule(label="ward-3", callingAETitle="WARD3"),
    LabelRule(label="clinic-b", institutionName="Clinic B"),
]


def rules_of(server: RunningServer, labels: Labels) -> LabelRules:
    runtime = server.runtime
    assert runtime.orthanc is not None
    return LabelRules(runtime.database, labels, runtime.orthanc, runtime.audit, RULES)


def labels_of(server: RunningServer) -> Labels:
    names = {rule.label for rule in RULES}
    return Labels(server.runtime.database, None, max_seconds=10, of_rules=names)


async def stored_labels(server: RunningServer) -> dict[str, list[str]]:
    studies = await server.runtime.database["studies"].find({}).to_list()
    return {study["studyInstanceUID"]: study.get("labels", []) for study in studies}


async def test_new_studies_get_their_labels_and_earlier_ones_keep_theirs(
    server: RunningServer,
) -> None:
    labels = labels_of(server)
    await store(server, slices("before", 1, InstitutionName="Clinic B"))
    studies = server.runtime.database["studies"]
    earlier = datetime.now(UTC) - timedelta(minutes=5)
    await studies.update_many({}, {"$set": {"createdAt": earlier}})
    await rules_of(server, labels).apply()
    await store(server, slices("P1", 1, InstitutionName="Clinic B"))
    await store(server, slices("P2", 1, InstitutionName="Clinic C"))
    # Another process goes on where the first one ended.
    rules = rules_of(server, labels)
    await rules.apply()
    expected = {uid("before"): [], uid("P1"): ["clinic-b"], uid("P2"): []}
    assert await stored_labels(server) == expected
    # A label that a person took away does not come back.
    await studies.update_many({}, {"$unset": {"labels": ""}})
    await rules.apply()
    assert set(map(tuple, (await stored_labels(server)).values())) == {()}

    async def is_recorded() -> bool:
        detail = {"action": "label", "detail": "LABEL_RULES"}
        return await server.runtime.database["audit"].count_documents(detail) == 1

    await eventually(is_recorded)


async def test_a_limited_uploader_sees_what_a_rule_was_faster_to_label(
    server: RunningServer,
) -> None:
    labels = labels_of(server)
    begun = datetime.now(UTC)
    await rules_of(server, labels).apply()
    await store(server, slices("P1", 1, InstitutionName="Clinic B"))
    await store(server, slices("P2", 1))
    await rules_of(server, labels).apply()
    studies = server.runtime.database["studies"]
    # Somebody else's study: its label is none of a rule.
    await studies.update_one({"studyInstanceUID": uid("P2")}, {"$set": {"labels": ["other"]}})
    ids = [study["_id"] async for study in studies.find({})]
    await labels.adopt(ids, Scope(labels=frozenset({"ward"})), created_since=begun)
    found = await stored_labels(server)
    assert set(found[uid("P1")]) == {"clinic-b", "ward"}
    assert found[uid("P2")] == ["other"]


async def test_a_study_with_too_many_labels_keeps_no_other_waiting(server: RunningServer) -> None:
    labels = labels_of(server)
    rules = rules_of(server, labels)
    await rules.apply()
    await store(server, slices("P1", 1, InstitutionName="Clinic B"))
    full = [f"label {number}" for number in range(100)]
    await server.runtime.database["studies"].update_many({}, {"$set": {"labels": full}})
    await store(server, slices("P2", 1, InstitutionName="Clinic B"))
    await rules.apply()
    assert await stored_labels(server) == {uid("P1"): full, uid("P2"): ["clinic-b"]}
    # One that was deleted and is sent again is a new study.
    await server.runtime.database["studies"].update_one(
        {"studyInstanceUID": uid("P2")}, {"$set": {"createdAt": datetime.now(UTC), "labels": []}}
    )
    await rules.apply()
    assert (await stored_labels(server))[uid("P2")] == ["clinic-b"]


async def test_the_calling_ae_title_of_a_sender_gives_a_label(
    settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "1.dcm"
    await asyncio.to_thread(file.write_bytes, instance_bytes(1, 1, 1))
    port = find_free_port()
    async with run_orthanc(
        tmp_path / "orthanc", dicom=DicomServer(port, unknown_may_store=True)
    ) as orthanc:
        changed = {
            "orthanc_url": orthanc.url,
            "orthanc_username": orthanc.username,
            "orthanc_password": SecretStr(orthanc.password),
        }
        async with open_runtime(settings.model_copy(update=changed)) as runtime:
            assert runtime.sync is not None
            assert runtime.orthanc is not None
            rules = LabelRules(
                runtime.database, runtime.labels, runtime.orthanc, runtime.audit, RULES
            )
            await rules.apply()
            async with running(runtime.sync):
                sender = await asyncio.create_subprocess_exec(
                    "storescu", "-aet", "WARD3", "-aec", "ORTHANC", "127.0.0.1", str(port), file
                )
                assert await sender.wait() == 0

                async def is_labelled() -> bool:
                    await rules.apply()
                    study: Any = await runtime.database["studies"].find_one({})
                    return study is not None and study.get("labels") == ["ward-3"]

                await eventually(is_labelled)
            await runtime.database.client.drop_database(settings.mongodb_database)
