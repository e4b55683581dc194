"""Doors to KMS and the Parameter Store, whose failures are those of a storage. Importable without aioboto3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageService:
    """A service (botocore's word), and what its codes mean.

    `what` is the thing that permissions are for. `unusable` has the codes of what stays so until somebody changes
    the thing or the configuration, with the remedy; `rejected` those of what stays so for the request.
    """

    service: str
    name: str
    what: str
    unusable: Mapping[str, str]
    rejected: frozenset[str] = field(default=frozenset())

    async def open(
        self, config: AwsConfig, *, connections: int, session: aioboto3.Session | None = None, client: Any = None
    ) -> ServiceClient:
        """Makes a client, or takes the borrowed one (botocore's, of the service); the first call connects.

        Its calls raise a `StorageError`. Raises `ConfigurationError` for a missing region, profile or file,
        `MissingExtraError` without aioboto3, and a `StorageError` when credentials cannot be had.
        """
        return await open_service(
            config,
            self.service,
            name=self.name,
            translate=self._error,
            connections=connections,
            session=session,
            client=client,
        )

    def _error(self, error: PublishError, operation: str) -> StorageError:
        text, code = told(self.name, error, operation), error.code
        if (remedy := self.unusable.get(code)) is not None:
            return StorageDeniedError(f"{text}; {remedy}", code=code)
        if isinstance(error, PlatformDeniedError):
            allow = f"; allow {self.service}:{operation} on {self.what} to these credentials"
            return StorageDeniedError(text + (allow if code in ACCESS_DENIED else ""), code=code)
        if isinstance(error, EventRejectedError) or code in self.rejected:
            return StorageRejectedError(text, code=code)
        return StorageUnavailableError(text, code=code, retry_after=error.retry_after)


UNREADABLE: Final = frozenset(("IncorrectKeyException", "InvalidCiphertextException"))
"""Codes of KMS for what was not encrypted with this key, or not with this context."""

KMS: Final = StorageService(
    service="kms",
    name="KMS",
    what="the key",
    unusable=dict.fromkeys(
        ("DisabledException", "InvalidArnException", "InvalidKeyUsageException", "KMSInvalidStateException",
         "NotFoundException"),
        "check the key's id and Region, and that it is enabled",
    ),
    rejected=UNREADABLE,
)  # fmt: skip

PARAMETER_STORE: Final = StorageService(
    service="ssm",
    name="the Parameter Store",
    what="the parameter",
    unusable={
        **dict.fromkeys(
            ("ParameterNotFound", "ParameterVersionNotFound"),
            "there is no such parameter: create it, or check its name and aws_region",
        ),
        "InvalidKeyId": "allow kms:Decrypt on the parameter's key",
    },
)
