import logging

import pytest
from graphql import GraphQLError, GraphQLSyntaxError, Source
from strawberry.schema.exceptions import CannotGetOperationTypeError

from graph.execution.errors import publish_errors
from services.errors import InvalidInput, OrthancUnavailable


def published(error: GraphQLError) -> dict[str, object]:
    publish_errors([error])
    return dict(error.formatted)


def test_an_error_of_ours_keeps_its_message_and_gets_its_code() -> None:
    error = GraphQLError("x", path=["studies"], original_error=InvalidInput("`first` is wrong."))
    assert published(error) == {
        "message": "`first` is wrong.",
        "path": ["studies"],
        "extensions": {"code": "INVALID_INPUT"},
    }


def test_the_detail_of_an_error_of_ours_is_for_the_log_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = GraphQLError("x", original_error=OrthancUnavailable(detail="ReadTimeout"))
    assert "ReadTimeout" not in str(published(error))
    assert "ReadTimeout" in caplog.text


def test_anything_else_is_masked_and_logged_once_with_the_id_that_the_caller_gets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cause = RuntimeError("password=secret")
    error = GraphQLError("password=secret", path=["study"], original_error=cause)
    with caplog.at_level(logging.DEBUG):
        answer = published(error)
    assert error.extensions is not None
    reference = error.extensions["correlationId"]
    assert answer == {
        "message": f"Something went wrong in the server. Its log has the details: {reference}.",
        "path": ["study"],
        "extensions": {"code": "INTERNAL_ERROR", "correlationId": reference},
    }
    assert [(record.levelname, reference in record.message) for record in caplog.records] == [
        ("ERROR", True)
    ]
    assert error.original_error is None


def test_an_operation_of_no_such_name_is_an_error_of_the_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = GraphQLError("x", original_error=CannotGetOperationTypeError("B"))
    assert published(error) == {
        "message": 'Unknown operation named "B".',
        "extensions": {"code": "INVALID_INPUT"},
    }
    assert caplog.records == []


def test_a_cause_inside_an_error_of_graphql_is_found() -> None:
    inner = GraphQLError("secret", original_error=ValueError("secret"))
    assert "secret" not in str(published(GraphQLError("secret", original_error=inner)))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GraphQLSyntaxError(Source("{"), 1, "Expected Name."), "GRAPHQL_PARSE_FAILED"),
        (GraphQLError("Cannot query field 'x'."), "GRAPHQL_VALIDATION_FAILED"),
        (
            GraphQLError("Variable '$d'", original_error=GraphQLError("A Date is ...")),
            "GRAPHQL_VALIDATION_FAILED",
        ),
    ],
)
def test_what_graphql_finds_keeps_its_message_and_gets_a_code(
    error: GraphQLError, code: str
) -> None:
    message = error.message
    answer = published(error)
    assert (answer["message"], answer["extensions"]) == (message, {"code": code})
