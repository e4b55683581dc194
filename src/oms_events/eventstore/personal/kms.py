"""People's keys encrypted by KMS, so that reading their table alone reads no personal data."""

from __future__ import annotations

import asyncio
import random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from oms_events._aio import Clock, SystemClock
from oms_events._aws.service import ServiceClient
from oms_events._aws.storage import KMS, UNREADABLE
from oms_events.errors import PersonalDataError, StorageRejectedError, StorageUnavailableError
from oms_events.eventstore.config import KmsConfig

if TYPE_CHECKING:
    import aioboto3

SUBJECT_CONTEXT: Final = "oms-events:subject"
"""The name of the subject in the encryption context, as key policies and CloudTrail have it."""


class KmsKeyWrapper:
    """Wraps keys with KMS, with the subject as encryption context. One call for each key that is not cached.

    Give a `session` (aioboto3) or a `client` (its `kms` client) to use your own; neither is ever closed. Opens at
    the first use, or as `async with`. Needs `kms:Encrypt` to make keys and `kms:Decrypt` to use them. KMS keys may
    be rotated, and `key_id` may be changed as long as the old one can be used to decrypt.
    """

    def __init__(
        self,
        config: KmsConfig,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config
        self._session = session
        self._borrowed = client
        self._clock = clock or SystemClock()
        self._rng = rng or random.SystemRandom()
        self._opening = asyncio.Lock()
        self._slots = asyncio.Semaphore(config.connections)
        self._kms: ServiceClient | None = None
        self._is_closed = False

    async def open(self) -> None:
        """Makes the client; idempotent, also after `close`. It does not look at the key.

        Raises `ConfigurationError` for a region, profile or file that is missing, `MissingExtraError` without
        aioboto3, and a `StorageError`.
        """
        self._is_closed = False
        async with self._opening:
            if self._kms is None:
                config = self._config
                self._kms = await KMS.open(
                    config, connections=config.connections, session=self._session, client=self._borrowed
                )

    async def close(self) -> None:
        """Closes what was opened here; idempotent. Calls that are under way fail, and so do later ones."""
        self._is_closed = True
        async with self._opening:
            kms, self._kms = self._kms, None
            if kms is not None:
                await kms.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def wrap(self, key: bytes, *, subject: str) -> bytes:
        """See `KeyWrapper.wrap`."""
        answer = await self._call(
            "Encrypt", KeyId=self._config.key_id, Plaintext=key, EncryptionContext={SUBJECT_CONTEXT: subject}
        )
        return bytes(answer["CiphertextBlob"])

    async def unwrap(self, wrapped: bytes, *, subject: str) -> bytes:
        """See `KeyWrapper.unwrap`. KMS finds its key itself, by what it had written."""
        try:
            answer = await self._call(
                "Decrypt", CiphertextBlob=wrapped, EncryptionContext={SUBJECT_CONTEXT: subject}
            )
        except StorageRejectedError as error:
            if error.code not in UNREADABLE:
                raise
            text = f"the key of subject {subject!r} was not wrapped by this KMS key, or not for this subject"
            raise PersonalDataError(text, subject=subject) from error
        return bytes(answer["Plaintext"])

    async def _call(self, operation: str, **parameters: Any) -> Any:
        retry, attempt = self._config.retry, 1
        while True:
            if self._kms is None and not self._is_closed:
                await self.open()
            if (kms := self._kms) is None:
                raise StorageUnavailableError("the connection to KMS was closed")
            try:
                async with self._slots:
                    return await kms.call(operation, parameters)
            except StorageUnavailableError as error:
                if attempt >= retry.max_attempts or self._is_closed:
                    raise
                pause = max(retry.delay(attempt, self._rng.random), error.retry_after or 0.0)
                await self._clock.sleep(pause)
            attempt += 1
