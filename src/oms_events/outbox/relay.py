"""Relays one partition: reads its records in order, publishes what may go, settles what became of it."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from oms_events._aio import cancel_and_wait
from oms_events.errors import StorageDeniedError, StorageError
from oms_events.instrumentation.hooks import GapsProbed, LateRecords, OutboxAlert
from oms_events.outbox.gaps import REACH, Gaps
from oms_events.outbox.layering import EpochGate
from oms_events.outbox.loading import Loader
from oms_events.outbox.outcomes import Outcomes
from oms_events.outbox.records import (
    FORMAT,
    NewRecord,
    Partition,
    StoredRecord,
    sequence_key,
)
from oms_events.outbox.shared import Shared
from oms_events.outbox.window import Lane, Window
from oms_events.publishing import PublishResults
from oms_events.resilience.backoff import RetryConfig

_log = logging.getLogger("oms_events")
_READ_BACKOFF: Final = RetryConfig(initial=0.2, maximum=10.0)
_FRESH_MS: Final = 1000
"""An unkeyed record is taken over from its writer without reading it only when it is as young as this."""
_MAX_OFFERED: Final = 1_000_000
"""Bytes of offered records that wait for the end of a pass."""
_PERSISTS: Final = 3
"""Failed readings in a row after which it is said."""
_RESCAN_RATIO: Final = 10
"""A backlog is read again from its head at most for a tenth of the time."""


class PartitionRelay:
    """Relays the records of one partition from `start` until `stop`. It owns one reading task.

    `low` is the sequence number below which an earlier relay had seen everything. `lease_left` says how long
    this processor may publish for the bucket; `epochs`, for keyed records, what older layouts come first.
    """

    def __init__(
        self,
        partition: Partition,
        shared: Shared,
        *,
        low: int,
        lease_left: Callable[[], float],
        epochs: EpochGate | None,
    ) -> None:
        self.partition = partition
        self.window = Window(keyed=partition.keyed)
        self.gaps = Gaps(low=low, horizon=shared.config.gap_horizon)
        self.problem: str | None = None
        self.error: StorageError | None = None
        self._shared = shared
        self._lease_left = lease_left
        self._epochs = epochs
        self._outcomes = Outcomes(self, shared)
        self._outstanding = 0
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._quiet = asyncio.Event()
        self._at_tail = False
        self._rescan = True
        self._head_at = -shared.config.sweep_interval
        self._head_took = 0.0
        self._cursor: str | None = None
        self._serial = 0
        # Settled records that a read under way may still show: None until they are removed, then when that was.
        self.gone: OrderedDict[str, float | None] = OrderedDict()
        self._offers: list[NewRecord] = []
        self._offered_bytes = 0
        self._loader = Loader(self, shared, self._outcomes, epochs)

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        name = f"oms-events-outbox-{'keyed' if self.partition.keyed else 'unkeyed'}-{self.partition.bucket.number}"
        self._task = asyncio.create_task(self._run(), name=name)

    async def stop(self, *, timeout: float) -> int:
        """Reads and publishes no more, lets what is in flight finish for `timeout` seconds, and gives `low`."""
        self._stopping = True
        await cancel_and_wait(self._task)
        if self._outstanding:
            self._quiet.clear()
            waiting = asyncio.ensure_future(self._quiet.wait())
            await asyncio.wait((waiting,), timeout=timeout)
            await cancel_and_wait(waiting)
        return self.gaps.low

    @property
    def is_idle(self) -> bool:
        """At the end of the partition, and nothing is on its way; failed records may wait for their time."""
        return self._at_tail and not self._outstanding and not self._wake.is_set()

    @property
    def knows_all(self) -> bool:
        """Whether everything that the last reading found is in memory, or settled."""
        return self._at_tail and not self.window.left

    @property
    def in_flight(self) -> int:
        """Lanes that are being published, or wait for a call."""
        return self._outstanding

    # ------------------------------------------------------------------ what others tell

    def wake(self) -> None:
        """Something may be there to read."""
        self._wake.set()

    def rescan(self) -> None:
        """Records that were left may go now: read again from the first one."""
        self._rescan = True
        self._wake.set()

    def offer(self, record: NewRecord) -> None:
        """A record that was committed by this process just now; taken without reading it where that is safe."""
        size = len(record.event.payload)
        if self._task is None or self._offered_bytes + size > _MAX_OFFERED:
            self._wake.set()
            return
        self._offers.append(record)
        self._offered_bytes += size
        if self._at_tail:
            self._take_offers()

    def void(self, numbers: Sequence[int]) -> None:
        """These numbers will never be used."""
        self.gaps.void(numbers)

    def close_platform(self, platform: str) -> None:
        """The platform takes nothing now: its records stay in the table."""
        self._outcomes.were_left(self.window.close_platform(platform))

    # ------------------------------------------------------------------ lanes

    def seconds_left(self) -> float:
        return 0.0 if self._stopping else self._lease_left()

    def submit(self, lanes: Iterable[Lane]) -> None:
        submit = self._shared.dispatcher.submit
        for lane in lanes:
            self._outstanding += 1
            submit(self, lane)

    def answered(self, lane: Lane, results: PublishResults | None) -> None:
        self._outstanding -= 1
        self._outcomes.take(lane, results)

    def not_tried(self, lane: Lane) -> None:
        self._outstanding -= 1
        if lane.open:
            # The lease has ended, or is about to: when it is ours again, what is left is read anew.
            self._outcomes.were_left(self.window.leave(lane))
            self._rescan = True
        self.moved()

    def retry(self, lane: Lane) -> None:
        """It is time for another attempt."""
        if lane.open and not lane.in_flight and not self._stopping:
            self.submit((lane,))

    def not_before(self, sk: str, until: float) -> None:
        """There was no room for a failed record to wait in memory: it waits in the table."""
        self._loader.not_before(sk, until)
        self._shared.alarm.at(until, self.rescan)

    def settled(self, sk: str) -> None:
        """A record is settled: a reading that still shows it is out of date."""
        self.gone[sk] = None

    def removed(self, sks: Iterable[str]) -> None:
        """Settled records are removed from the table."""
        now = self._shared.clock.monotonic()
        for sk in sks:
            self.gone[sk] = now
            self.gone.move_to_end(sk)
        self.moved()

    def moved(self) -> None:
        self._outcomes.report()
        if not self._outstanding:
            self._quiet.set()
        self._room.set()
        self._shared.gave_room()
        self._shared.progress()

    # ------------------------------------------------------------------ reading

    async def _run(self) -> None:
        config, clock = self._shared.config, self._shared.clock
        pause, failures = config.poll_floor, 0
        while True:
            self._wake.clear()
            self._at_tail = False
            try:
                if self._epochs is not None:
                    await self._epochs.wait(self.partition.bucket.epoch)
                # Without a lease nothing could be published: whoever has it reads.
                if may_publish := self.seconds_left() > 0:
                    found = await self._pass()
                    failures, self.problem, self.error = 0, None, None
                    # Not after half a pass: what it did not come to is older than any offer.
                    self._take_offers()
                    pause = config.poll_floor if found else min(config.poll_ceiling, pause * 2)
                else:
                    self.problem = self.problem or "the lease has ended: the table cannot be reached"
                    self._rescan, pause = True, min(config.heartbeat, config.poll_ceiling)
                self._at_tail = may_publish
            except StorageError as error:
                failures += 1
                self._cannot_read(error, failures)
                self._rescan = True
                pause = max(_READ_BACKOFF.delay(failures, self._shared.draw), error.retry_after or 0.0)
            except Exception as error:
                _log.exception("relaying partition %s failed", self.partition)
                failures += 1
                self.problem = repr(error)
                self._rescan, pause = True, config.poll_ceiling
            self._serial += 1
            until = clock.monotonic() + pause * (0.9 + 0.2 * self._shared.draw())
            self._shared.alarm.at(until, partial(self._poll, self._serial))
            self._shared.progress()
            if failures:
                # What wakes us does not mend the table.
                self._wake.clear()
            await self._wake.wait()

    def _poll(self, serial: int) -> None:
        if serial == self._serial:
            self._wake.set()

    def _cannot_read(self, error: StorageError, failures: int) -> None:
        self.problem = str(error)
        if failures >= _PERSISTS or isinstance(error, StorageDeniedError):
            self.error = error
        if failures == _PERSISTS:
            self._shared.hooks(OutboxAlert("storage", f"cannot read table {self._shared.store.table}: {error}"))

    async def _pass(self) -> int:
        """Reads from the head or where the last pass ended, to the end; gives how many records were new."""
        shared, started = self._shared, self._shared.clock.monotonic()
        from_head = self._reads_from_head(started)
        if from_head:
            if self._epochs is not None:
                await self._epochs.refresh(self.partition.bucket.epoch)
            self.window.begin_pass(shared.gates.shut_platforms)
            self._rescan, self._cursor, self._head_at = False, None, started
        found = 0
        while True:
            await self._wait_for_room()
            self._forget_gone()
            page = await shared.store.read(self.partition, after=self._cursor, limit=shared.config.page_size)
            records = page.records
            if self.partition.keyed and records:
                records = await self._with_missing(records)
            for record in records:
                found += self._loader.load(record)
            if page.records:
                self._cursor = page.records[-1].sk
            if page.next is None:
                break
            self._cursor = page.next
        if from_head:
            self._head_took = shared.clock.monotonic() - started
        return found

    def _reads_from_head(self, now: float) -> bool:
        config = self._shared.config
        if self.window.left <= config.page_size or now - self._head_at >= config.sweep_interval:
            return True
        if not self._rescan:
            return False
        allowed = self._head_at + min(config.sweep_interval, _RESCAN_RATIO * self._head_took)
        if now < allowed:
            self._shared.alarm.at(allowed, self._wake.set)
            return False
        return True

    async def _wait_for_room(self) -> None:
        shared = self._shared
        while (
            len(self.window.entries) >= shared.config.window
            or shared.bytes_in_memory() >= shared.config.window_bytes
            # After a crash these would be sent again.
            or self._outcomes.unwritten >= shared.config.window
        ):
            self._room.clear()
            shared.needs_room(self._room)
            await self._room.wait()

    def _forget_gone(self) -> None:
        """What was written before this reading began cannot be missing in it; young offers may still come."""
        self._outcomes.forget_written()
        if self._offers:
            self._offers = [record for record in self._offers if record.sk not in self.gone]
        offered = {record.sk for record in self._offers}
        oldest = self._shared.clock.monotonic() - (0.0 if self.partition.keyed else 2 * _FRESH_MS / 1000)
        forgotten = []
        for sk, when in self.gone.items():
            if when is None or when > oldest:
                break
            if sk not in offered:
                forgotten.append(sk)
        for sk in forgotten:
            del self.gone[sk]

    async def _with_missing(self, records: Sequence[StoredRecord]) -> Sequence[StoredRecord]:
        """The page's records, and among them those that were missing in it and are there after all."""
        shared, late = self._shared, self.gaps.late
        numbers = self.gaps.see([int(record.sk) for record in records], shared.clock.monotonic())
        if self.gaps.late > late:
            shared.hooks(LateRecords(self.gaps.late - late))
        if not numbers:
            return records
        found: list[StoredRecord] = []
        for start in range(0, len(numbers), REACH):
            sks = [sequence_key(number) for number in numbers[start : start + REACH]]
            found += await shared.store.probe(self.partition, sks)
        self.gaps.looked(int(record.sk) for record in found)
        shared.hooks(GapsProbed(len(numbers), len(found)))
        # What was due from a page before may be beyond this one, and comes in its own place.
        known, last = {record.sk for record in records}, records[-1].sk
        more = [record for record in found if record.sk <= last and record.sk not in known]
        return sorted((*records, *more), key=lambda record: record.sk) if more else records

    def _take_offers(self) -> None:
        now, wall = self._shared.clock.monotonic(), self._shared.wall_ms()
        offers, self._offers, self._offered_bytes = self._offers, [], 0
        for record in sorted(offers, key=lambda record: record.sk) if len(offers) > 1 else offers:
            if record.sk in self.gone or record.sk in self.window.entries:
                continue
            if self.partition.keyed:
                number = int(record.sk)
                if self.gaps.top is not None and number <= self.gaps.top:
                    if self.gaps.is_missing(number):
                        # Committed late: a later number of another writer was read before.
                        self._wake.set()
                    continue
                is_safe = self.gaps.follows(number, now)
            else:
                is_safe = 0 <= wall - record.added < _FRESH_MS
            if not is_safe or len(self.window.entries) >= self._shared.config.window:
                self._wake.set()
                continue
            if self.partition.keyed:
                self.gaps.see((number,), now)
                self._cursor = record.sk
            self._loader.load(
                StoredRecord(
                    record.partition, record.sk, record.key, record.event, record.added, record.state,
                    FORMAT, len(record.event.payload) + len(record.event.head) + 200, record.history,
                )
            )  # fmt: skip
