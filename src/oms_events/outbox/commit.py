"""The commit: one TransactWriteItems, rebuilt after a certain refusal, repeated as it was after silence."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

from oms_events._aio import Clock
from oms_events._aws.dynamodb import CONDITION_FAILED, CONFLICT
from oms_events.errors import (
    CommitOutcomeUnknownError,
    ConditionFailedError,
    OutboxClosedError,
    OutboxLimitError,
    StorageError,
    StorageOutcomeUnknownError,
    StorageRejectedError,
    StorageUnavailableError,
    TransactionCanceledError,
    TransactionConflictError,
)
from oms_events.events import EncodedEvent, encode
from oms_events.outbox.claimcheck import ClaimCheck
from oms_events.outbox.config import WriterConfig
from oms_events.outbox.records import Bucket, NewRecord, Partition
from oms_events.outbox.reservations import BACKOFF, Placement, Reservations, key_of
from oms_events.outbox.schema import RECORD_LIMIT, item_size, record_item
from oms_events.outbox.signals import Committed, Voided
from oms_events.outbox.store import Action, TransactionStore


class Admitted(NamedTuple):
    """An event that a transaction can take: its order key, and the bytes of its record at most."""

    event: EncodedEvent
    key: str | None
    size: int


Entry = Action | Admitted
"""What a transaction writes, in the caller's order: a ready action, or an event whose action is made at commit."""

# Codes of CancellationReasons (API_TransactWriteItems), besides the two that the client knows.
_FINE: Final = "None"
_THROTTLED: Final = frozenset(("ThrottlingError", "ProvisionedThroughputExceeded", "RequestLimitExceeded"))

_NOTHING: Final = Placement((), {}, 0.0)
# The place that takes most bytes, and what a record takes there besides its event and key.
_PLACE: Final = Partition(Bucket(9999, 9999), keyed=False)
_SK: Final = f"{0:013d}-{0:016x}"
_ADDED: Final = 10**13 - 1
_NO_EVENT: Final = EncodedEvent(None, {"type": "", "source": "", "id": ""}, b"", b"", "binary")
_RECORD_BYTES: Final = item_size(record_item(NewRecord(_PLACE, _SK, "", _NO_EVENT, _ADDED)))


def _tell_nobody(signal: Committed | Voided) -> None:
    pass


class Committer:
    """Commits transactions to a store, and tells `notify` what became of them.

    Without `reservations` it takes transactions without events only. `owner` is who is closed, in its errors.
    """

    def __init__(
        self,
        store: TransactionStore,
        config: WriterConfig,
        reservations: Reservations | None,
        *,
        claim_check: ClaimCheck | None = None,
        notify: Callable[[Committed | Voided], None] = _tell_nobody,
        owner: str = "the outbox",
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._owner = owner
        self._store = store
        self._config = config
        self._reservations = reservations
        self._claim_check = claim_check
        self._notify = notify
        self._clock = clock
        self._rng = rng
        self._is_closed = False
        self._limits: set[asyncio.Timeout] = set()

    def close(self) -> None:
        """From now on nothing is sent, and what is under way ends at once."""
        self._is_closed = True
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(now)

    def admit(self, event: object) -> Admitted:
        """Checks an event, whose record a commit can take then.

        Raises `InvalidEventError`, also for an event that `key_of` fails on, and `OutboxLimitError`.
        """
        encoded = stored = encode(event)
        # Of the event as it was given: one that was checked in has no data to find a key in.
        key = key_of(encoded, self._config.key_of)
        if self._claim_check is not None and self._claim_check.takes(encoded):
            stored = self._claim_check.stored_form(encoded)
        data = -(-len(stored.payload) // 3) * 4 if stored.kind == "binary" else len(stored.payload)
        size = _RECORD_BYTES + len(stored.head) + data + (len(key.encode()) if key else 0)
        if size > RECORD_LIMIT:
            # So near the limit the store knows the exact size.
            self._store.put_action(NewRecord(_PLACE, _SK, key, stored, _ADDED))
        return Admitted(encoded, key, size)

    async def claimed(self, entry: Admitted) -> Admitted:
        """The event as it is stored: the data of a large one is put where the claim check says. Retried."""
        claim_check = self._claim_check
        if claim_check is None or not claim_check.takes(entry.event):
            return entry
        deadline = self._deadline()
        attempt = 1
        while True:
            try:
                async with self._before_sending():
                    return entry._replace(event=await claim_check.put(entry.event))
            except StorageUnavailableError as error:
                await self._pause_or_give_up(error, attempt, deadline)
            attempt += 1

    async def commit(self, entries: Sequence[Entry]) -> None:
        """Does everything or nothing.

        Raises `ConditionFailedError`, `TransactionConflictError`, `StorageUnavailableError`,
        `StorageDeniedError`, `StorageRejectedError`, `OutboxLimitError` and `OutboxClosedError`, with which
        nothing was written, and `CommitOutcomeUnknownError`. Cancelled, everything or nothing may have been done.
        """
        if self._claim_check is not None:
            entries = [await self.claimed(entry) if isinstance(entry, Admitted) else entry for entry in entries]
        events = [entry for entry in entries if isinstance(entry, Admitted)]
        deadline = self._deadline()
        attempt = 1
        while (refusal := await self._attempt(entries, events, deadline)) is not None:
            await self._pause_or_give_up(refusal, attempt, deadline)
            attempt += 1

    async def place(self, events: Sequence[Admitted]) -> Placement:
        """Places events for somebody else's transaction; tried again, and raises, as `commit` does."""
        deadline = self._deadline()
        attempt = 1
        while True:
            try:
                return await self._place(events, deadline)
            except (StorageUnavailableError, StorageOutcomeUnknownError) as error:
                await self._pause_or_give_up(error, attempt, deadline)
            attempt += 1

    def actions(self, entries: Sequence[Entry], placement: Placement) -> list[Action]:
        """The actions of a transaction whose events have their places. Raises `OutboxLimitError`."""
        records = iter(placement.records)
        put = self._store.put_action
        return [put(next(records)) if isinstance(entry, Admitted) else entry for entry in entries]

    def is_too_old(self, placement: Placement) -> bool:
        """Whether a reservation has waited so long that the relay need not look for its numbers any more."""
        return self._clock.monotonic() - placement.since > self._config.prepared_for

    def committed(self, placement: Placement) -> None:
        """Tells that a placement's records are in the outbox."""
        if placement.records:
            self._notify(Committed(placement.records))

    def voided(self, placement: Placement) -> None:
        """Tells that a placement's numbers will never be used."""
        for bucket, numbers in placement.reserved.items():
            self._notify(Voided(bucket, numbers))

    def _deadline(self) -> float:
        return self._clock.monotonic() + self._config.commit_timeout

    async def _place(self, events: Sequence[Admitted], deadline: float) -> Placement:
        keys = [entry.key for entry in events]
        if self._reservations is None:
            raise OutboxClosedError("there is no outbox here that could take events")
        async with self._before_sending():
            return await self._reservations.place([entry.event for entry in events], keys=keys, deadline=deadline)

    async def _attempt(
        self, entries: Sequence[Entry], events: Sequence[Admitted], deadline: float
    ) -> StorageError | None:
        """Reserves and sends: None when committed, else a certain refusal of a kind that may pass."""
        placement = _NOTHING
        if events:
            try:
                placement = await self._place(events, deadline)
            except (StorageUnavailableError, StorageOutcomeUnknownError) as error:
                # Numbers that were reserved without an answer are a gap, and harm nothing.
                return error
        try:
            actions = self.actions(entries, placement)
            refusal = await self._send(actions, entries, placement)
        except CommitOutcomeUnknownError:
            raise
        except (StorageError, OutboxLimitError):
            self.voided(placement)
            raise
        if refusal is None:
            self.committed(placement)
        else:
            self.voided(placement)
        return refusal

    async def _send(
        self, actions: Sequence[Action], entries: Sequence[Entry], placement: Placement
    ) -> StorageError | None:
        """Sends one request until its fate is certain, or raises `CommitOutcomeUnknownError`.

        After silence only two answers are believed: success, and a condition that failed. A conflict may be one
        with the unanswered request itself, and all other refusals say nothing about that one.
        """
        if self._is_closed:
            raise self._closed()
        if placement.records and self.is_too_old(placement):
            return StorageUnavailableError("the reservation took longer than prepared_for")
        token = f"{self._rng.getrandbits(128):032x}"
        deadline = self._deadline()
        silence: Exception | None = None
        attempt = 1
        while True:
            try:
                async with self._limit(deadline - self._clock.monotonic()):
                    await self._store.commit(actions, token)
                return None
            except TransactionCanceledError as error:
                if CONDITION_FAILED in error.reasons:
                    raise self._condition_failed(error, entries) from error
                failure: Exception = error
            except (StorageOutcomeUnknownError, TimeoutError) as error:
                failure = silence = error
            except StorageError as error:
                failure = error
            if silence is None:
                return _may_pass(failure, actions)
            await self._pause(attempt, failure, deadline)
            attempt += 1
            if self._is_closed:
                raise _unknown(f"{self._owner} was closed before a commit had a certain answer") from silence
            if self._clock.monotonic() >= deadline:
                raise _unknown(
                    f"no certain answer to a commit in commit_timeout = {self._config.commit_timeout:g} s; last: "
                    f"{_text(failure)}"
                ) from silence

    async def _pause_or_give_up(self, refusal: StorageError, attempt: int, deadline: float) -> None:
        if attempt >= self._config.conflict_attempts or self._clock.monotonic() >= deadline:
            raise _given_up(refusal, attempt) from refusal
        await self._pause(attempt, refusal, deadline)

    async def _pause(self, attempt: int, failure: Exception, deadline: float) -> None:
        asked = failure.retry_after if isinstance(failure, StorageError) else None
        pause = max(BACKOFF.delay(attempt, self._rng.random), asked or 0.0)
        if self._is_closed:
            return
        with suppress(TimeoutError):
            async with self._limit():
                await self._clock.sleep(min(pause, max(0.0, deadline - self._clock.monotonic())))

    @asynccontextmanager
    async def _before_sending(self) -> AsyncIterator[None]:
        """What comes before a request that writes: when the outbox is closed, nothing was written."""
        if self._is_closed:
            raise self._closed()
        try:
            async with self._limit():
                yield
        except TimeoutError:
            if self._is_closed:
                raise self._closed() from None
            raise

    @asynccontextmanager
    async def _limit(self, seconds: float | None = None) -> AsyncIterator[None]:
        """Raises `TimeoutError` after so many seconds, and as soon as the outbox is closed."""
        async with asyncio.timeout(seconds) as limit:
            self._limits.add(limit)
            try:
                yield
            finally:
                self._limits.discard(limit)

    def _closed(self) -> OutboxClosedError:
        return OutboxClosedError(f"{self._owner} was closed: nothing was written")

    def _condition_failed(self, error: TransactionCanceledError, entries: Sequence[Entry]) -> ConditionFailedError:
        failed = [index for index, reason in enumerate(error.reasons) if reason == CONDITION_FAILED]
        names = []
        for index in failed:
            entry = entries[index]
            if isinstance(entry, Admitted):
                # A counter went back: the table was restored, or its counters were removed.
                names.append(
                    f"action {index} (event {entry.event.identity}, table {self._store.table!r}: its sequence "
                    "number is taken; was the table restored without its counters?)"
                )
            else:
                names.append(f"action {index} ({_name(entry)})")
        text = f"a condition did not hold, nothing was written: {', '.join(names)}"
        return ConditionFailedError(text, reasons=error.reasons, code=error.code)


def _may_pass(failure: Exception, actions: Sequence[Action]) -> StorageError:
    """Gives the refusals that a new attempt may overcome, and raises the others."""
    if isinstance(failure, StorageUnavailableError):
        return failure
    if not isinstance(failure, TransactionCanceledError):
        raise failure
    others = set(failure.reasons) - {_FINE, CONFLICT} - _THROTTLED
    if not others and failure.reasons:
        return failure
    names = [
        f"action {index} ({_name(actions[index])}): {reason}"
        for index, reason in enumerate(failure.reasons)
        if reason in others
    ]
    raise StorageRejectedError(f"{failure}; {', '.join(names)}", code=failure.code) from failure


def _given_up(refusal: StorageError, attempts: int) -> StorageError:
    text = f"nothing was written, after {attempts} attempts: {refusal}"
    if isinstance(refusal, TransactionCanceledError) and CONFLICT in refusal.reasons:
        return TransactionConflictError(text, reasons=refusal.reasons, code=refusal.code)
    return StorageUnavailableError(text, code=refusal.code, retry_after=refusal.retry_after)


def _unknown(why: str) -> CommitOutcomeUnknownError:
    return CommitOutcomeUnknownError(
        f"{why}; it may or may not be done: read the business item before doing it again"
    )


def _name(action: Action) -> str:
    kind, body = next(iter(action.items()))
    return f"{kind}, table {body.get('TableName')!r}"


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
