"""STOW-RS: files are stored as those of every other upload (PS3.18 10.5)."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from starlette.responses import Response
from starlette.routing import BaseRoute

from graph.dicomweb.exchange import Exchange, Mount
from graph.dicomweb.files import DICOM
from graph.execution.audit import add_stored
from graph.http.cors import AllowedOrigins, require_allowed_origin
from graph.http.multipart import UploadedFile, read_related
from graph.http.uploads import upload_limits
from services.auth.roles import Role
from services.dicom.checking import check_file
from services.dicomweb.stored import other_study, store_response, store_status
from services.errors import FileRejected, InvalidInput
from services.ingest.results import StoreResult
from services.ingest.service import SentFile
from services.tasks import finish_in_thread

_log = logging.getLogger(__name__)


def store_routes(mount: Mount) -> list[BaseRoute]:
    """Make the routes that store."""
    return [
        mount.route(path, _store, role=Role.UPLOADER, method="POST")
        for path in ("/studies", "/studies/{study}")
    ]


async def _store(exchange: Exchange) -> Response:
    request, settings = exchange.request, exchange.runtime.settings
    origins = AllowedOrigins.from_settings(settings)
    require_allowed_origin(request, origins, public_url=settings.public_url)
    exchange.json_type()
    async with (
        read_related(request, upload_limits(settings), part_type=DICOM) as files,
        exchange.recording_upload() as event,
    ):
        if not files:
            raise InvalidInput("Send at least one file.")
        begun = datetime.now(UTC)
        results = await _stored(exchange, files)
        add_stored(event, results)
        labels, scope = exchange.runtime.labels, exchange.principal.scope
        await labels.adopt(event.study_ids, scope, created_since=begun)
    for result in results:
        if result.error is not None:
            # Its sentence has no place in the answer.
            _log.info("STOW-RS: %s: %s", result.status, result.error.code)
    return await exchange.json(store_response(results, exchange.root), status=store_status(results))


async def _stored(exchange: Exchange, files: Sequence[UploadedFile]) -> list[StoreResult]:
    study_uid = exchange.request.path_params.get("study")
    if study_uid is None:
        wrong = set()
    else:
        checked = [await finish_in_thread(_is_of_other_study, file, study_uid) for file in files]
        wrong = {file for file, is_wrong in zip(files, checked, strict=True) if is_wrong}
    sent = [SentFile(file.name, file.open) for file in files if file not in wrong]
    results = [other_study(file.name) for file in files if file in wrong]
    if sent:
        results += await exchange.runtime.ingest.store(sent, caller=exchange.principal.name)
    return results


def _is_of_other_study(file: UploadedFile, study_uid: str) -> bool:
    try:
        with file.open() as opened:
            return check_file(opened).header.study.study_instance_uid != study_uid
    except FileRejected:
        # Its faults are reported when it is stored.
        return False
