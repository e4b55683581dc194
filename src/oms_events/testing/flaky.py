"""A publisher with faults on demand, around any other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from oms_events.errors import PublishError, TransientError, UnknownOutcomeError
from oms_events.events import EncodedEvent
from oms_events.publishing import Publisher, PublisherTraits, Receipt


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one call of a `FlakyPublisher`.

    `error` is the answer for all events, or for those at `only`; the others go through. With `stored` the
    events are stored all the same: the answer was lost. `hang` answers nothing until the timeout has passed:
    the events are `unknown`.
    """

    error: PublishError | None = None
    only: frozenset[int] | None = None
    stored: bool = False
    hang: bool = False

    def hits(self, index: int) -> bool:
        """Whether the event at `index` of the call meets the fault."""
        return self.error is not None and (self.only is None or index in self.only)


class FlakyPublisher:
    """Wraps a publisher; each call takes the next fault of the script, and goes through when there is none.

    `script` is for calls to come, `down` for all of them until `up`. `calls` counts events per call.
    """

    def __init__(self, inner: Publisher) -> None:
        self._inner = inner
        self._script: deque[Fault | None] = deque()
        self._down: PublishError | None = None
        self._released = asyncio.Event()
        self.hanging = asyncio.Event()
        self.calls: list[int] = []

    @property
    def traits(self) -> PublisherTraits:
        return self._inner.traits

    def script(self, *faults: Fault | PublishError | None) -> None:
        """Adds faults for the next calls, one each; None lets a call through, an error fails all its events."""
        self._script.extend(Fault(fault) if isinstance(fault, PublishError) else fault for fault in faults)

    def down(self, error: PublishError | None = None) -> None:
        """From now on every call and check fails with `error` (by default a refused connection)."""
        self._down = error or TransientError("connection refused")

    def up(self) -> None:
        """Ends what `down` began, and lets hanging calls go."""
        self._down = None
        self._released.set()
        self._released = asyncio.Event()

    async def open(self) -> None:
        if self._down is not None:
            raise self._down
        await self._inner.open()

    async def close(self) -> None:
        await self._inner.close()

    async def check(self) -> None:
        if self._down is not None:
            raise self._down
        await self._inner.check()

    async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Sequence[Receipt | PublishError]:
        self.calls.append(len(events))
        if timeout <= 0:
            return await self._inner.publish(events, timeout=timeout)
        fault = self._script.popleft() if self._script else None
        if self._down is not None:
            fault = Fault(self._down)
        if fault is None:
            return await self._inner.publish(events, timeout=timeout)
        if fault.hang:
            return await self._hang(events, timeout)
        return await self._fail(events, fault, timeout)

    def describe(self) -> dict[str, Any]:
        describe: Callable[[], dict[str, Any]] = getattr(self._inner, "describe", dict)
        return describe()

    async def _hang(self, events: Sequence[EncodedEvent], timeout: float) -> Sequence[PublishError]:
        self.hanging.set()
        try:
            async with asyncio.timeout(timeout):
                await self._released.wait()
        except TimeoutError:
            pass
        finally:
            self.hanging.clear()
        return [UnknownOutcomeError("no answer in time")] * len(events)

    async def _fail(
        self, events: Sequence[EncodedEvent], fault: Fault, timeout: float
    ) -> Sequence[Receipt | PublishError]:
        passing = [event for index, event in enumerate(events) if fault.stored or not fault.hits(index)]
        receipts = iter(await self._inner.publish(passing, timeout=timeout))
        answers: list[Receipt | PublishError] = []
        for index in range(len(events)):
            hit = fault.hits(index)
            answer = next(receipts) if fault.stored or not hit else None
            answers.append(
                fault.error if hit and fault.error is not None else answer or TransientError("no answer")
            )
        return answers
