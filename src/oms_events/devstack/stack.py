"""NATS, the AWS emulator and, if wanted, the fault proxy, as one thing to start and stop."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from oms_events.devstack.aws import AwsEmulator
from oms_events.devstack.nats import NatsServer
from oms_events.devstack.processes import DevstackError
from oms_events.devstack.proxy import FaultProxy


class DevStack:
    """The whole stack as an async context manager: started together, and stopped whatever happens.

    Cancelling (Ctrl-C under `asyncio.run`) stops all of it in good order; when the program is killed, the
    processes end too. `bus_name` is only told in `environment`: making the bus is the user's.
    """

    def __init__(
        self,
        *,
        nats: NatsServer | None = None,
        aws: AwsEmulator | None = None,
        with_proxy: bool = False,
        bus_name: str = "oms-events",
    ) -> None:
        self.nats = nats or NatsServer()
        self.aws = aws or AwsEmulator()
        self.bus_name = bus_name
        self._with_proxy = with_proxy
        self._proxy: FaultProxy | None = None

    @property
    def proxy(self) -> FaultProxy:
        """The fault proxy in front of the emulator."""
        if self._proxy is None:
            raise DevstackError("there is no fault proxy: open the stack, made with `with_proxy=True`")
        return self._proxy

    @property
    def endpoint_url(self) -> str:
        """Where AWS clients shall go: to the proxy when there is one, else to the emulator."""
        return self._proxy.endpoint_url if self._proxy is not None else self.aws.endpoint_url

    def environment(self) -> dict[str, str]:
        """The settings to export for a program that shall use the stack."""
        return {
            **self.nats.environment(),
            **self.aws.environment(),
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "OMS_EVENTBRIDGE_BUS_NAME": self.bus_name,
        }

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.TaskGroup() as starting:
                starting.create_task(self.nats.start(), name="devstack-start-nats")
                starting.create_task(self.aws.start(), name="devstack-start-aws")
            if self._with_proxy:
                self._proxy = await FaultProxy(self.aws.endpoint_url).__aenter__()
        except BaseExceptionGroup as group:
            await self._close()
            raise group.exceptions[0] from None
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        proxy, self._proxy = self._proxy, None
        try:
            if proxy is not None:
                await proxy.__aexit__(None, None, None)
        finally:
            try:
                await self.aws.close()
            finally:
                await self.nats.close()
