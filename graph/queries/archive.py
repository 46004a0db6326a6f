"""Queries for what is stored: patients, studies, series, instances and frames."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar

import strawberry

from graph.context import Info
from graph.execution.authorization import RequiresRole
from graph.inputs import After, First, FrameRef, PatientFilter, StudyFilter, StudyOrder, StudyWhere
from graph.relay import Connection, Node, connection_from, decode_node_id, parse_frame_local_id
from graph.types.frame import Frame
from graph.types.instance import Instance
from graph.types.job import Job
from graph.types.modality import Modality
from graph.types.patient import Patient
from graph.types.series import Series
from graph.types.server import Server, examine_server
from graph.types.share import Share
from graph.types.stored import FromStored
from graph.types.study import LabelCount, Study, StudyConnection
from graph.types.viewer import Viewer
from graph.types.worklist import WorklistEntry, log_entries
from services.auth.roles import Role, authorize
from services.errors import InvalidInput
from services.query.paging import PageRequest

StoredT = TypeVar("StoredT", bound=FromStored)


def _viewer_field(description: str) -> Any:  # noqa: ANN401  # Strawberry's decorator
    """Declare a field that looks for patients: it is in the audit trail, found or not."""
    required = RequiresRole(Role.VIEWER, is_search=True)
    return strawberry.field(description=description, extensions=[required])


@strawberry.type
class ArchiveQuery:
    """Root fields that read what is stored."""

    @_viewer_field("An object by its global `id`; null when there is none.")
    async def node(
        self,
        info: Info,
        node_id: Annotated[
            strawberry.ID, strawberry.argument(name="id", description="The object's `id`.")
        ],
    ) -> Node | None:
        """Find an object of any type."""
        return await _node(info, node_id)

    @_viewer_field(
        "Objects by their global `id`, in the given order; null where there is none. At most 500."
    )
    async def nodes(
        self,
        info: Info,
        node_ids: Annotated[
            list[strawberry.ID], strawberry.argument(name="ids", description="The objects' `id`.")
        ],
    ) -> list[Node | None]:
        """Find objects of any type."""
        _require_few("ids", node_ids)
        return await asyncio.gather(*(_node(info, node_id) for node_id in node_ids))

    @_viewer_field(
        "Frames by instance and index, in the order asked for; null where there is no such frame "
        "to show. At most 500. Clients renew the URLs of what is on the screen by it."
    )
    async def frames(
        self,
        info: Info,
        refs: Annotated[list[FrameRef], strawberry.argument(description="Which ones.")],
    ) -> list[Frame | None]:
        """Find frames."""
        _require_few("refs", refs)
        return await asyncio.gather(*(_frame_of(info, ref) for ref in refs))

    @_viewer_field("A patient by PatientID; null when there is none.")
    async def patient(
        self,
        info: Info,
        patient_id: Annotated[
            str,
            strawberry.argument(
                description="PatientID (0010,0020), exactly. Padding is ignored: `OVI` and ` OVI ` "
                "are one patient."
            ),
        ],
    ) -> Patient | None:
        """Find a patient."""
        return _found(info, Patient, await info.context.tree.patient(patient_id))

    @_viewer_field("Patients by name.")
    async def patients(
        self,
        info: Info,
        first: First = 20,
        after: After = None,
        filter_: Annotated[
            PatientFilter | None, strawberry.argument(name="filter", description="Which ones.")
        ] = None,
    ) -> Connection[Patient]:
        """List patients."""
        criteria = (filter_ or PatientFilter()).to_criteria(info.context.scope)
        patients = info.context.runtime.lists.patients
        page = await patients.page(criteria, PageRequest(first=first, after=after))
        info.context.show(page.documents, "Patient")
        return connection_from(page, Patient.from_stored, partial(patients.count, criteria))

    @_viewer_field(
        "A study by StudyInstanceUID; null when there is none. Of two patients' studies with one "
        "UID it is the one that changed last; its `otherStudiesWithThisUID` are the others."
    )
    async def study(
        self,
        info: Info,
        study_instance_uid: Annotated[
            str, strawberry.argument(description="StudyInstanceUID (0020,000D).")
        ],
    ) -> Study | None:
        """Find a study."""
        return _found(info, Study, await info.context.tree.study(study_instance_uid))

    @_viewer_field(
        "Studies: filtered, ordered and in pages. The newest come first unless ordered otherwise."
    )
    async def studies(  # noqa: PLR0917  # resolvers are called by name
        self,
        info: Info,
        first: First = 20,
        after: After = None,
        last: Annotated[
            int | None,
            strawberry.argument(
                description="How many at most, from `before` backwards; `first` does not count "
                "then."
            ),
        ] = None,
        before: Annotated[
            str | None,
            strawberry.argument(description="End before this cursor: a `startCursor`."),
        ] = None,
        filter_: Annotated[
            StudyFilter | None, strawberry.argument(name="filter", description="Which ones.")
        ] = None,
        where: Annotated[
            StudyWhere | None,
            strawberry.argument(description="Filters combined; must match as well as `filter`."),
        ] = None,
        order_by: Annotated[
            StudyOrder | None,
            strawberry.argument(description="Newest StudyDate first unless given."),
        ] = None,
    ) -> StudyConnection:
        """List studies."""
        criteria = (filter_ or StudyFilter()).to_criteria(info.context.scope, where)
        order = (order_by or StudyOrder()).to_order()
        studies = info.context.runtime.lists.studies
        request = PageRequest(first=first, after=after, last=last, before=before)
        page = await studies.page(criteria, order, request)
        info.context.show(page.documents, "Study")
        return StudyConnection.of(page, criteria, partial(studies.count, criteria))

    @_viewer_field("A series by SeriesInstanceUID; null when there is none.")
    async def series(
        self,
        info: Info,
        series_instance_uid: Annotated[
            str, strawberry.argument(description="SeriesInstanceUID (0020,000E).")
        ],
    ) -> Series | None:
        """Find a series."""
        return _found(info, Series, await info.context.tree.one_series(series_instance_uid))

    @_viewer_field("An instance by SOPInstanceUID; null when there is none.")
    async def instance(
        self,
        info: Info,
        sop_instance_uid: Annotated[
            str, strawberry.argument(description="SOPInstanceUID (0008,0018).")
        ],
    ) -> Instance | None:
        """Find an instance."""
        return _found(info, Instance, await info.context.tree.instance(sop_instance_uid))

    @strawberry.field(
        description="The caller: the credential of this request.",
        extensions=[RequiresRole(Role.VIEWER)],
    )
    def viewer(self, info: Info) -> Viewer:
        """Describe the caller."""
        return Viewer.of(authorize(info.context.principal, Role.VIEWER))

    @strawberry.field(
        description="The labels of all studies, the most frequent first.",
        extensions=[RequiresRole(Role.VIEWER)],
    )
    async def labels(self, info: Info) -> list[LabelCount]:
        """Count labels."""
        counts = await info.context.runtime.labels.count(info.context.scope)
        info.context.count_nodes(len(counts))
        return [LabelCount(label=label, number_of_studies=count) for label, count in counts]

    @strawberry.field(
        description="This server and the stores behind it.",
        extensions=[RequiresRole(Role.VIEWER)],
    )
    async def server(self, info: Info) -> Server:
        """Ask the stores who they are."""
        context = info.context
        return await examine_server(context.runtime, is_limited=not context.scope.is_all)


_MOST_AT_ONCE = 500
"""Objects that one field looks up: as many as the largest page has."""


def _require_few(argument: str, asked: Sequence[object]) -> None:
    if len(asked) > _MOST_AT_ONCE:
        raise InvalidInput(f"{argument}: at most {_MOST_AT_ONCE} in one query.", argument=argument)


async def _node(info: Info, node_id: str) -> Node | None:
    decoded = decode_node_id(node_id)
    if decoded is None:
        return None
    type_name, local_id = decoded
    if type_name in _FINDERS:
        return await _FINDERS[type_name](info, local_id)
    loaders = info.context.loaders
    loader, node_class = {
        "Patient": (loaders.patient_by_id, Patient),
        "Study": (loaders.study_by_id, Study),
        "Series": (loaders.series_by_id, Series),
        "Instance": (loaders.instance_by_id, Instance),
    }[type_name]
    return _found(info, node_class, await loader.load(local_id))


async def _share(info: Info, local_id: str) -> Share | None:
    principal = authorize(info.context.principal, Role.VIEWER)
    share = await info.context.runtime.sharing.find(local_id, principal)
    return None if share is None else Share.of(share)


async def _job(info: Info, local_id: str) -> Job | None:
    principal = authorize(info.context.principal, Role.VIEWER)
    job = await info.context.runtime.jobs.find(local_id, principal)
    return None if job is None else Job.of(job)


async def _modality(info: Info, local_id: str) -> Modality | None:
    is_known = info.context.scope.is_all
    found = await info.context.runtime.modalities.find(local_id) if is_known else None
    return None if found is None else Modality.of(found)


async def _worklist_entry(info: Info, local_id: str) -> WorklistEntry | None:
    entry = await info.context.runtime.worklist.find(local_id, info.context.scope)
    if entry is None:
        return None
    log_entries(info, [entry])
    return WorklistEntry.of(entry)


async def _frame_by_id(info: Info, local_id: str) -> Frame | None:
    return await _frame(info, *parse_frame_local_id(local_id))


_FINDERS: dict[str, Callable[[Info, str], Awaitable[Node | None]]] = {
    "Frame": _frame_by_id,
    "Job": _job,
    "Modality": _modality,
    "Share": _share,
    "WorklistEntry": _worklist_entry,
}
"""How objects are found that are no level of DICOM, by the names of their types."""


async def _frame_of(info: Info, ref: FrameRef) -> Frame | None:
    decoded = decode_node_id(ref.instance_id)
    if decoded is None or decoded[0] != "Instance":
        return None
    return await _frame(info, decoded[1], ref.index)


async def _frame(info: Info, orthanc_instance_id: str, index: int) -> Frame | None:
    stored = await info.context.loaders.instance_by_id.load(orthanc_instance_id)
    instance = _found(info, Instance, stored)
    return None if instance is None else instance.frame_at(index)


def _found(info: Info, shown: type[StoredT], stored: Mapping[str, Any] | None) -> StoredT | None:
    if stored is None:
        return None
    info.context.show([stored], shown.type_name)
    return shown.from_stored(stored)
