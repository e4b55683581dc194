"""With whose credentials, and where, each part of AWS is looked at."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from oms_events._aws.config import AwsConfig
from oms_events.provisioning.checks.services import Services

if TYPE_CHECKING:
    import aioboto3

_CALLS_AT_ONCE: Final = 8
"""EventBridge takes 50 calls a second of its control plane from all users of an account (EventBridge quotas)."""

_Config = TypeVar("_Config", bound=AwsConfig)


@dataclass(frozen=True, slots=True)
class View:
    """How one configuration is looked at: `services` look, and `own` has the configuration's own credentials."""

    services: Services
    own: Services
    config: AwsConfig
    """What `services` have for the configuration's main service."""


class Access:
    """Makes the views; their clients live as long as `stack`. `aws` looks in the place of each configuration."""

    def __init__(self, stack: AsyncExitStack, *, aws: AwsConfig | None, session: aioboto3.Session | None) -> None:
        self._stack = stack
        self._aws = aws
        self._session = session
        self._slots = asyncio.Semaphore(_CALLS_AT_ONCE)

    async def view(self, config: AwsConfig, service: str) -> View:
        """The view of a configuration whose own endpoint is that of `service`."""
        elsewhere = None if self._aws is None else self._aws.endpoint_url
        own = _plain(config, endpoint_url=elsewhere)
        region = config.aws_region if self._aws is None else self._aws.aws_region or config.aws_region
        looking = own if self._aws is None else _plain(self._aws, aws_region=region)
        main = _plain(looking, endpoint_url=config.endpoint_url or elsewhere)
        services = await self._enter(looking, {service: main})
        same = services if self._aws is None else await self._enter(own, {})
        return View(services, same, main)

    async def _enter(self, config: AwsConfig, special: dict[str, AwsConfig]) -> Services:
        services = Services(config, slots=self._slots, special=special, session=self._session)
        return await self._stack.enter_async_context(services)


def seen_as(config: _Config, view: View) -> _Config:
    """The configuration with the credentials and the place of its view."""
    return config.model_copy(update={name: getattr(view.config, name) for name in AwsConfig.model_fields})


def _plain(config: AwsConfig, **changes: Any) -> AwsConfig:
    return AwsConfig(**{name: getattr(config, name) for name in AwsConfig.model_fields} | changes)
