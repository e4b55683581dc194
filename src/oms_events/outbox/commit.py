"""The commit: one TransactWriteItems, rebuilt after a certain refusal, repeated as it was after silence."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

from oms_events._aio import Clock
from oms_events._aws.dynamodb import CONDITION_FAILED, CONFLICT
from oms_events.errors import (
    CommitOutcomeUnknownError,
    ConditionFailedError,
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
from oms_events.outbox.records import Bucket, NewRecord, Partition, sequence_key
from oms_events.outbox.reservations import BACKOFF, Placement, Reservations, key_of
from oms_events.outbox.schema import ITEM_LIMIT
from oms_events.outbox.signals import Committed, Voided
from oms_events.outbox.store import Action, OutboxStore

Entry = Action | EncodedEvent
"""What a transaction writes, in the caller's order: a ready action, or an event whose action is made at commit."""

# Codes of CancellationReasons (API_TransactWriteItems), besides the two that the client knows.
_FINE: Final = "None"
_THROTTLED: Final = frozenset(("ThrottlingError", "ProvisionedThroughputExceeded", "RequestLimitExceeded"))

_NOTHING: Final = Placement((), {}, 0.0)
_RECORD_OVERHEAD: Final = 200


class Committer:
    """Commits transactions to a store, and tells `notify` what became of them."""

    def __init__(
        self,
        store: OutboxStore,
        config: WriterConfig,
        reservations: Reservations,
        *,
        claim_check: ClaimCheck | None,
        notify: Callable[[Committed | Voided], None],
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._store = store
        self._config = config
        self._reservations = reservations
        self._claim_check = claim_check
        self._notify = notify
        self._clock = clock
        self._rng = rng

    def admit(self, event: object) -> tuple[EncodedEvent, int]:
        """An event and the bytes of its record, about. Raises `InvalidEventError` and `OutboxLimitError`."""
        encoded = stored = encode(event)
        if self._claim_check is not None and self._claim_check.takes(encoded):
            stored = EncodedEvent(None, encoded.attributes, encoded.head, b"", "json")
        data = len(stored.payload) * 4 // 3 if stored.kind == "binary" else len(stored.payload)
        size = _RECORD_OVERHEAD + len(stored.head) + data
        if size > ITEM_LIMIT // 2:
            self._check_size(stored)
        return encoded, size

    async def claimed(self, event: EncodedEvent) -> EncodedEvent:
        """The event as it is stored: the data of a large one is put where the claim check says. Retried."""
        claim_check = self._claim_check
        if claim_check is None or not claim_check.takes(event):
            return event
        deadline = self._deadline()
        attempt = 1
        while True:
            try:
                return await claim_check.put(event)
            except StorageUnavailableError as error:
                await self._pause_or_give_up(error, attempt, deadline)
            attempt += 1

    async def commit(self, entries: Sequence[Entry]) -> None:
        """Does everything or nothing.

        Raises `ConditionFailedError`, `TransactionConflictError`, `StorageUnavailableError`,
        `StorageDeniedError`, `StorageRejectedError` and `OutboxLimitError`, with which nothing was written, and
        `CommitOutcomeUnknownError`. Cancelled, everything or nothing may have been done.
        """
        if self._claim_check is not None:
            entries = [
                await self.claimed(entry) if isinstance(entry, EncodedEvent) else entry for entry in entries
            ]
        events = [entry for entry in entries if isinstance(entry, EncodedEvent)]
        deadline = self._deadline()
        attempt = 1
        while (refusal := await self._attempt(entries, events, deadline)) is not None:
            await self._pause_or_give_up(refusal, attempt, deadline)
            attempt += 1

    async def place(
        self, events: Sequence[EncodedEvent], *, keys: Sequence[str | None] | None = None
    ) -> Placement:
        """Places events for somebody else's transaction; tried again, and raises, as `commit` does."""
        deadline = self._deadline()
        attempt = 1
        while True:
            try:
                return await self._reservations.place(events, deadline=deadline, keys=keys)
            except (StorageUnavailableError, StorageOutcomeUnknownError) as error:
                await self._pause_or_give_up(error, attempt, deadline)
            attempt += 1

    def actions(self, entries: Sequence[Entry], placement: Placement) -> list[Action]:
        """The actions of a transaction whose events have their places. Raises `OutboxLimitError`."""
        records = iter(placement.records)
        put = self._store.put_action
        return [put(next(records)) if isinstance(entry, EncodedEvent) else entry for entry in entries]

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

    def _check_size(self, event: EncodedEvent) -> None:
        """Near the limit the store knows the exact size: any place will do for it."""
        key = key_of(event, self._config.key_of)
        record = NewRecord(Partition(Bucket(0, 0), keyed=True), sequence_key(0), key, event, 0)
        self._store.put_action(record)

    async def _attempt(
        self, entries: Sequence[Entry], events: Sequence[EncodedEvent], deadline: float
    ) -> StorageError | None:
        """Reserves and sends: None when committed, else a certain refusal of a kind that may pass."""
        placement = _NOTHING
        if events:
            try:
                placement = await self._reservations.place(events, deadline=deadline)
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
        if placement.records and self.is_too_old(placement):
            return StorageUnavailableError("the reservation took longer than prepared_for")
        token = f"{self._rng.getrandbits(128):032x}"
        deadline = self._deadline()
        silence: Exception | None = None
        attempt = 1
        while True:
            try:
                async with asyncio.timeout(deadline - self._clock.monotonic()):
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
            if self._clock.monotonic() >= deadline:
                raise CommitOutcomeUnknownError(
                    f"no certain answer to a commit in commit_timeout = {self._config.commit_timeout:g} s; last: "
                    f"{_text(failure)}; it may or may not be done: read the business item before doing it again"
                ) from silence

    async def _pause_or_give_up(self, refusal: StorageError, attempt: int, deadline: float) -> None:
        if attempt >= self._config.conflict_attempts or self._clock.monotonic() >= deadline:
            raise _given_up(refusal, attempt) from refusal
        await self._pause(attempt, refusal, deadline)

    async def _pause(self, attempt: int, failure: Exception, deadline: float) -> None:
        asked = failure.retry_after if isinstance(failure, StorageError) else None
        pause = max(BACKOFF.delay(attempt, self._rng.random), asked or 0.0)
        await self._clock.sleep(min(pause, max(0.0, deadline - self._clock.monotonic())))

    def _condition_failed(self, error: TransactionCanceledError, entries: Sequence[Entry]) -> ConditionFailedError:
        failed = [index for index, reason in enumerate(error.reasons) if reason == CONDITION_FAILED]
        names = []
        for index in failed:
            entry = entries[index]
            if isinstance(entry, EncodedEvent):
                # A counter went back: the table was restored, or its counters were removed.
                names.append(
                    f"action {index} (event {entry.identity}, table {self._store.table!r}: its sequence number is "
                    "taken; was the table restored without its counters?)"
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


def _name(action: Action) -> str:
    kind, body = next(iter(action.items()))
    return f"{kind}, table {body.get('TableName')!r}"


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
