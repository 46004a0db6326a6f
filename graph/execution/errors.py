"""Shows our own errors to the caller, and masks all others."""

import logging
from collections.abc import Iterable

from graphql import GraphQLError, GraphQLSyntaxError
from strawberry.schema.exceptions import CannotGetOperationTypeError

from graph.state import correlation_id, new_correlation_id
from services.errors import Error, InvalidInput, ModalityError
from services.observability.metrics import count_graphql_error

_log = logging.getLogger(__name__)

_MASKED = "Something went wrong in the server. Its log has the details: {}."


def publish_errors(errors: Iterable[GraphQLError]) -> None:
    """Give every error its code, and replace messages that callers must not see.

    Errors of `services.errors` and of GraphQL itself (syntax, validation, variables, the name of
    the operation) keep their messages. All others are logged once, with a reference that the caller
    gets instead of the message.

    Args:
        errors: Of one operation.
    """
    for error in errors:
        cause = _cause(error)
        if isinstance(cause, Error):
            _publish(error, cause)
        elif isinstance(cause, CannotGetOperationTypeError):
            _publish(error, InvalidInput(cause.as_http_error_reason()))
        elif cause is None:
            _set_code(error, _code_of_graphql(error))
        else:
            _mask(error, cause)
        count_graphql_error((error.extensions or {}).get("code"))


def _cause(error: GraphQLError) -> BaseException | None:
    """Return what a resolver or a scalar raised; None for errors of GraphQL itself."""
    cause: BaseException | None = error.original_error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    return cause


def _publish(error: GraphQLError, cause: Error) -> None:
    error.message = cause.message
    _set_code(error, cause.code)
    if isinstance(cause, InvalidInput) and cause.argument is not None:
        error.extensions = {**(error.extensions or {}), "argument": cause.argument}
    if isinstance(cause, ModalityError) and cause.dimse_status is not None:
        error.extensions = {**(error.extensions or {}), "dimseStatus": cause.dimse_status}
    if cause.detail:
        _log.warning("%s at %s: %s", cause.code, _place(error), cause.detail)


def _mask(error: GraphQLError, cause: BaseException) -> None:
    reference = correlation_id.get()
    if reference == "-":
        reference = new_correlation_id()
    _log.error("Unexpected error %s at %s", reference, _place(error), exc_info=cause)
    error.message = _MASKED.format(reference)
    # Code that formats the error later must not find the cause.
    error.original_error = None
    error.extensions = {"code": Error.code, "correlationId": reference}


def _set_code(error: GraphQLError, code: str) -> None:
    error.extensions = {"code": code, **(error.extensions or {})}


def _code_of_graphql(error: GraphQLError) -> str:
    if isinstance(error, GraphQLSyntaxError):
        return "GRAPHQL_PARSE_FAILED"
    return "GRAPHQL_VALIDATION_FAILED"


def _place(error: GraphQLError) -> str:
    """Return the path of the field. List positions reveal nothing about patients."""
    return ".".join(str(part) for part in error.path or ()) or "(operation)"
