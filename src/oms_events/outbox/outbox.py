"""The outbox as a service uses it: transactions with events, on DynamoDB or, for tests, in memory."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from oms_events._aio import Clock, SystemClock
from oms_events.errors import ConfigurationError, OutboxClosedError
from oms_events.events import EncodedEvent
from oms_events.outbox.claimcheck import ClaimCheck
from oms_events.outbox.commit import Admitted, Committer
from oms_events.outbox.config import OutboxConfig, WriterConfig
from oms_events.outbox.dynamodb import DynamoDBOutboxStore
from oms_events.outbox.limits import MAX_ACTIONS, MAX_BYTES, check_transaction
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.prepared import Prepared
from oms_events.outbox.records import NewRecord, RecordState
from oms_events.outbox.reservations import Reservations
from oms_events.outbox.signals import Committed, Listener, Voided
from oms_events.outbox.store import Action, OutboxStore
from oms_events.outbox.transaction import Transaction

if TYPE_CHECKING:
    import aioboto3
    from cloudevents.core.v1.event import CloudEvent

_log: Final = logging.getLogger("oms_events")


class Outbox:
    """Stores events with the business writes that they are about; processors deliver them.

    Opens its store at the first use, or as `async with`; it closes the store that it was given. Safe to use
    concurrently. An event's order key is its `partitionkey`, else what `config.key_of` says; one without a key has
    no order.
    """

    def __init__(
        self,
        store: OutboxStore,
        config: WriterConfig,
        *,
        claim_check: ClaimCheck | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.store = store
        self.config = config
        self._claim_check = claim_check
        self._listeners: tuple[Listener, ...] = ()
        self._opening = asyncio.Lock()
        self._is_open = False
        self._is_closed = False
        clock = clock or SystemClock()
        # The system's own source: processes that were forked share no tokens and no names of records.
        rng = rng or random.SystemRandom()
        self._reservations = Reservations(store, config, clock=clock, rng=rng)
        self._committer = Committer(
            store,
            config,
            self._reservations,
            claim_check=claim_check,
            notify=self._notify,
            clock=clock,
            rng=rng,
        )

    async def open(self) -> None:
        """Opens the store; idempotent. Raises what it raises, and `OutboxClosedError` after `close`."""
        if self._is_open:
            return
        async with self._opening:
            if self._is_closed:
                raise OutboxClosedError("this outbox is closed: make another one")
            if not self._is_open:
                await self.store.open()
                if self._claim_check is not None:
                    await self._claim_check.open()
                self._is_open = True

    async def close(self) -> None:
        """Closes the store; idempotent, and nothing new begins.

        What is under way ends at once: with `OutboxClosedError` when nothing was sent, with
        `CommitOutcomeUnknownError` when a commit was.
        """
        self._is_closed = True
        self._committer.close()
        async with self._opening:
            self._is_open = False
            try:
                await self._reservations.close()
                if self._claim_check is not None:
                    await self._claim_check.close()
            finally:
                await self.store.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def transaction(self) -> Transaction:
        """A transaction for business writes and their events: `async with outbox.transaction() as tx`."""
        return Transaction(self._committer, self.open)

    async def add(self, event: object) -> None:
        """Adds one event in a transaction of its own. Raises as leaving a `Transaction` does."""
        admitted = self._committer.admit(event)
        await self.open()
        await self._committer.commit([admitted])

    async def add_many(self, events: Iterable[object]) -> None:
        """Adds events in transactions of at most 100 events and 4 MB, one after the other.

        Each of these is all or nothing, not all of them together: when one fails, those before it stay, and a note
        on the error tells how many events were added. None is added when one of them is invalid or too large.
        """
        admitted = [self._committer.admit(event) for event in events]
        await self.open()
        added = 0
        for chunk in _chunks(admitted):
            try:
                await self._committer.commit(chunk)
            except BaseException as error:
                error.add_note(f"{added} of {len(admitted)} events were added before")
                raise
            added += len(chunk)

    async def commit(self, actions: Sequence[Action], events: Iterable[object] = (), *, size: int = 0) -> None:
        """Commits ready actions with events, as leaving a `Transaction` does; nobody checks the actions again.

        For stores that build their own actions; `size` is how many bytes these are.
        """
        admitted = [self._committer.admit(event) for event in events]
        check_transaction(len(actions) + len(admitted), size + sum(entry.size for entry in admitted))
        await self.open()
        await self._committer.commit([*actions, *admitted])

    async def prepare(self, events: Iterable[object]) -> Prepared:
        """The actions that put these events, to append to a TransactWriteItems call of your own.

        Call it last, right before that call, after all reads of your transaction: it reserves sequence numbers.
        Each new try of a transaction needs actions of its own. Raises `InvalidEventError`, `OutboxLimitError`,
        `ConfigurationError` and `StorageError`.
        """
        admitted = [self._committer.admit(event) for event in events]
        check_transaction(len(admitted), sum(entry.size for entry in admitted))
        await self.open()
        entries = [await self._committer.claimed(entry) for entry in admitted]
        placement = await self._committer.place(entries)
        return Prepared(self._committer, placement, self._committer.actions(entries, placement))

    async def put_back(
        self,
        event: EncodedEvent,
        put: Callable[[NewRecord], Awaitable[bool]],
        *,
        key: str | None,
        state: RecordState,
        history: Sequence[Mapping[str, Any]],
    ) -> bool:
        """Gives an event that was in the outbox a new place under its key, and lets `put` store the record there.

        `put` says whether it did. Listeners are told nothing: after a lost answer nobody here knows whether the
        record is there, and polls find it. Raises as `prepare` and `put` do.
        """
        await self.open()
        placement = await self._committer.place([Admitted(event, key, 0)])
        return await put(placement.records[0]._replace(state=state, history=history))

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener` with what this outbox commits from now on; gives a function that ends it."""
        self._listeners = (*self._listeners, listener)

        def unsubscribe() -> None:
            self._listeners = tuple(one for one in self._listeners if one is not listener)

        return unsubscribe

    def _notify(self, signal: Committed | Voided) -> None:
        for listener in self._listeners:
            try:
                listener(signal)
            except Exception:
                _log.exception("listener %r failed on %s", listener, type(signal).__name__)


class DynamoDBOutbox(Outbox):
    """The outbox in a DynamoDB table.

    Give a `session` (aioboto3) or a `client` (its `dynamodb` client) to use your own, and for the claim check
    an `s3_client`; none is ever closed. A session brings its own credentials, a client also its own region,
    endpoint and connections.
    """

    config: OutboxConfig

    def __init__(
        self,
        config: OutboxConfig,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
        s3_client: Any = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        _check_arguments(config, session=session, client=client, s3_client=s3_client)
        claim_check = None
        if config.claim_check is not None:
            claim_check = ClaimCheck(config.claim_check, config, session=session, client=s3_client)
        super().__init__(
            DynamoDBOutboxStore(config, session=session, client=client, clock=clock, rng=rng),
            config,
            claim_check=claim_check,
            clock=clock,
            rng=rng,
        )


class MemoryOutbox(Outbox):
    """An outbox in memory, for tests: `store` tells what was committed.

    It knows no conditions: `refuse` says of each business action whether its condition fails.
    """

    store: MemoryOutboxStore

    def __init__(
        self,
        config: WriterConfig | None = None,
        *,
        refuse: Callable[[Action], bool] | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(MemoryOutboxStore(refuse=refuse), config or WriterConfig(), clock=clock, rng=rng)

    def pending(self) -> list[CloudEvent]:
        """The events that were committed and not yet delivered everywhere, in the order of their commits."""
        return [record.event.event for record in self.store.pending() if record.event is not None]


def _check_arguments(config: object, *, session: object, client: object, s3_client: object) -> None:
    problems = []
    if not isinstance(config, OutboxConfig):
        problems.append(f"config is {type(config).__name__}; give an OutboxConfig(table_name=...)")
    for name, given, method, what in (
        ("session", session, "client", "an aioboto3.Session"),
        ("client", client, "transact_write_items", "a `dynamodb` client of an aioboto3.Session"),
        ("s3_client", s3_client, "put_object", "an `s3` client of an aioboto3.Session"),
    ):
        if given is not None and not callable(getattr(given, method, None)):
            problems.append(f"{name} is {type(given).__name__}; give {what}, or leave it out")
    if problems:
        raise ConfigurationError("DynamoDBOutbox", problems)


def _chunks(admitted: Iterable[Admitted]) -> Iterator[list[Admitted]]:
    chunk: list[Admitted] = []
    total = 0
    for entry in admitted:
        if len(chunk) == MAX_ACTIONS or total + entry.size > MAX_BYTES:
            yield chunk
            chunk, total = [], 0
        chunk.append(entry)
        total += entry.size
    if chunk:
        yield chunk
