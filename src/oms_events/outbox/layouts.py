"""The layout that a writer goes by: read, kept for a while, and made where the table has none."""

from __future__ import annotations

import asyncio
from typing import Final

from oms_events._aio import Clock
from oms_events.errors import ConfigurationError
from oms_events.outbox.config import DEFAULT_BUCKETS, WriterConfig
from oms_events.outbox.records import Epoch, Layout
from oms_events.outbox.store import OutboxStore

_FIRST_EPOCH: Final = 1


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
            epoch = (await self._read()).open_epoch
            if epoch is not None and not self._checked:
                self._check(epoch)
            self._epoch, self._read_at = epoch, read_at
            return epoch

    def forget(self, epoch: Epoch) -> None:
        """This epoch is closed: the next question reads the layout again."""
        if self._epoch == epoch:
            self._epoch = None

    def _fresh(self) -> Epoch | None:
        is_fresh = self._clock.monotonic() - self._read_at < self._config.layout_ttl
        return self._epoch if is_fresh else None

    async def _read(self) -> Layout:
        # Two rounds at most: who cannot write the first layout was second, and finds the other's.
        while (layout := await self._store.read_layout()) is None:
            first = Layout(1, (Epoch(_FIRST_EPOCH, self._config.buckets or DEFAULT_BUCKETS, is_open=True),))
            if await self._store.write_layout(first):
                return first
        return layout

    def _check(self, epoch: Epoch) -> None:
        # Only once: a writer that runs while the bucket count is changed follows the table.
        wanted = self._config.buckets
        if wanted is not None and wanted != epoch.buckets:
            problem = (
                f"buckets = {wanted}, but the table {self._store.table!r} has {epoch.buckets}; leave `buckets` "
                f"out or set it to {epoch.buckets}, or change the table's bucket count first"
            )
            raise ConfigurationError(type(self._config).__name__, [problem])
        self._checked = True
