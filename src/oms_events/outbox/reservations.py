"""Where the events of a transaction go: their buckets, and sequence numbers reserved at commit."""

from __future__ import annotations

import asyncio
import copy
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from oms_events._aio import Clock, cancel_and_wait
from oms_events.errors import EpochClosedError, InvalidEventError, OutboxClosedError, StorageUnavailableError
from oms_events.events import EncodedEvent
from oms_events.outbox.config import WriterConfig
from oms_events.outbox.layouts import Layouts
from oms_events.outbox.records import Bucket, Epoch, NewRecord, Partition, sequence_key
from oms_events.outbox.schema import bucket_of
from oms_events.outbox.store import OutboxStore
from oms_events.resilience.backoff import RetryConfig

BACKOFF: Final = RetryConfig(initial=0.02, maximum=1.0)


class _Request(NamedTuple):
    numbers: int
    answer: asyncio.Future[int]


@dataclass(frozen=True, slots=True)
class Placement:
    """The records of one transaction, and the numbers reserved for them.

    `since` is when the reservation began, on the writer's own monotonic clock.
    """

    records: Sequence[NewRecord]
    reserved: Mapping[Bucket, range]
    since: float


def key_of(event: EncodedEvent, configured: Callable[[Any], str | None] | None) -> str | None:
    """The order key of an event: its `partitionkey`, else what the configured function says, else none.

    Raises `InvalidEventError` when the function fails, or gives what is no key.
    """
    key: Any = event.attributes.get("partitionkey")
    if key is None and configured is not None:
        try:
            key = configured(event.event)
        except Exception as error:
            text = f"key_of failed on event {event.identity}: {error!r}"
            raise InvalidEventError(text, field="partitionkey") from error
        if key is not None and not isinstance(key, str):
            text = f"key_of gave {key!r} for event {event.identity}: give text, or None for an event without a key"
            raise InvalidEventError(text, field="partitionkey")
        if key and not _is_unicode(key):
            text = f"key_of gave {key!r} for event {event.identity}: it has a lone surrogate, which UTF-8 lacks"
            raise InvalidEventError(text, field="partitionkey")
    return str(key) if key is not None and key != "" else None


class Reservations:
    """Places events. Transactions that wait at the same moment for the same bucket share one reservation call.

    Nothing is reserved ahead: a call that is on the wire serves those that were there before it, and who comes
    while it is under way goes into the next one: no number is older than what its transaction has read.
    """

    def __init__(self, store: OutboxStore, config: WriterConfig, *, clock: Clock, rng: random.Random) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._layouts = Layouts(store, config, clock=clock)
        self._waiting: dict[Bucket, list[_Request]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Ends the calls under way; who waits for one gets an `OutboxClosedError`."""
        await cancel_and_wait(*self._tasks)
        # A task that was cancelled before its first step has told nobody.
        for waiting in self._waiting.values():
            _refuse(waiting)
        self._waiting.clear()

    async def place(
        self, events: Sequence[EncodedEvent], *, keys: Sequence[str | None], deadline: float
    ) -> Placement:
        """Gives each event its place in the open epoch, under its key.

        Waits while no epoch is open, until `deadline` of the clock, then raises `StorageUnavailableError`; raises
        `ConfigurationError`, and what the store raises.
        """
        attempt = 0
        while True:
            epoch = await self._layouts.open_epoch()
            if epoch is not None:
                try:
                    return await self._place_in(epoch, events, keys)
                except EpochClosedError:
                    self._layouts.forget(epoch)
            attempt += 1
            if self._clock.monotonic() >= deadline:
                raise StorageUnavailableError(
                    f"no layout epoch of the table {self._store.table!r} is open: its bucket count was being "
                    "changed for all of commit_timeout; try again, or finish the change"
                )
            await self._clock.sleep(BACKOFF.delay(attempt, self._rng.random))

    async def _place_in(
        self, epoch: Epoch, events: Sequence[EncodedEvent], keys: Sequence[str | None]
    ) -> Placement:
        since = self._clock.monotonic()
        added = int(self._clock.now().timestamp() * 1000)
        buckets = [None if key is None else Bucket(epoch.number, bucket_of(key, epoch.buckets)) for key in keys]
        reserved = await self._reserve(Counter(bucket for bucket in buckets if bucket is not None))
        numbers = {bucket: iter(span) for bucket, span in reserved.items()}
        records = []
        for event, key, bucket in zip(events, keys, buckets, strict=True):
            if bucket is None:
                partition = Partition(Bucket(epoch.number, self._rng.randrange(epoch.buckets)), keyed=False)
                sk = f"{added:013d}-{self._rng.getrandbits(64):016x}"
            else:
                partition = Partition(bucket, keyed=True)
                sk = sequence_key(next(numbers[bucket]))
            records.append(NewRecord(partition, sk, key, event, added))
        return Placement(records, reserved, since)

    async def _reserve(self, wanted: Mapping[Bucket, int]) -> dict[Bucket, range]:
        answers = [self._ask(bucket, count) for bucket, count in wanted.items()]
        if len(answers) == 1:
            firsts: Sequence[int | BaseException] = [await answers[0]]
        else:
            firsts = await asyncio.gather(*answers, return_exceptions=True)
        reserved = {}
        for (bucket, count), first in zip(wanted.items(), firsts, strict=True):
            if isinstance(first, BaseException):
                raise first
            reserved[bucket] = range(first, first + count)
        return reserved

    def _ask(self, bucket: Bucket, count: int) -> asyncio.Future[int]:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(bucket)
        if waiting is None:
            waiting = self._waiting[bucket] = []
            # Its first step comes after what is ready now: transactions of this moment share its call.
            task = asyncio.create_task(self._serve(bucket, waiting), name=f"oms-events-reserve-{bucket.number}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        waiting.append(_Request(count, answer))
        return answer

    async def _serve(self, bucket: Bucket, waiting: list[_Request]) -> None:
        """Reserves for who waits, as long as somebody does: one call at a time."""
        requests: list[_Request] = []
        try:
            while waiting:
                requests = [request for request in waiting if not request.answer.done()]
                waiting.clear()
                if requests:
                    await self._call(bucket, requests)
        finally:
            del self._waiting[bucket]
            _refuse((*requests, *waiting))

    async def _call(self, bucket: Bucket, requests: Sequence[_Request]) -> None:
        try:
            number = await self._store.reserve(bucket, sum(request.numbers for request in requests))
        except Exception as error:
            for request in requests:
                if not request.answer.done():
                    request.answer.set_exception(_copy_of(error))
            return
        for request in requests:
            if not request.answer.done():
                request.answer.set_result(number)
            number += request.numbers


def _copy_of(error: Exception) -> Exception:
    """Those who share a call must not share its error: each adds notes and frames of its own."""
    try:
        copied = copy.copy(error)
    except TypeError:
        # A class whose arguments are not its `args`; no error of ours.
        return error
    copied.__cause__, copied.__traceback__ = error.__cause__, error.__traceback__
    return copied


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse(requests: Sequence[_Request]) -> None:
    for request in requests:
        if not request.answer.done():
            request.answer.set_exception(OutboxClosedError("the outbox was closed: nothing was written"))
