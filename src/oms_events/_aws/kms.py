"""One door to KMS: an operation, sent once, and what its failure means. Importable without aioboto3."""

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

_NAME: Final = "KMS"
# What stays so until somebody changes the key or the configuration.
_KEY_UNUSABLE: Final = frozenset(
    ("DisabledException", "InvalidArnException", "InvalidKeyUsageException", "KMSInvalidStateException",
     "NotFoundException")
)  # fmt: skip
UNREADABLE: Final = frozenset(("IncorrectKeyException", "InvalidCiphertextException"))
"""Codes for what was not encrypted with this key, or not with this context."""


async def open_kms(
    config: AwsConfig, *, connections: int, session: aioboto3.Session | None = None, client: Any = None
) -> ServiceClient:
    """Makes a client of KMS, or takes the borrowed one (its `kms` client); the first call connects.

    Its calls raise a `StorageError`. Raises `ConfigurationError` for a missing region, profile or file,
    `MissingExtraError` without aioboto3, and a `StorageError` when credentials cannot be had.
    """
    return await open_service(
        config,
        "kms",
        name=_NAME,
        translate=_storage_error,
        connections=connections,
        session=session,
        client=client,
    )


def _storage_error(error: PublishError, operation: str) -> StorageError:
    text = told(_NAME, error, operation)
    if error.code in _KEY_UNUSABLE:
        return StorageDeniedError(
            f"{text}; check the key's id and Region, and that it is enabled", code=error.code
        )
    if isinstance(error, PlatformDeniedError):
        remedy = f"; allow kms:{operation} on the key to these credentials" if error.code in ACCESS_DENIED else ""
        return StorageDeniedError(text + remedy, code=error.code)
    if isinstance(error, EventRejectedError) or error.code in UNREADABLE:
        return StorageRejectedError(text, code=error.code)
    return StorageUnavailableError(text, code=error.code, retry_after=error.retry_after)
