"""One door to KMS: an operation, sent once, and what its failure means. Importable without aioboto3."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from oms_events._aio import cancelled_from_outside
from oms_events._aws.config import AwsConfig
from oms_events.errors import (
    EventRejectedError,
    MissingExtraError,
    PlatformDeniedError,
    PublishError,
    StorageDeniedError,
    StorageError,
    StorageRejectedError,
    StorageUnavailableError,
)

if TYPE_CHECKING:
    from types import ModuleType

    import aioboto3

    from oms_events._aws.session import AwsClient

# What stays so until somebody changes the key or the configuration.
_KEY_UNUSABLE: Final = frozenset(
    ("DisabledException", "InvalidArnException", "InvalidKeyUsageException", "KMSInvalidStateException",
     "NotFoundException")
)  # fmt: skip
_ACCESS: Final = frozenset(("AccessDenied", "AccessDeniedException"))
UNREADABLE: Final = frozenset(("IncorrectKeyException", "InvalidCiphertextException"))
"""Codes for what was not encrypted with this key, or not with this context."""


class KmsClient:
    """KMS, one attempt per call. Made by `open_kms`."""

    def __init__(self, client: AwsClient, *, timeout: float) -> None:
        self._client = client
        self._timeout = timeout

    async def call(self, operation: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Calls an operation that changes nothing. Ends within the configured timeouts together.

        Raises a `StorageError`, which is never one of unknown outcome.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await self._client.call(operation, parameters)
        except PublishError as error:
            failure = _storage_error(error, f"KMS {operation}: {error}", operation)
            raise failure from error.__cause__
        except TimeoutError:
            raise StorageUnavailableError(f"KMS {operation}: not answered in {self._timeout:g} s") from None
        except asyncio.CancelledError as error:
            if cancelled_from_outside():
                raise
            # Something inside was: it must not look as if the caller had to end.
            raise StorageUnavailableError(f"KMS {operation}: what waited for the answer was cancelled") from error

    async def close(self) -> None:
        """Closes what was opened here; a borrowed client stays open."""
        await self._client.close()


async def open_kms(
    config: AwsConfig, *, connections: int, session: aioboto3.Session | None = None, client: Any = None
) -> KmsClient:
    """Makes a client of KMS, or takes the borrowed one (its `kms` client); the first call connects.

    Raises `ConfigurationError` for a missing region, profile or file, `MissingExtraError` without aioboto3, and
    a `StorageError` when credentials cannot be had.
    """
    # Importing botocore takes most of a second.
    aws = await asyncio.to_thread(_load_aws)
    try:
        opened = await aws.open_client(
            config, "kms", connections=connections, direct=False, session=session, client=client
        )
    except PublishError as error:
        failure = _storage_error(error, f"KMS cannot be used: {error}", "")
        raise failure from error.__cause__
    return KmsClient(opened, timeout=config.connect_timeout + config.read_timeout)


def _storage_error(error: PublishError, text: str, operation: str) -> StorageError:
    if error.code in _KEY_UNUSABLE:
        return StorageDeniedError(
            f"{text}; check the key's id and Region, and that it is enabled", code=error.code
        )
    if isinstance(error, PlatformDeniedError):
        remedy = f"; allow kms:{operation} on the key to these credentials" if error.code in _ACCESS else ""
        return StorageDeniedError(text + remedy, code=error.code)
    if isinstance(error, EventRejectedError) or error.code in UNREADABLE:
        return StorageRejectedError(text, code=error.code)
    return StorageUnavailableError(text, code=error.code, retry_after=error.retry_after)


def _load_aws() -> ModuleType:
    try:
        from oms_events._aws import session
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "oms_events":
            raise
        raise MissingExtraError("aws", needed_for="KMS") from error
    return session
