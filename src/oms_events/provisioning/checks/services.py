"""AWS's services, each opened when it is first asked, and asked a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from oms_events._aws.config import AwsConfig
from oms_events._aws.control import ControlClient, open_control
from oms_events.errors import ProvisioningError

if TYPE_CHECKING:
    import aioboto3

_NOT_THERE: Final = frozenset(
    ("AWS.SimpleQueueService.NonExistentQueue", "NoSuchEntity", "NotFound", "NotFoundException",
     "QueueDoesNotExist", "ResourceNotFoundException")
)  # fmt: skip
_TOKENS: Final = ("NextToken", "nextToken", "Marker")
_CALLS_AT_ONCE: Final = 8
"""EventBridge takes 50 calls a second of its control plane from all users of an account (EventBridge quotas)."""


class Clients:
    """One client for each service and configuration, closed with `stack`; a `session` brings its credentials."""

    def __init__(self, stack: AsyncExitStack, session: aioboto3.Session | None) -> None:
        self.slots = asyncio.Semaphore(_CALLS_AT_ONCE)
        self._stack = stack
        self._session = session
        self._opening = asyncio.Lock()
        self._clients: dict[str, list[tuple[AwsConfig, ControlClient]]] = {}

    async def get(self, config: AwsConfig, service: str) -> ControlClient:
        """The client. Raises `ConfigurationError` for a missing region, and a `ProvisioningError`."""
        async with self._opening:
            opened = self._clients.setdefault(service, [])
            client = next((client for known, client in opened if known == config), None)
            if client is None:
                opening = open_control(config, service, session=self._session)
                client = await self._stack.enter_async_context(opening)
                opened.append((config, client))
            return client


class Services:
    """Calls that look, with one configuration; `special` are those of services that differ from it.

    Every call raises what `ControlClient.call` and `Clients.get` raise.
    """

    def __init__(
        self, clients: Clients, config: AwsConfig, special: Mapping[str, AwsConfig] | None = None
    ) -> None:
        self._clients = clients
        self._config = config
        self._special = special or {}

    async def region(self, service: str) -> str:
        """The region in which a service is asked."""
        return (await self._client(service)).region

    async def call(self, service: str, operation: str, /, **parameters: Any) -> Mapping[str, Any]:
        """The answer of an operation."""
        client = await self._client(service)
        async with self._clients.slots:
            return await client.call(operation, **parameters)

    async def find(self, service: str, operation: str, /, **parameters: Any) -> Mapping[str, Any] | None:
        """The answer of an operation; None for a thing that does not exist."""
        try:
            return await self.call(service, operation, **parameters)
        except ProvisioningError as error:
            if error.code not in _NOT_THERE:
                raise
            return None

    async def each(self, service: str, operation: str, key: str, /, **parameters: Any) -> AsyncIterator[Any]:
        """The things under `key` in all answers of an operation that answers in parts."""
        rest: dict[str, Any] = {}
        while True:
            answer = await self.call(service, operation, **parameters, **rest)
            for item in answer.get(key, ()):
                yield item
            rest = {name: answer[name] for name in _TOKENS if answer.get(name)}
            if not rest:
                return

    async def _client(self, service: str) -> ControlClient:
        return await self._clients.get(self._special.get(service, self._config), service)
