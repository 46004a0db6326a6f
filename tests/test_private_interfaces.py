"""Private parts of libraries that are overridden or read here, by name, and the bounds they need.

A release that renames one would not fail at import: the override would silently not be called. A
version outside the bounds of pyproject.toml is installed only when this list was read again.
"""

import inspect
import tomllib
from pathlib import Path

import pymongo.asynchronous.topology
import pymongo.lock
import pytest
from graphql.execution.executor import Executor
from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom.fileset import FileSet
from pynetdicom import AE
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.transport import AssociationSocket
from strawberry.asgi import ASGIWebSocketAdapter, GraphQL
from strawberry.http.streaming import SSETransport
from strawberry.schema import Schema
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import (
    BaseGraphQLTransportWSHandler,
)
from strawberry.types import ExecutionContext
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from graph.execution.executor import PlanningExecutor
from graph.http.endpoint import GraphQLEndpoint
from graph.http.event_stream import SubscriptionStream
from graph.http.server import HttpLimitsProtocol, WebSocketLimitsProtocol
from graph.http.websocket import MessageValidator, PerOperationContext
from graph.schema import Schema as OwnSchema

OVERRIDDEN: list[tuple[type, type]] = [
    (Executor, PlanningExecutor),
    (Schema, OwnSchema),
    (GraphQL, GraphQLEndpoint),
    (ASGIWebSocketAdapter, MessageValidator),
    (SSETransport, SubscriptionStream),
    (BaseGraphQLTransportWSHandler, PerOperationContext),
    (HttpToolsProtocol, HttpLimitsProtocol),
    (WebSocketsSansIOProtocol, WebSocketLimitsProtocol),
]

METHODS = {
    PlanningExecutor: {
        "build_per_event_executor",
        "complete_awaitable_value",
        "complete_iterable_value",
        "execute_fields",
    },
    OwnSchema: {"_prepare_operation_async", "process_errors"},
    GraphQLEndpoint: {
        "create_response",
        "create_streaming_response",
        "decode_json",
        "encode_json",
        "execute_operation",
        "get_context",
        "get_sub_response",
        "is_websocket_origin_allowed",
        "on_ws_connect",
        "parse_http_body",
        "parse_json",
        "parse_multipart",
        "parse_query_params",
        "process_result",
        "render_graphql_ide",
        "should_render_graphql_ide",
    },
    SubscriptionStream: {"accepts", "allowed_operation_types"},
    MessageValidator: {"close", "iter_json", "send_json"},
    PerOperationContext: {
        "_handle_pre_execution_error",
        "handle_connection_init",
        "handle_subscribe",
    },
    HttpLimitsProtocol: {
        "connection_lost",
        "connection_made",
        "data_received",
        "on_body",
        "on_header",
        "on_headers_complete",
        "on_message_begin",
        "on_message_complete",
        "on_response_complete",
        "pause_writing",
        "send_400_response",
    },
    WebSocketLimitsProtocol: {
        "connection_lost",
        "data_received",
        "pause_writing",
        "resume_writing",
        "send_receive_event_to_app",
    },
}


@pytest.mark.parametrize(("base", "own"), OVERRIDDEN, ids=lambda one: one.__name__)
def test_every_method_that_is_overridden_is_there_and_takes_the_same(base: type, own: type) -> None:
    overridden = {
        name
        for each in own.__mro__[: own.__mro__.index(base)]
        if each.__module__.startswith("graph.")
        for name, value in vars(each).items()
        if inspect.isfunction(value) and hasattr(base, name) and not name.startswith("__")
    }
    assert overridden == METHODS[own]
    for name in overridden:
        theirs = list(inspect.signature(getattr(base, name)).parameters)
        ours = list(inspect.signature(getattr(own, name)).parameters)
        assert ours == theirs, name


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (Executor, ["build_resolve_info", "collect_subfields", "complete_list_item_value"]),
        (Executor, ["complete_value", "execute_field", "handle_field_error", "is_awaitable"]),
        (StrawberryGraphQLCoreExecutionContext, ["build"]),
        (WebSocketsSansIOProtocol, ["handle_parser_exception", "stop_keepalive"]),
    ],
)
def test_every_method_that_is_called_is_there(owner: type, names: list[str]) -> None:
    assert [name for name in names if not hasattr(owner, name)] == []


def test_private_attributes_are_still_set_where_they_are_read() -> None:
    assert "_provided_operation_name" in inspect.getsource(ExecutionContext)
    assert "self._relevant_sub_fields" in inspect.getsource(Executor)
    for name in ("frames", "curr_msg_data_type", "handshake_initiated", "close_sent", "conn"):
        assert f"self.{name}" in inspect.getsource(WebSocketsSansIOProtocol.__init__), name


def test_what_an_association_of_pynetdicom_is_asked_for_is_there() -> None:
    entity = inspect.signature(AE._create_socket).parameters
    assert list(entity) == ["self", "assoc", "address", "tls_args"]
    assert "self._create_socket(" in inspect.getsource(AE.associate)
    connection = inspect.getsource(AssociationSocket)
    for name in ("_is_connected", "_shutdown_socket", "event_queue", "def ready", "def connect"):
        assert name in connection, name
    # The file of a C-STORE that is still arriving.
    assert "self._data_set_file.write" in inspect.getsource(DIMSEMessage.decode_msg)
    assert "self.message.decode_msg" in inspect.getsource(DIMSEServiceProvider.receive_primitive)
    assert "self.dul.send_pdu(pdata)" in inspect.getsource(DIMSEServiceProvider.send_msg)
    assert "primitive._dataset_file = " in inspect.getsource(DIMSEMessage.message_to_primitive)
    # What wakes a thread that waits for a message.
    assert "self.msg_queue.get(" in inspect.getsource(DIMSEServiceProvider.get_msg)


def test_what_waits_for_a_server_of_mongodb_waits_by_the_function_that_is_replaced() -> None:
    source = inspect.getsource(pymongo.lock._async_cond_wait)
    assert "await wait_for(condition.wait(), timeout)" in source
    assert "_async_cond_wait(" in inspect.getsource(pymongo.asynchronous.topology)


def test_a_file_set_keeps_its_temporary_folder_where_it_is_removed() -> None:
    assert 'self._stage["path"] = Path(self._stage["t"].name)' in inspect.getsource(
        FileSet.__init__
    )


def test_the_data_dictionary_has_entries_of_five_in_the_known_order() -> None:
    assert DicomDictionary[0x00100010] == ("PN", "1", "Patient's Name", "", "PatientName")
    assert RepeatersDictionary["60xx3000"] == ("OB or OW", "1", "Overlay Data", "", "OverlayData")


@pytest.mark.parametrize(
    "library",
    [
        "strawberry-graphql",
        "graphql-core",
        "uvicorn",
        "websockets",
        "pydicom",
        "pymongo",
        "pynetdicom",
    ],
)
def test_versions_are_bounded_where_private_parts_are_used(library: str) -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    dependencies = tomllib.loads(text)["project"]["dependencies"]
    [bounds] = [one.removeprefix(library) for one in dependencies if one.startswith(f"{library}>")]
    assert ",<" in bounds
