"""The layout that a writer goes by: read, kept for a while, and made where the table has none."""

from __future__ import annotations

import asyncio

from oms_events._aio import Clock
from oms_events.outbox.config import WriterConfig
from oms_events.outbox.epochs import ensure_layout
from oms_events.outbox.records import Epoch
from oms_events.outbox.store import OutboxStore


class Layouts:
    """Knows the epoch that is open to writers, `layout_ttl` seconds at most after it changed."""

    def __init__(self, store: OutboxStore, config: WriterConfig, *, clock: Clock) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._reading = asyncio.Lock()
        self._epoch: Epoch | None = None
        self._read_at = 0.0
        self._checked = False

    async def open_epoch(self) -> Epoch | None:
        """The epoch that takes records now; None while the bucket count is being changed.

        Raises `ConfigurationError` when the first epoch seen has another number of buckets than configured, and
        what the store raises.
        """
        if (epoch := self._fresh()) is not None:
            return epoch
        async with self._reading:
            if (epoch := self._fresh()) is not None:
                return epoch
            # Before the call: what was read may be as old as that.
            read_at = self._clock.monotonic()
            # The number of buckets is compared once: a writer that runs while it is changed follows the table.
            layout = await ensure_layout(self._store, None if self._checked else self._config.buckets)
            self._epoch, self._read_at = layout.open_epoch, read_at
            self._checked = self._checked or self._epoch is not None
            return self._epoch

    def forget(self, epoch: Epoch) -> None:
        """This epoch is closed: the next question reads the layout again."""
        if self._epoch == epoch:
            self._epoch = None

    def _fresh(self) -> Epoch | None:
        is_fresh = self._clock.monotonic() - self._read_at < self._config.layout_ttl
        return self._epoch if is_fresh else None
