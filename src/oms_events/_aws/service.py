"""One door to an AWS service: an operation, sent once, and what its failure means. Importable without aioboto3."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from oms_events._aio import cancelled_from_outside
from oms_events._aws.config import AwsConfig
from oms_events._aws.sending import Sending
from oms_events.errors import (
    MissingExtraError,
    OmsEventsError,
    PublishError,
    TransientError,
    UnknownOutcomeError,
)

if TYPE_CHECKING:
    from types import ModuleType

    import aioboto3

    from oms_events._aws.session import AwsClient

ACCESS_DENIED: Final = frozenset(("AccessDenied", "AccessDeniedException"))
"""Codes with which a service says that a permission is missing, and not that the credentials are wrong."""

Translate = Callable[[PublishError, str], OmsEventsError]
"""Makes the service's own error of a failure and the operation: an empty one when no client could be made."""


class ServiceClient:
    """A service's client, one attempt per call. Made by `open_service`."""

    def __init__(self, client: AwsClient, *, name: str, translate: Translate, timeout: float) -> None:
        self._client = client
        self._name = name
        self._translate = translate
        self._timeout = timeout

    async def call(
        self, operation: str, parameters: Mapping[str, Any], *, changes: bool = False
    ) -> Mapping[str, Any]:
        """Calls an operation, and gives its answer. Ends within the configured timeouts together.

        One that `changes` something may have an unknown outcome; others are never told as that. Raises what the
        service's failures are translated to. Cancelled, a change may or may not have been made.
        """
        sending = Sending()
        cause: BaseException | None
        try:
            async with asyncio.timeout(self._timeout):
                if changes:
                    return await self._client.send(operation, parameters, sending)
                return await self._client.call(operation, parameters)
        except PublishError as error:
            failure, cause = error, error.__cause__
        except TimeoutError:
            failure, cause = _unanswered(sending, f"not answered in {self._timeout:g} s"), None
        except asyncio.CancelledError as error:
            if cancelled_from_outside():
                raise
            # Something inside was: it must not look as if the caller had to end.
            failure, cause = _unanswered(sending, "what waited for the answer was cancelled"), error
        raise self._translate(failure, operation) from cause

    async def close(self) -> None:
        """Closes what was opened here; a borrowed client stays open."""
        await self._client.close()


async def open_service(
    config: AwsConfig,
    service: str,
    *,
    name: str,
    translate: Translate,
    connections: int,
    session: aioboto3.Session | None = None,
    client: Any = None,
) -> ServiceClient:
    """Makes a client of a service (botocore's word), or takes the borrowed one; the first call connects.

    `name` is what messages call it. Raises `ConfigurationError` for a missing region, profile or file,
    `MissingExtraError` without aioboto3, and what failures are translated to when credentials cannot be had.
    """
    # Importing botocore takes most of a second.
    aws = await asyncio.to_thread(_load_aws, name)
    try:
        opened = await aws.open_client(
            config, service, connections=connections, direct=False, session=session, client=client
        )
    except PublishError as error:
        raise translate(error, "") from error.__cause__
    timeout = config.connect_timeout + config.read_timeout
    return ServiceClient(opened, name=name, translate=translate, timeout=timeout)


def told(name: str, error: PublishError, operation: str) -> str:
    """What failed, for a message: the service, its operation, and AWS's own words."""
    return f"{name} {operation}: {error}" if operation else f"{name} cannot be used: {error}"


def _unanswered(sending: Sending, why: str) -> PublishError:
    return UnknownOutcomeError(f"sent, but {why}") if sending.begun else TransientError(why)


def _load_aws(name: str) -> ModuleType:
    try:
        from oms_events._aws import session
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "oms_events":
            raise
        raise MissingExtraError("aws", needed_for=name) from error
    return session
