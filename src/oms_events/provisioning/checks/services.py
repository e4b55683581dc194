"""AWS's services as one set of credentials sees them: opened when first asked, and asked a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, Self

from oms_events._aws.config import AwsConfig
from oms_events._aws.control import ControlClient, open_control
from oms_events.errors import ProvisioningError

if TYPE_CHECKING:
    import aioboto3

_NOT_THERE: Final = frozenset(
    ("AWS.SimpleQueueService.NonExistentQueue", "NoSuchEntity", "NotFound", "QueueDoesNotExist",
     "ResourceNotFoundException")
)  # fmt: skip
_TOKENS: Final = ("NextToken", "nextToken")


class Services:
    """Calls that look, never more than `slots` allows at once; an async context manager that closes its clients.

    `special` are the configurations of services that differ from `config`, such as one with an endpoint of its
    own. Every call raises what `ControlClient.call` raises, and `ConfigurationError` for a missing region.
    """

    def __init__(
        self,
        config: AwsConfig,
        *,
        slots: asyncio.Semaphore,
        special: Mapping[str, AwsConfig] | None = None,
        session: aioboto3.Session | None = None,
    ) -> None:
        self._config = config
        self._special = special or {}
        self._slots = slots
        self._session = session
        self._stack = AsyncExitStack()
        self._clients: dict[str, ControlClient] = {}
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def region(self, service: str) -> str:
        """The region in which a service is asked."""
        return (await self._client(service)).region

    async def call(self, service: str, operation: str, /, **parameters: Any) -> Mapping[str, Any]:
        """The answer of an operation."""
        client = await self._client(service)
        async with self._slots:
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
        async with self._opening:
            if service not in self._clients:
                config = self._special.get(service, self._config)
                opened = open_control(config, service, session=self._session)
                self._clients[service] = await self._stack.enter_async_context(opened)
            return self._clients[service]
