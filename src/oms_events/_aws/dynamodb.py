"""One door to DynamoDB: an operation, sent once, and what its failure means. Importable without aioboto3."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from oms_events._aio import cancelled_from_outside
from oms_events._aws.config import AwsConfig
from oms_events._aws.sending import Sending
from oms_events.errors import (
    ConditionFailedError,
    EventRejectedError,
    MissingExtraError,
    PlatformDeniedError,
    PublishError,
    StorageDeniedError,
    StorageError,
    StorageOutcomeUnknownError,
    StorageRejectedError,
    StorageUnavailableError,
    TransactionCanceledError,
    TransactionConflictError,
    UnknownOutcomeError,
)

if TYPE_CHECKING:
    from types import ModuleType

    import aioboto3

    from oms_events._aws.session import AwsClient

CONDITION_FAILED: Final = "ConditionalCheckFailed"
CONFLICT: Final = "TransactionConflict"

# What changes nothing is never unknown.
READS: Final = frozenset(
    ("BatchGetItem", "DescribeContinuousBackups", "DescribeStream", "DescribeTable", "GetItem", "GetRecords",
     "GetShardIterator", "Query", "Scan", "TransactGetItems")
)  # fmt: skip
# The same token is at work elsewhere: whether that call takes is not known yet.
_UNKNOWN: Final = frozenset(("TransactionInProgressException",))
_REJECTED: Final = frozenset(("IdempotentParameterMismatchException", "ItemCollectionSizeLimitExceededException"))
_ACCESS: Final = frozenset(("AccessDenied", "AccessDeniedException", "NotAuthorized", "UnauthorizedOperation"))
_REASONS_IN_TEXT: Final = re.compile(r"\[([\w, ]+)\]")


class DynamoClient:
    """DynamoDB, one attempt per call. Made by `open_dynamo`."""

    def __init__(self, client: AwsClient, *, timeout: float, region: str | None) -> None:
        self._client = client
        self._timeout = timeout
        self._region = region

    @property
    def place(self) -> str:
        """Where calls go to, for messages."""
        endpoint = self._client.endpoint_url
        return f"region {self._region!r}" + (f", endpoint {endpoint}" if endpoint else "")

    @property
    def direct(self) -> bool:
        """Whether calls go without botocore's serializer and parser."""
        return self._client.direct

    async def call(self, operation: str, parameters: Mapping[str, Any], *, table: str) -> Mapping[str, Any]:
        """Sends an operation once, and gives its answer; `parameters` as the wire has them, but for `bytes`.

        Ends within the configured timeouts together. Raises a `StorageError`; `table` is for its message.
        Cancelled, what was asked may or may not have been done. Answers hold binary values as bytes or base64.
        """
        sending = Sending()
        try:
            async with asyncio.timeout(self._timeout):
                return await self._client.send(operation, parameters, sending)
        except PublishError as error:
            failure = self._storage_error(error, operation, parameters, table)
            raise failure from error.__cause__
        except TimeoutError:
            why = f"no answer came in {self._timeout:g} s"
        except asyncio.CancelledError:
            if cancelled_from_outside():
                raise
            # Something inside was, such as a connection's lookup: it must not look as if the caller had to end.
            why = "what waited for the answer was cancelled"
        subject = f"{operation} on {_tables(parameters, table)}"
        if sending.begun and operation not in READS:
            raise StorageOutcomeUnknownError(f"{subject}: sent, but {why}")
        raise StorageUnavailableError(f"{subject}: {why}")

    async def close(self) -> None:
        """Closes what was opened here; a borrowed client stays open."""
        await self._client.close()

    def _storage_error(
        self, error: PublishError, operation: str, parameters: Mapping[str, Any], table: str
    ) -> StorageError:
        text = f"{operation} on {_tables(parameters, table)}: {error}"
        code = error.code
        may_be_done = isinstance(error, UnknownOutcomeError) and operation not in READS
        if code == "TransactionCanceledException":
            canceled = _canceled(text, getattr(error.__cause__, "response", {}))
            # By its token, a transaction that an earlier try did would have been answered as done.
            if not may_be_done or (
                isinstance(canceled, ConditionFailedError) and "ClientRequestToken" in parameters
            ):
                return canceled
        if code == "ConditionalCheckFailedException" and not may_be_done:
            return ConditionFailedError(text, reasons=(CONDITION_FAILED,), code=code)
        if code in _UNKNOWN or may_be_done:
            return StorageOutcomeUnknownError(text, code=code, retry_after=error.retry_after)
        if code in _REJECTED or isinstance(error, EventRejectedError):
            return StorageRejectedError(text, code=code)
        if isinstance(error, PlatformDeniedError):
            return StorageDeniedError(text + self._remedy(error, operation, parameters, table), code=code)
        return StorageUnavailableError(text, code=code, retry_after=error.retry_after)

    def _remedy(self, error: PublishError, operation: str, parameters: Mapping[str, Any], table: str) -> str:
        if getattr(error.__cause__, "operation_name", operation) != operation:
            return "; the role cannot be assumed: check role_arn, its trust policy and the credentials"
        tables = _tables(parameters, table)
        if error.code == "ResourceNotFoundException":
            where = f" in region {self._region!r}" if self._region else ""
            missing = (
                f"there is no {tables}" if tables.startswith("table ") else f"one of the {tables} does not exist"
            )
            return f"; {missing}{where}: create it, or check its name and the region"
        if error.code in _ACCESS:
            actions = ", ".join(sorted(_iam_actions(operation, parameters)))
            return f"; allow {actions} on {tables} to these credentials"
        return ""


async def open_dynamo(
    config: AwsConfig,
    *,
    connections: int,
    service: Literal["dynamodb", "dynamodbstreams"] = "dynamodb",
    direct: bool = True,
    session: aioboto3.Session | None = None,
    client: Any = None,
) -> DynamoClient:
    """Makes a client of DynamoDB, or takes the borrowed one (its `dynamodb` client); the first call connects.

    Streams are a service of their own, whose clients have other operations.

    Raises `ConfigurationError` for a missing region, profile or file, `MissingExtraError` without aioboto3, and
    a `StorageError` when credentials cannot be had.
    """
    # Importing botocore takes most of a second.
    aws = await asyncio.to_thread(_load_aws)
    try:
        opened = await aws.open_client(
            config, service, connections=connections, direct=direct, session=session, client=client
        )
    except PlatformDeniedError as error:
        raise StorageDeniedError(f"DynamoDB cannot be used: {error}", code=error.code) from error.__cause__
    except PublishError as error:
        raise StorageUnavailableError(f"DynamoDB cannot be used: {error}", code=error.code) from error.__cause__
    return DynamoClient(opened, timeout=config.connect_timeout + config.read_timeout, region=opened.region)


def _load_aws() -> ModuleType:
    try:
        from oms_events._aws import session
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "oms_events":
            raise
        raise MissingExtraError("aws", needed_for="DynamoDB") from error
    return session


def _canceled(text: str, response: Mapping[str, Any]) -> TransactionCanceledError:
    details = response.get("CancellationReasons") or ()
    reasons = [str(detail.get("Code") or "None") for detail in details]
    if not reasons and (found := _REASONS_IN_TEXT.search(response.get("Error", {}).get("Message", ""))):
        # Some endpoints give them only in the text.
        reasons = found[1].split(", ")
    if CONDITION_FAILED in reasons:
        return ConditionFailedError(text, reasons=reasons)
    if CONFLICT in reasons:
        return TransactionConflictError(text, reasons=reasons)
    why = "; ".join(str(detail["Message"]) for detail in details if detail.get("Message"))
    return TransactionCanceledError(f"{text} ({why})" if why else text, reasons=reasons)


def _actions_of(parameters: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for action in parameters.get("TransactItems", ()):
        yield from action.items()


def _tables_of(parameters: Mapping[str, Any]) -> Iterator[str]:
    for _, request in _actions_of(parameters):
        yield str(request.get("TableName"))


def _tables(parameters: Mapping[str, Any], table: str) -> str:
    """The tables of a request, none of them before the others: AWS does not say which one it means."""
    names = sorted(set(_tables_of(parameters))) or [table]
    return f"table{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"


def _iam_actions(operation: str, parameters: Mapping[str, Any]) -> Iterator[str]:
    """Transactions have no permission of their own: they need those of their actions."""
    verbs = {verb for verb, _ in _actions_of(parameters)}
    return (f"dynamodb:{verb}Item" for verb in verbs) if verbs else iter((f"dynamodb:{operation}",))
