"""One door to the Parameter Store: an operation, and what its failure means. Importable without aioboto3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from oms_events._aws.config import AwsConfig
from oms_events._aws.service import ACCESS_DENIED, ServiceClient, open_service, told
from oms_events.errors import (
    EventRejectedError,
    PlatformDeniedError,
    PublishError,
    StorageDeniedError,
    StorageError,
    StorageRejectedError,
    StorageUnavailableError,
)

if TYPE_CHECKING:
    import aioboto3

_NAME: Final = "the Parameter Store"
_MISSING: Final = frozenset(("ParameterNotFound", "ParameterVersionNotFound"))
_NO_KEY: Final = "InvalidKeyId"


async def open_ssm(
    config: AwsConfig, *, connections: int, session: aioboto3.Session | None = None, client: Any = None
) -> ServiceClient:
    """Makes a client of Systems Manager, or takes the borrowed one (its `ssm` client); the first call connects.

    Its calls raise a `StorageError`. Raises `ConfigurationError` for a missing region, profile or file,
    `MissingExtraError` without aioboto3, and a `StorageError` when credentials cannot be had.
    """
    return await open_service(
        config,
        "ssm",
        name=_NAME,
        translate=_storage_error,
        connections=connections,
        session=session,
        client=client,
    )


def _storage_error(error: PublishError, operation: str) -> StorageError:
    text = told(_NAME, error, operation)
    if error.code in _MISSING:
        return StorageDeniedError(
            f"{text}; there is no such parameter: create it, or check its name and aws_region", code=error.code
        )
    if error.code == _NO_KEY:
        return StorageDeniedError(f"{text}; allow kms:Decrypt on the parameter's key", code=error.code)
    if isinstance(error, PlatformDeniedError):
        remedy = f"; allow ssm:{operation} on the parameter to these credentials"
        return StorageDeniedError(text + (remedy if error.code in ACCESS_DENIED else ""), code=error.code)
    if isinstance(error, EventRejectedError):
        return StorageRejectedError(text, code=error.code)
    return StorageUnavailableError(text, code=error.code, retry_after=error.retry_after)
