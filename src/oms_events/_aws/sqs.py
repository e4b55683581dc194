"""One door to SQS: an operation, sent once, and what its failure means. Importable without aioboto3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from oms_events._aws.config import AwsConfig
from oms_events._aws.service import ACCESS_DENIED, ServiceClient, open_service, told
from oms_events.errors import (
    EventRejectedError,
    PlatformDeniedError,
    PublishError,
    QueueError,
    UnknownOutcomeError,
)

if TYPE_CHECKING:
    import aioboto3

_NAME: Final = "SQS"
# What SQS said before it spoke JSON, and still says to clients of that time: botocore shows that code.
_OLD_PREFIX: Final = "AWS.SimpleQueueService."
_OLD_NAMES: Final = {"NonExistentQueue": "QueueDoesNotExist"}

NO_QUEUE: Final = "QueueDoesNotExist"
# What stays so until somebody changes the queue, its key or the configuration.
_QUEUE_UNUSABLE: Final = frozenset(
    (NO_QUEUE, "InvalidAddress", "InvalidSecurity", "KmsAccessDenied", "KmsDisabled", "KmsInvalidKeyUsage",
     "KmsInvalidState", "KmsNotFound", "KmsOptInRequired", "UnsupportedOperation")
)  # fmt: skip
# What stays so for this request.
_REJECTED: Final = frozenset(
    ("BatchEntryIdsNotDistinct", "EmptyBatchRequest", "InvalidBatchEntryId", "InvalidIdFormat",
     "InvalidMessageContents", "MessageNotInflight", "MissingParameter",
     "ReceiptHandleIsInvalid", "TooManyEntriesInBatchRequest")
)  # fmt: skip
_GONE: Final = frozenset(("MessageNotInflight", "ReceiptHandleIsInvalid"))
_RECEIPT: Final = "ReceiptHandle"


async def open_sqs(
    config: AwsConfig, *, connections: int, session: aioboto3.Session | None = None, client: Any = None
) -> ServiceClient:
    """Makes a client of SQS, or takes the borrowed one (its `sqs` client); the first call connects.

    Its calls raise `QueueError`. Raises `ConfigurationError` for a missing region, profile or file,
    `MissingExtraError` without aioboto3, and `QueueError` when credentials cannot be had.
    """
    return await open_service(
        config,
        "sqs",
        name=_NAME,
        translate=_queue_error,
        connections=connections,
        session=session,
        client=client,
    )


def is_gone(code: str, message: str) -> bool:
    """Whether SQS says that a message was deleted, or is no longer held by the receipt handle given."""
    return code in _GONE or (code == "InvalidParameterValue" and _RECEIPT in message)


def code_of(code: str) -> str:
    """The code as SQS's JSON API calls it."""
    name = code.removeprefix(_OLD_PREFIX)
    return _OLD_NAMES.get(name, name)


def _queue_error(error: PublishError, operation: str) -> QueueError:
    text, code = told(_NAME, error, operation), code_of(error.code)
    if isinstance(error, UnknownOutcomeError):
        return QueueError(text, code=code, retryable=True, unknown=True)
    if code == NO_QUEUE:
        return QueueError(f"{text}; there is no such queue: check queue_url and aws_region", code=code)
    if isinstance(error, PlatformDeniedError) and code in ACCESS_DENIED:
        # Permissions have no batches.
        action = operation.removesuffix("Batch")
        return QueueError(f"{text}; allow sqs:{action} on the queue to these credentials", code=code)
    if code == "BatchRequestTooLong":
        return QueueError(f"{text}; lower max_batch_bytes to what SQS takes there", code=code)
    refused = isinstance(error, PlatformDeniedError | EventRejectedError)
    if refused or code in _QUEUE_UNUSABLE or code in _REJECTED:
        return QueueError(text, code=code)
    return QueueError(text, code=code, retryable=True)
