from __future__ import annotations

from typing import Any

import pytest
from botocore import exceptions as boto

from oms_events._aws.errors import publish_error
from oms_events.errors import (
    EventRejectedError,
    PlatformDeniedError,
    PublishError,
    TransientError,
    UnknownOutcomeError,
)


def answer(code: str, status: int = 400, *, operation: str = "PutEvents", **headers: str) -> boto.ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": "text"},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    return boto.ClientError(response, operation)


@pytest.mark.parametrize(("header", "expected"), [("3", 3.0), ("", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)])
def test_throttling_passes_on_when_to_come_back(header: str, expected: float | None) -> None:
    error = publish_error(answer("ThrottlingException", **{"retry-after": header}), operation="PutEvents")
    assert isinstance(error, TransientError)
    assert (error.throttled, error.retry_after, error.code) == (True, expected, "ThrottlingException")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answer("429", 429), TransientError),
        (answer("ServiceUnavailable", 503), UnknownOutcomeError),
        (answer("SlowDown", 503), TransientError),
        (answer("InternalException", 500, operation="AssumeRole"), TransientError),
        (answer("407", 407), PlatformDeniedError),
        (answer("413", 413), EventRejectedError),
        (answer("RequestTimeoutException", 400), TransientError),
        (answer("408", 408), UnknownOutcomeError),
        (answer("408", 408, operation="AssumeRole"), TransientError),
        (boto.NoCredentialsError(), PlatformDeniedError),
        (boto.PartialCredentialsError(provider="env", cred_var="x"), PlatformDeniedError),
        (boto.SSOTokenLoadError(error_msg="x"), PlatformDeniedError),
        (boto.ConnectTimeoutError(endpoint_url="u"), TransientError),
        (boto.ReadTimeoutError(endpoint_url="u"), UnknownOutcomeError),
        (boto.ConnectionClosedError(endpoint_url="u"), UnknownOutcomeError),
        (boto.ParamValidationError(report="x"), EventRejectedError),
        (ValueError("what?"), UnknownOutcomeError),
    ],
    ids=repr,
)
def test_every_error_has_its_class_and_keeps_its_cause(error: Exception, kind: type[PublishError]) -> None:
    failure = publish_error(error, operation="PutEvents")
    assert type(failure) is kind
    assert failure.__cause__ is error


def test_what_was_not_sent_is_never_unknown() -> None:
    for error in (
        answer("InternalException", 500),
        answer("408", 408),
        boto.ReadTimeoutError(endpoint_url="u"),
        ValueError("x"),
    ):
        assert type(publish_error(error, operation="PutEvents", sent=False)) is TransientError


def retried(code: str, status: int = 400) -> boto.ClientError:
    error = answer(code, status)
    error.response["ResponseMetadata"]["RetryAttempts"] = 1
    return error


@pytest.mark.parametrize("code", ["ThrottlingException", "AccessDeniedException", "ValidationException", "Other"])
def test_what_a_client_is_told_after_a_retry_of_its_own_says_nothing_of_its_first_try(code: str) -> None:
    failure = publish_error(retried(code), operation="PutEvents")
    assert type(failure) is UnknownOutcomeError
    assert failure.code == code
    assert failure.throttled == (code == "ThrottlingException")
    assert type(publish_error(retried(code), operation="PutEvents", sent=False)) is not UnknownOutcomeError


@pytest.mark.parametrize("retries", [True, False])
def test_a_connection_that_a_retrying_client_could_not_make_may_have_been_its_second(retries: bool) -> None:
    failure = publish_error(boto.ConnectTimeoutError(endpoint_url="u"), operation="PutEvents", retries=retries)
    assert type(failure) is (UnknownOutcomeError if retries else TransientError)
