"""What all DICOMweb routes have in common: who asks, what is accepted, how it is answered."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from cachetools import TTLCache
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from graph.authentication import SHARE_PARAMETER, principal_of
from graph.execution.audit import recorded
from graph.http.accept import MediaRange, accepts_gzip, choose, parse_accept
from graph.http.cors import base_url_of
from graph.http.errors import refusal
from graph.http.json_encoding import encode_json
from graph.state import client_address, correlation_id, runtime_of, trace_parent
from models import InstanceDocument
from services.audit import Action, AuditEvent
from services.auth.roles import Principal, Role, authorize
from services.dicomweb.resources import SeriesResource, StudyResource
from services.errors import Error
from services.observability.tracing import TRACING
from services.runtime import Runtime

Identify = Callable[[Request], Awaitable[Principal | None]]
"""Identifies the caller; None without valid credentials."""

RecentViews = TTLCache[tuple[str, str, str, str], bool]
"""Principal, address, study and action of records that stand for what follows."""

_VIEW_SECONDS = 300.0
_VIEWS = 10_000

DICOM_JSON = "application/dicom+json"
_JSON_TYPES = (DICOM_JSON, "application/json")

_NOT_KEPT = {"Cache-Control": "private, no-store", "Vary": "Accept"}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and who sent it.

    Attributes:
        root: Address of the service as the caller sees it, without a slash at its end.
        detail: Name of the route, for the audit trail.
        recent_views: Who looked at which study and how, of all requests.
        warnings: Sentences for the header `Warning`.
    """

    request: Request
    runtime: Runtime
    principal: Principal
    root: str
    detail: str
    recent_views: RecentViews
    warnings: list[str] = field(default_factory=list)

    @property
    def accepted(self) -> Sequence[MediaRange]:
        """What the caller accepts: the parameter `accept`, else the header.

        Raises:
            InvalidInput: It is malformed.
        """
        given = self.request.query_params.getlist("accept")
        header = self.request.headers.getlist("accept")
        return parse_accept(",".join(given or header))

    @property
    def accepts_gzip(self) -> bool:
        """Whether the answer may be compressed."""
        return accepts_gzip(self.request.headers.get("accept-encoding"))

    def path(self, name: str) -> str:
        """Return a part of the path."""
        return str(self.request.path_params[name])

    async def study(self) -> StudyResource:
        """Find the study of the path; errors are those of `Resources.study`."""
        resources = self.runtime.resources
        return await resources.study(self.path("study"), self.principal.scope)

    async def series(self) -> SeriesResource:
        """Find the series of the path."""
        resources = self.runtime.resources
        return await resources.series(self.path("study"), self.path("series"), self.principal.scope)

    async def instance(self) -> InstanceDocument:
        """Find the instance of the path."""
        return await self.runtime.resources.instance(
            self.path("study"), self.path("series"), self.path("instance"), self.principal.scope
        )

    @asynccontextmanager
    async def recording(
        self, action: Action, study_id: str, patient_id: str
    ) -> AsyncIterator[AuditEvent]:
        """Record what is done to a study, once it is done or has failed."""
        async with recorded(
            self.runtime.audit, action, self.principal, detail=self.detail
        ) as event:
            event.study_ids.add(study_id)
            event.patient_ids.add(patient_id)
            yield event

    @asynccontextmanager
    async def recording_upload(self) -> AsyncIterator[AuditEvent]:
        """Record an upload; what is stored is added to the record."""
        async with recorded(
            self.runtime.audit, Action.UPLOAD, self.principal, detail=self.detail
        ) as event:
            yield event

    @asynccontextmanager
    async def viewing(
        self, instance: InstanceDocument, *, action: Action = Action.VIEW
    ) -> AsyncIterator[None]:
        """Record that a study is looked at: one record for all images of the next five minutes."""
        study_id = instance.orthanc_study_id
        key = (self.principal.name, client_address.get() or "", study_id, action.value)
        if key in self.recent_views:
            yield
            return
        async with self.recording(action, study_id, instance.orthanc_patient_id):
            yield
        self.recent_views[key] = True

    def json_type(self) -> str:
        """Choose the media type of an answer in JSON.

        Raises:
            NotAcceptable: The caller wants XML or something else.
        """
        return choose(self.accepted, _JSON_TYPES)

    async def json(
        self,
        model: Any,  # noqa: ANN401  # JSON
        *,
        status: int = HTTPStatus.OK,
        headers: Mapping[str, str] = _NOT_KEPT,
    ) -> Response:
        """Answer in the DICOM JSON model."""
        media_type = self.json_type()
        body = await encode_json(model)
        headers = dict(headers)
        if self.warnings:
            # PS3.18 8.3.4.2; the agent of a warning is a name or `-` (RFC 7234 5.5).
            headers["Warning"] = ", ".join(f'299 - "{text}"' for text in self.warnings)
        return Response(body, status, headers, media_type)


Handler = Callable[[Exchange], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Mount:
    """Where a DICOMweb service stands and who may use it.

    Attributes:
        prefix: Of its paths, as `/dicomweb`; it may have parameters of its own.
        identify: Identifies the caller by the request.
        recent_views: See `Exchange`.
    """

    prefix: str = "/dicomweb"
    identify: Identify = principal_of
    recent_views: RecentViews = field(default_factory=lambda: TTLCache(_VIEWS, _VIEW_SECONDS))

    def route(
        self, path: str, handler: Handler, *, role: Role = Role.VIEWER, method: str = "GET"
    ) -> Route:
        """Make a route.

        Args:
            path: Below the prefix.
            handler: Answers; its errors are answered as those of all routes.
            role: The least role that may use it.
            method: HTTP method.
        """
        template = self.prefix + path
        name = f"{method} {template}"
        is_of_pictures = path.endswith(_PICTURES)

        async def answer(request: Request) -> Response:
            try:
                with nullcontext() if is_of_pictures else _span(name):
                    principal = authorize(await self.identify(request), role)
                    return await handler(self._exchange(request, principal, name))
            except Error as error:
                return await refusal(request, error)

        return Route(template, answer, methods=[method])

    def _exchange(self, request: Request, principal: Principal, detail: str) -> Exchange:
        runtime = runtime_of(request)
        base = base_url_of(request, runtime.settings.public_url)
        root = base + self.prefix.format(**request.path_params)
        # Handlers write the other parameters into the audit trail.
        request.path_params.pop(SHARE_PARAMETER, None)
        return Exchange(request, runtime, principal, root, detail, self.recent_views)


_PICTURES = ("/frames/{frames}", "/rendered", "/thumbnail")
"""Routes that a viewer asks for hundreds of times a second: they have no spans."""


def _span(name: str) -> AbstractContextManager[Any]:
    return TRACING.span(
        name,
        kind="SERVER",
        parent=trace_parent.get(),
        attributes={"correlation.id": correlation_id.get()},
    )
