"""Control planes (CloudFormation and those that are asked about its work). Importable without aioboto3."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from oms_events._aws.config import AwsConfig
from oms_events.errors import MissingExtraError, ProvisioningError

if TYPE_CHECKING:
    from types import ModuleType

    import aioboto3

_ATTEMPTS: Final = 5
"""Tries of one call: with botocore's standard backoff up to fifteen seconds, longer than a burst of throttling."""


class ControlClient:
    """One service's client; calls that may be repeated are, by botocore's standard retries."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._methods: Mapping[str, str] = {
            operation: method for method, operation in client.meta.method_to_api_mapping.items()
        }

    @property
    def region(self) -> str:
        """The region that calls go to."""
        region: str = self._client.meta.region_name
        return region

    @property
    def endpoint_url(self) -> str:
        """Where calls go."""
        url: str = self._client.meta.endpoint_url
        return url

    async def call(self, operation: str, /, **parameters: Any) -> Mapping[str, Any]:
        """Calls an operation, such as `DescribeStacks`, with its parameters under AWS's names.

        Throttling, lost connections and server errors are retried, so that an operation that changes something
        needs a client token where it has one. Raises `AccessError` for credentials and permissions, and
        `ProvisioningError` with AWS's code for everything else. Cancelled, it may or may not have been done.
        """
        method = getattr(self._client, self._methods[operation])
        try:
            answer: Mapping[str, Any] = await method(**parameters)
        except Exception as error:
            failure = _control_error(error, operation)
            raise failure from failure.__cause__
        return answer

    async def pages(self, operation: str, /, **parameters: Any) -> AsyncGenerator[Mapping[str, Any], None]:
        """The answers of an operation that botocore knows to come in pages. Raises as `call` does."""
        paginator = self._client.get_paginator(self._methods[operation])
        try:
            async for page in paginator.paginate(**parameters):
                yield page
        except Exception as error:
            failure = _control_error(error, operation)
            raise failure from failure.__cause__


@asynccontextmanager
async def open_control(
    config: AwsConfig, service: str, *, session: aioboto3.Session | None = None, client: Any = None
) -> AsyncIterator[ControlClient]:
    """Makes a client of `service` and closes it, or takes the borrowed one; the first call connects.

    Raises `ConfigurationError` for a missing region, profile or file, `MissingExtraError` without aioboto3, and
    `AccessError` when credentials cannot be had.
    """
    if client is not None:
        yield ControlClient(client)
        return
    # Importing botocore takes most of a second.
    aws = await asyncio.to_thread(_load_session)
    async with AsyncExitStack() as stack:
        yield ControlClient(
            await aws.enter_control_client(stack, config, service, attempts=_ATTEMPTS, session=session)
        )


def _control_error(error: Exception, operation: str) -> ProvisioningError:
    # Loaded by now: there is a client.
    from oms_events._aws.errors import control_error

    return control_error(error, operation=operation)


def _load_session() -> ModuleType:
    try:
        from oms_events._aws import session
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "oms_events":
            raise
        raise MissingExtraError("aws", needed_for="provisioning") from error
    return session
