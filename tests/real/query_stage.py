"""What the tests of queries share: made documents in a real MongoDB, and what it was asked."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from graph.context import Context
from graph.schema import Schema, build_schema
from models import InstanceDocument, PatientDocument, SeriesDocument, StudyDocument, Thumbnail
from models.instance import INSTANCE_NUMBER_ORDER
from services.auth.roles import LOCAL_ADMIN, Principal
from services.dicom.search_words import fold, search_words
from services.embedded.mongod import EmbeddedMongod
from services.frames.signing import generate_key
from services.runtime import Runtime, open_runtime
from services.settings import Settings
from tests.databases import lent_database

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
REVISION = "deadbeef"


def orthanc_id(*parts: object) -> str:
    digits = hashlib.sha1(repr(parts).encode(), usedforsecurity=False).hexdigest()
    return "-".join(digits[start : start + 8] for start in range(0, 40, 8))


@dataclass(frozen=True, slots=True)
class Asked:
    """A command as MongoDB's profiler tells it."""

    command: str
    collection: str
    plan: str


@dataclass(frozen=True, slots=True)
class QueryStage:
    """The schema on a real MongoDB, without Orthanc."""

    runtime: Runtime
    schema: Schema

    async def run(
        self, query: str, *, principal: Principal | None = LOCAL_ADMIN, **variables: object
    ) -> tuple[dict[str, Any] | None, list[str]]:
        """Execute; answers data and the codes of errors."""
        context = Context(
            runtime=self.runtime,
            principal=principal,
            base_url="http://here",
            now=lambda: 1_700_000_000,
        )
        result = await self.schema.execute(query, variables, context_value=context)
        return result.data, [str((e.extensions or {})["code"]) for e in result.errors or ()]

    async def data(
        self, query: str, *, principal: Principal = LOCAL_ADMIN, **variables: object
    ) -> dict[str, Any]:
        """Execute what must succeed."""
        data, codes = await self.run(query, principal=principal, **variables)
        assert codes == []
        assert data is not None
        return data

    async def asked(
        self, query: str, *, principal: Principal = LOCAL_ADMIN, **variables: object
    ) -> list[Asked]:
        """Execute, and tell what MongoDB was asked."""
        database = self.runtime.database
        await database.command("profile", 0)
        await database.drop_collection("system.profile")
        await database.command("profile", 2)
        await self.data(query, principal=principal, **variables)
        await database.command("profile", 0)
        entries = await database["system.profile"].find(sort=[("ts", 1)]).to_list()
        return [
            Asked(
                next(iter(entry["command"])),
                entry["ns"].partition(".")[2],
                entry.get("planSummary", ""),
            )
            for entry in entries
            if entry["op"] in ("query", "command", "getmore") and "profile" not in entry["command"]
        ]

    async def store_patient(self, patient_id: str, name: str, studies: int = 1) -> str:
        """Store a patient; answers its Orthanc identifier."""
        patient = PatientDocument(
            id=orthanc_id(patient_id),
            version="v",
            patient_id=patient_id,
            patient_name=name,
            number_of_studies=studies,
            name_words=search_words(name),
            order_patient_name=fold(name),
        )
        await patient.insert()
        return patient.id

    async def store_study(self, patient_id: str, number: int, **fields: Any) -> str:
        """Store a study of a patient; answers its Orthanc identifier."""
        uid = fields.pop("study_instance_uid", f"1.2.{number}")
        name = fields.pop("patient_name", None)
        date = fields.get("study_date")
        moment = BEGIN + timedelta(minutes=number)
        values: dict[str, Any] = {
            "modalities_in_study": ["CT"],
            "thumbnail": None,
            "updated_at": moment,
            **fields,
        }
        study = StudyDocument(
            id=orthanc_id(patient_id, uid),
            version="v",
            orthanc_patient_id=orthanc_id(patient_id),
            study_instance_uid=uid,
            patient_id=patient_id,
            patient_name=name,
            name_words=search_words(name),
            search_words=search_words(
                name, patient_id, fields.get("accession_number"), fields.get("study_description")
            ),
            order_study_date=f"{date}T" if date else "",
            order_patient_name=fold(name),
            accession_numbers=[one for one in [fields.get("accession_number")] if one],
            created_at=BEGIN,
            **values,
        )
        await study.insert()
        return study.id

    async def store_series(
        self, study_id: str, number: int | None, instances: int, *, frames: int = 1
    ) -> str:
        """Store a series with instances; answers its Orthanc identifier."""
        series_id = orthanc_id(study_id, number)
        instance_ids = [orthanc_id(series_id, index) for index in range(instances)]
        thumbnail = None
        if instances and frames:
            thumbnail = Thumbnail(
                orthanc_instance_id=instance_ids[0], revision=REVISION, frame_index=0
            )
        await SeriesDocument(
            id=series_id,
            version="v",
            orthanc_study_id=study_id,
            orthanc_patient_id=orthanc_id("P"),
            series_instance_uid=f"1.3.{number}",
            series_number=number,
            modality="CT",
            number_of_instances=instances,
            number_of_frames=instances * frames,
            stack_order=INSTANCE_NUMBER_ORDER,
            thumbnail=thumbnail,
        ).insert()
        if instances:
            await InstanceDocument.insert_many(
                [
                    InstanceDocument(
                        id=instance_id,
                        version="v",
                        orthanc_series_id=series_id,
                        orthanc_study_id=study_id,
                        orthanc_patient_id=orthanc_id("P"),
                        revision=REVISION,
                        file_size_bytes=1000,
                        sop_instance_uid=f"1.3.{number}.{index}",
                        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                        instance_number=instances - index,
                        number_key=f"{instances - index:08x}",
                        number_of_frames=frames,
                        not_renderable_reason=None if frames else "It has no pixels.",
                        indexed_at=BEGIN,
                    )
                    for index, instance_id in enumerate(instance_ids)
                ]
            )
        return series_id


@asynccontextmanager
async def open_query_stage(mongodb: EmbeddedMongod, data_dir: Path) -> AsyncIterator[QueryStage]:
    """Open a database of its own."""
    async with lent_database(mongodb) as name:
        settings = Settings(
            _env_file=None,
            data_dir=data_dir,
            mongodb_url=SecretStr(mongodb.url),
            mongodb_database=name,
            enable_pacs_integration=False,
            frame_url_keys=SecretStr(generate_key()),
        )
        async with open_runtime(settings) as runtime:
            yield QueryStage(runtime, build_schema(settings))
            # What was asked stands in a collection.
            await runtime.database.command("profile", 0)
            await runtime.database.drop_collection("system.profile")
