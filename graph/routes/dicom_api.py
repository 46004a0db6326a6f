"""`/api/dicom/...`: the REST routes of the previous system."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from graph.authentication import principal_of
from graph.execution.audit import add_stored, describe_search, recorded
from graph.http.cors import AllowedOrigins, require_allowed_origin
from graph.http.errors import refusal
from graph.http.multipart import Form, UploadedFile, UploadLimits, read_form, read_plain
from graph.http.uploads import upload_limits
from graph.routes.frames import is_known
from graph.state import runtime_of
from services.audit import Action
from services.auth.roles import Role, authorize
from services.dicom.patient_override import PatientOverride
from services.errors import Error, FrameNotFound, InvalidInput
from services.frames.variant import FrameVariant
from services.ingest.results import StoreResult
from services.ingest.service import SentFile
from services.query.study_frames import find_study_frame

_UPLOAD_ROUTE = "/api/dicom/upload"
_INSTANCES_ROUTE = "/api/dicom/instances"
_STUDY_FRAME_ROUTE = "/api/dicom/studies/{study_uid}/frames/{frame_index}"
_STORAGE = "orthanc-pacs"


_Body = TypeVar("_Body")


async def upload(request: Request) -> Response:
    """Store the one file of a form: `file`, with optional patient.

    The fields `patientID` and `patientName` are written into the file; `confirmPatient` with the
    value `true` allows a PatientID that is stored with another name.
    """
    return await _store(request, f"POST {_UPLOAD_ROUTE}", read_form, _of_form)


async def store_instance(request: Request) -> Response:
    """Store the body: one DICOM file or ZIP archive, without a form around it."""
    return await _store(request, f"PUT {_INSTANCES_ROUTE}", read_plain, _of_body)


async def _store(
    request: Request,
    detail: str,
    read: Callable[[Request, UploadLimits], AbstractAsyncContextManager[_Body]],
    content_of: Callable[[_Body], tuple[SentFile, PatientOverride]],
) -> Response:
    """Store the file of a request.

    Args:
        request: The request.
        detail: Its route, for the audit trail.
        read: Reads the body.
        content_of: Returns the file of a body, and the patient to write into it.
    """
    try:
        runtime = runtime_of(request)
        settings = runtime.settings
        origins = AllowedOrigins.from_settings(settings)
        require_allowed_origin(request, origins, public_url=settings.public_url)
        principal = authorize(await principal_of(request), Role.UPLOADER)
        async with (
            read(request, upload_limits(settings)) as body,
            recorded(runtime.audit, Action.UPLOAD, principal, detail=detail) as event,
        ):
            file, override = content_of(body)
            begun = datetime.now(UTC)
            results = await runtime.ingest.store([file], override, caller=principal.name)
            add_stored(event, results)
            await runtime.labels.adopt(event.study_ids, principal.scope, created_since=begun)
    except Error as error:
        return await refusal(request, error)
    return await _answer(request, results, override)


def _of_form(form: Form) -> tuple[SentFile, PatientOverride]:
    override = PatientOverride.of(
        form.fields.get("patientID"),
        form.fields.get("patientName"),
        is_confirmed=form.fields.get("confirmPatient", "").strip().lower() == "true",
    )
    if len(form.files) != 1 or form.files[0].field_name != "file":
        raise InvalidInput("Send one file, in the field `file` of the form.")
    return SentFile(form.files[0].name, form.files[0].open), override


def _of_body(file: UploadedFile) -> tuple[SentFile, PatientOverride]:
    return SentFile(file.name, file.open), PatientOverride()


async def study_frame(request: Request) -> Response:
    """Return the PNG of a frame by its 0-based index over the whole study."""
    try:
        principal = authorize(await principal_of(request), Role.VIEWER)
        runtime = runtime_of(request)
        async with recorded(
            runtime.audit, Action.VIEW, principal, detail=f"GET {_STUDY_FRAME_ROUTE}"
        ) as event:
            study_uid = request.path_params["study_uid"]
            event.searched = describe_search("study", {"study_instance_uid": study_uid})
            instance, index = await find_study_frame(
                runtime.database,
                study_uid,
                _frame_index(request.path_params["frame_index"]),
                scope=principal.scope,
            )
            event.patient_ids.add(instance.orthanc_patient_id)
            event.study_ids.add(instance.orthanc_study_id)
            rendered = await runtime.frames.render(instance, index, FrameVariant())
    except Error as error:
        return await refusal(request, error)
    headers = {
        "Cache-Control": "private, no-cache",
        "ETag": rendered.etag,
        "Cross-Origin-Resource-Policy": runtime.settings.frame_cross_origin_resource_policy,
    }
    if is_known(request.scope, rendered):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(rendered.content, media_type="image/png", headers=headers)


def upload_data(result: StoreResult, override: PatientOverride) -> Mapping[str, object]:
    """Return `data` of a successful upload, with the names of the previous system.

    PatientID and PatientName are those of the override as sent, otherwise those of the file.
    """
    header, ids = result.header, result.ids
    if header is None or ids is None:
        raise ValueError("only a stored file has data")
    patient = header.patient
    return {
        "studyInstanceUID": header.study.study_instance_uid,
        "seriesInstanceUID": header.series.series_instance_uid,
        "sopInstanceUID": header.sop_instance_uid,
        "frameCount": result.frame_count,
        "orthancInstanceId": ids.instance,
        "orthancStudyId": ids.study,
        "orthancSeriesId": ids.series,
        "instances": result.frame_count,
        "patientID": override.patient_id or patient.patient_id,
        "patientName": override.patient_name or patient.patient_name,
        "storage": _STORAGE,
    }


def refusal_message(results: Sequence[StoreResult]) -> str | None:
    """Return the message of the first failure; for an archive with file name and counts.

    Returns:
        None when nothing failed.
    """
    failed = [(one.file_name, one.error.message) for one in results if one.error is not None]
    if not failed:
        return None
    name, reason = failed[0]
    if len(results) == 1:
        return reason
    of_all, others = f"of {len(results)} files", len(failed) - 1
    rest = f"{others} more {of_all} failed" if others else f"the others {of_all} are stored"
    return f"{name}: {reason} ({rest})"


async def _answer(
    request: Request, results: list[StoreResult], override: PatientOverride
) -> Response:
    """Answer an upload: an archive counts as one, with its first file or its first error."""
    failure = next((result.error for result in results if result.error is not None), None)
    if failure is not None:
        return await refusal(request, failure, message=refusal_message(results))
    frames = sum(result.frame_count for result in results)
    message = f"Successfully uploaded DICOM file with {frames} frame(s) to Orthanc PACS"
    data = upload_data(results[0], override)
    return JSONResponse({"success": True, "message": message, "data": data})


def _frame_index(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):  # noqa: PLR2004  # MongoDB's int
        raise FrameNotFound
    return int(text)


routes = [
    Route(_UPLOAD_ROUTE, upload, methods=["POST"]),
    Route(_INSTANCES_ROUTE, store_instance, methods=["PUT"]),
    Route(_STUDY_FRAME_ROUTE, study_frame, methods=["GET"]),
]
