"""An HTTP proxy on loopback in front of an AWS endpoint, that plays the faults which emulators never have."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from oms_events.devstack.faults import Call, Fault, FaultPlan
from oms_events.devstack.processes import DevstackError
from oms_events.errors import MissingExtraError

if TYPE_CHECKING:
    from oms_events.devstack.proxy_server import ProxyServer

_POLL = 0.005


class FaultProxy:
    """Forwards AWS calls to `upstream` faithfully, except those that are to meet a fault.

    An async context manager that serves on the loop where it is entered; all other methods may be called
    from any thread and any loop. A call meets the next fault of the script that fits, else the one set for
    always, else one drawn from the mix, else none. Clients retry by themselves: switch that off where calls
    are counted. `keep_bodies=False` saves the memory of the recorded request bodies.
    """

    def __init__(self, upstream: str, *, keep_bodies: bool = True) -> None:
        self._upstream = upstream.rstrip("/")
        self._keep_bodies = keep_bodies
        self._plan = FaultPlan()
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._server: ProxyServer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def endpoint_url(self) -> str:
        """What AWS clients take as `endpoint_url`."""
        if self._server is None:
            raise DevstackError("the fault proxy is not open: use it inside `async with`")
        return self._server.url

    def script(self, *faults: Fault, operation: str | None = None) -> None:
        """Appends faults for the coming calls, one each: of the named operation, or of any."""
        self._plan.script(faults, operation)

    def always(self, fault: Fault, *, operation: str | None = None) -> None:
        """Sets the fault of every call, of the named operation or of any, until `clear`."""
        self._plan.always(fault, operation)

    def seeded(self, seed: int, mix: Mapping[Fault, float], *, operation: str | None = None) -> None:
        """Plays faults at random until `clear`, each with its probability; the same seed, the same faults."""
        self._plan.seeded(seed, mix, operation)

    def clear(self) -> None:
        """From now on everything goes well; calls that hang go on hanging."""
        self._plan.clear()

    @property
    def pending_faults(self) -> int:
        """How many faults of the script no call has met yet."""
        return self._plan.pending

    @property
    def calls(self) -> tuple[Call, ...]:
        """All calls so far."""
        with self._lock:
            return tuple(self._calls)

    def calls_of(self, operation: str) -> tuple[Call, ...]:
        """All calls so far of one operation."""
        return tuple(call for call in self.calls if call.operation == operation)

    def forget_calls(self) -> None:
        """Empties the record of calls."""
        with self._lock:
            self._calls.clear()

    async def wait_for_calls(
        self, count: int, *, operation: str | None = None, timeout: float = 10.0
    ) -> tuple[Call, ...]:
        """Waits until at least so many calls (of the operation) are recorded and gives them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                # The calls may come in on another loop, to which no Event reaches.
                while len(calls := self._matching(operation)) < count:  # noqa: ASYNC110
                    await asyncio.sleep(_POLL)
                return calls
        raise DevstackError(
            f"{len(self._matching(operation))} of {count} calls ({operation or 'any'}) came in {timeout:g} s"
        )

    def release(self) -> None:
        """Drops the connections of all calls that hang now."""
        if self._server is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._server.release)

    async def __aenter__(self) -> Self:
        try:
            from oms_events.devstack.proxy_server import ProxyServer
        except ImportError as error:
            raise MissingExtraError("devstack", needed_for="FaultProxy") from error
        server = ProxyServer(self._upstream, self._plan, self._record)
        await server.start()
        self._loop = asyncio.get_running_loop()
        self._server = server
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop()

    def _matching(self, operation: str | None) -> tuple[Call, ...]:
        return self.calls if operation is None else self.calls_of(operation)

    def _record(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call if self._keep_bodies else replace(call, body=b""))
