"""`/graphql`: GraphQL over HTTP and WebSocket, with uploads, limits and errors as JSON."""

from typing import Any, cast

import orjson
from graphql import GraphQLError
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.http import GraphQLHTTPResponse, process_result
from strawberry.http.async_base_view import AsyncHTTPRequestAdapter
from strawberry.http.exceptions import HTTPException
from strawberry.schema.base import BaseSchema
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError

from graph.authentication import principal_of, principal_of_connection_params
from graph.base_url import base_url_of
from graph.context import Context, open_context
from graph.origins import AllowedOrigins
from graph.state import runtime_of
from graph.uploads import UploadLimits, parse_upload_request

_JSON = "application/json"
_RESPONSE_JSON = "application/graphql-response+json"
"""GraphQL over HTTP, section 6: with this media type the status says whether it was executed."""

_CODES = {405: "METHOD_NOT_ALLOWED", 413: "LIMIT_EXCEEDED", 415: "UNSUPPORTED_MEDIA_TYPE"}


class GraphQLEndpoint(GraphQL[Context, None]):
    """The GraphQL endpoint of this server."""
