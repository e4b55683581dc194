"""How fast an upstream API is asked: a quota of requests, all instances together, and symbols in batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final, Literal

from oms_events._aio import Clock, LoopBound, SystemClock
from oms_events.errors import ConfigurationError
from oms_events.instrumentation.hooks import ApiRequested, Hook, Hooks
from oms_events.triggers.config import Quota
from oms_events.triggers.guards.rate import RateLimiter, check_taken

OUTBOUND_QUOTA: Final = Quota(limit=100, window=60)
OUTBOUND_BATCH: Final = 5


class OutboundLimiter:
    """Lets requests to an API through as its quota has room: 100 a minute, unless told otherwise.

    `name` is the API's: all that have it, over the same table, share the quota. `batches` gives `batch_size`
    symbols at a time, and counts a request for each symbol: a batch of 5 is 5 requests, so 100 a minute are 20
    batches. With `request_per="batch"` it counts one for each batch, for an API that is asked for several symbols
    at once: then 100 a minute are 500 symbols. `hooks` are told `ApiRequested`; those of the limiter are not told
    of waiting, which is ordinary here. The limiter is not opened or closed here. Raises `ConfigurationError` for
    batches that the quota never has room for.
    """

    def __init__(
        self,
        limiter: RateLimiter,
        name: str,
        *,
        quota: Quota = OUTBOUND_QUOTA,
        batch_size: int = OUTBOUND_BATCH,
        request_per: Literal["symbol", "batch"] = "symbol",
        hooks: Iterable[Hook] = (),
        clock: Clock | None = None,
    ) -> None:
        check_taken(name, quota, 1)
        if batch_size < 1:
            raise ConfigurationError("OutboundLimiter", [f"batch_size = {batch_size!r}: give 1 or more"])
        if request_per == "symbol" and batch_size > quota.limit:
            raise ConfigurationError(
                "OutboundLimiter",
                [
                    f"batch_size = {batch_size!r}: the quota lets {quota.limit} requests through at once; make "
                    "batches smaller, or give request_per='batch' when one request asks for all of a batch"
                ],
            )
        self._limiter = limiter
        self._name = name
        self._quota = quota
        self._batch_size = batch_size
        self._request_per = request_per
        self._hooks = Hooks(hooks)
        self._clock = clock or SystemClock()
        self._turn = LoopBound(asyncio.Lock)

    async def acquire(self, count: int = 1) -> float:
        """Waits until `count` requests may be made, first come first served in this process; the seconds waited.

        Requests that are not made after all count too. Raises `ValueError` for more than the quota's limit, and a
        `StorageError`. Cancelled, they may be counted.
        """
        check_taken(self._name, self._quota, count)
        began = self._clock.monotonic()
        async with self._turn():
            # One asks for all that wait here: a refusal is a write too.
            while wait := await self._limiter.take(self._name, self._quota, count=count, waited=True):
                await self._clock.sleep(wait)
        waited = self._clock.monotonic() - began
        self._hooks(ApiRequested(self._name, count, waited))
        return waited

    async def batches(self, symbols: Sequence[str]) -> AsyncIterator[tuple[str, ...]]:
        """The symbols in batches, each once it may be asked for. Raises as `acquire` does."""
        for start in range(0, len(symbols), self._batch_size):
            batch = tuple(symbols[start : start + self._batch_size])
            await self.acquire(len(batch) if self._request_per == "symbol" else 1)
            yield batch
