"""The repository of one kind of aggregate: loads states, carries out commands, keeps snapshots."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, cast

from pydantic import Field, StrictBool

from oms_events._aio import Clock, SystemClock
from oms_events._config import ConfigModel
from oms_events.errors import (
    CommandRejectedError,
    CommitOutcomeUnknownError,
    ConcurrencyError,
    DuplicateCommandError,
    PayloadMismatchError,
    RequestError,
    StorageError,
    TransactionConflictError,
)
from oms_events.eventstore.aggregates.aggregate import Aggregate, C, E, S, as_stored, command_fingerprint
from oms_events.eventstore.aggregates.following import Folded, OtherHistoryError, follow
from oms_events.eventstore.aggregates.kept_states import KeptStates
from oms_events.eventstore.aggregates.snapshots import SnapshotStore
from oms_events.eventstore.append import check_aggregate_id, check_command_id
from oms_events.eventstore.author import check_expected
from oms_events.eventstore.records import CommandMarker, RecordedEvent
from oms_events.eventstore.store import EventStore
from oms_events.instrumentation.hooks import AppendConflict, Appended, Hook, Hooks
from oms_events.outbox.store import Action
from oms_events.resilience.backoff import RetryConfig

_BACKOFF: Final = RetryConfig(initial=0.02, maximum=1.0)
"""Between attempts to carry out a command that others overtook."""


class RepositoryConfig(ConfigModel):
    """How a repository carries out commands and keeps snapshots."""

    attempts: int = Field(default=10, ge=1)
    """How often a command is decided at most, while others append to its aggregate first."""
    snapshot_every: int | None = Field(default=100, ge=0)
    """Events between snapshots; with 0 or none at all it writes no snapshots, as suits those who only read."""
    snapshot_on_load: StrictBool = True
    """Whether a load that had to read more than `snapshot_every` events also keeps a snapshot."""
    snapshot_timeout: float = Field(default=2.0, gt=0)
    """Seconds for which a command, which was carried out by then, or a load waits for its snapshot to be kept."""


class Loaded(NamedTuple, Generic[S]):
    """A state, and the sequence of the event that led to it; 0 before the first."""

    state: S
    sequence: int


@dataclass(frozen=True)
class Executed(Generic[S]):
    """What a command led to: its events, and the aggregate's state and last sequence.

    `replayed` says that the command had been carried out before: `events` are those of then, state and sequence
    those of now.
    """

    events: Sequence[RecordedEvent]
    sequence: int
    state: S
    replayed: bool = False


class Repository(Generic[S, C, E]):
    """The aggregates of one kind. It owns neither the store nor the snapshots. Safe to use concurrently."""

    def __init__(
        self,
        store: EventStore,
        aggregate: Aggregate[S, C, E],
        *,
        snapshots: SnapshotStore | None = None,
        config: RepositoryConfig | None = None,
        hooks: Sequence[Hook] = (),
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._store = store
        self.aggregate = aggregate
        self._config = config or RepositoryConfig()
        self._hooks = Hooks(hooks)
        self._clock = clock or SystemClock()
        self._rng = rng or random.SystemRandom()
        self._kept = (
            None
            if snapshots is None
            else KeptStates(
                snapshots,
                aggregate,
                store.cipher,
                timeout=self._config.snapshot_timeout,
                hooks=self._hooks,
                clock=self._clock,
            )
        )

    # ------------------------------------------------------------------ loading

    async def load(self, aggregate_id: str, *, up_to_sequence: int | None = None) -> S:
        """The state of an aggregate now, or after its event at `up_to_sequence`; the initial one without events.

        Raises `InvalidEventError` for what is no aggregate's id, `RequestError` for what is no sequence,
        `EventUnreadableError` and a `StorageError`.
        """
        return (await self._load(aggregate_id, up_to_sequence)).state

    async def load_with_sequence(self, aggregate_id: str, *, up_to_sequence: int | None = None) -> Loaded[S]:
        """As `load`, and the sequence of the event that led to the state: `up_to_sequence`, or fewer there are."""
        folded = await self._load(aggregate_id, up_to_sequence)
        return Loaded(folded.state, folded.sequence)

    async def _load(self, aggregate_id: str, up_to: int | None) -> Folded[S]:
        check_aggregate_id(aggregate_id)
        if up_to is not None and (isinstance(up_to, bool) or not isinstance(up_to, int) or up_to < 0):
            text = f"up_to_sequence = {up_to!r}: give the sequence of an event, from 1 on; 0 is before the first"
            raise RequestError(text, field="up_to_sequence")
        start = Folded(self.aggregate.initial(aggregate_id), 0, "")
        if up_to == 0:
            return start
        if self._kept is None:
            return await self._follow(aggregate_id, start, up_to=up_to)
        folded = await self._from_snapshot(self._kept, aggregate_id, up_to)
        if folded is None:
            folded = await self._follow(aggregate_id, start, up_to=up_to)
        every = self._config.snapshot_every
        if every and self._config.snapshot_on_load and up_to is None and folded.events > every:
            await self._kept.keep(aggregate_id, folded)
        return folded

    async def _from_snapshot(self, kept: KeptStates[S], aggregate_id: str, up_to: int | None) -> Folded[S] | None:
        async with aclosing(kept.find(aggregate_id, up_to)) as found:
            async for start in found:
                try:
                    return await self._follow(aggregate_id, start, up_to=up_to, verify=True)
                except OtherHistoryError:
                    kept.ignore(aggregate_id, start.sequence, "the history has another event there, or none")
        return None

    async def _follow(
        self, aggregate_id: str, start: Folded[S], *, up_to: int | None = None, verify: bool = False
    ) -> Folded[S]:
        return await follow(self._store, self.aggregate, aggregate_id, start, up_to=up_to, verify=verify)

    # ------------------------------------------------------------------ commands

    async def execute(
        self,
        aggregate_id: str,
        command: C,
        *,
        command_id: str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        expected_sequence: int | None = None,
        actions: Sequence[Action] = (),
    ) -> Executed[S]:
        """Carries out a command: decides on the state now, and appends what it leads to, all or nothing.

        When others append first it decides anew on what they left, up to `attempts` times with growing pauses; not
        so with an `expected_sequence`, which is the sequence that the caller decided on. With a `command_id` it is
        carried out once: again, it gives what it led to then, and the state now. A refusal is not remembered.
        Events get the command's id as `causationid` and `correlationid` unless others are given. `actions` are
        your own writes in the same transaction; see `EventStore.append` for them, and for its limits.

        Raises, with nothing written: what `decide` and `evolve` raise (`CommandRejectedError`); `ConcurrencyError`
        and `TransactionConflictError` after the last attempt; `PayloadMismatchError` for an id that another
        command had; `RequestError` for a command that is no JSON; what `load` and `append` raise. With
        `CommitOutcomeUnknownError`, or cancelled, all or nothing was written: with a `command_id`, do it again.
        """
        if expected_sequence is not None:
            check_expected(expected_sequence)
        run = _Run(aggregate_id, command, command_id, correlation_id, causation_id, actions)
        began = self._clock.monotonic()
        before = await self._load(aggregate_id, None)
        if expected_sequence is not None and before.sequence != expected_sequence:
            if (marker := await self._marker(run)) is not None:
                return await self._replay(run, marker, before)
            raise ConcurrencyError(aggregate_id, expected=expected_sequence, actual=before.sequence)
        attempt = 1
        while True:
            try:
                executed = await self._attempt(run, before)
                break
            except (ConcurrencyError, TransactionConflictError) as error:
                if expected_sequence is not None or attempt >= self._config.attempts:
                    raise
                refusal = error
            self._hooks(AppendConflict(attempt))
            await self._clock.sleep(_BACKOFF.delay(attempt, self._rng.random))
            before = await self._newer(aggregate_id, before, refusal)
            attempt += 1
        if executed.events and not executed.replayed:
            self._hooks(Appended(len(executed.events), self._clock.monotonic() - began))
        return executed

    async def _attempt(self, run: _Run[C], before: Folded[S]) -> Executed[S]:
        try:
            events = self.aggregate.decided(before.state, run.command)
            # An event that `evolve` fails on would make the aggregate unreadable: that shows before it is stored.
            stored = [cast("E", as_stored(event, self._store.registry)) for event in events]
            state = self.aggregate.fold(before.state, stored)
            recorded = await self._store.append(
                run.aggregate_id,
                events,
                expected_sequence=before.sequence,
                command_id=run.command_id,
                fingerprint=run.fingerprint,
                correlation_id=run.correlation_id,
                causation_id=run.causation_id,
                actions=run.actions,
            )
        except DuplicateCommandError as error:
            marker = CommandMarker(error.first_sequence, error.events, error.fingerprint)
            return await self._replay(run, marker, before)
        except CommitOutcomeUnknownError as error:
            return await self._after_silence(run, before, error)
        except (ConcurrencyError, StorageError):
            raise
        except Exception as error:
            # What was carried out before may well be impossible a second time.
            if (found := await self._marker(run)) is not None:
                return await self._replay(run, found, before)
            if not isinstance(error, CommandRejectedError):
                command = type(run.command).__name__
                error.add_note(f"command {command} on {self.aggregate.name} {run.aggregate_id}@{before.sequence}")
            raise
        if not recorded:
            return Executed((), before.sequence, before.state)
        after = Folded(state, recorded[-1].sequence, recorded[-1].id)
        every = self._config.snapshot_every
        if every and self._kept is not None and before.sequence // every < after.sequence // every:
            await self._kept.keep(run.aggregate_id, after)
        return Executed(recorded, after.sequence, state)

    async def _newer(self, aggregate_id: str, before: Folded[S], refusal: Exception) -> Folded[S]:
        actual = refusal.actual if isinstance(refusal, ConcurrencyError) else None
        if actual is not None and actual < before.sequence:
            # The history became shorter: what was read of it is worth nothing.
            return await self._load(aggregate_id, None)
        return await self._follow(aggregate_id, before)

    # ------------------------------------------------------------------ the same command again

    async def _marker(self, run: _Run[C]) -> CommandMarker | None:
        return None if run.command_id is None else await self._store.marker(run.aggregate_id, run.command_id)

    async def _replay(self, run: _Run[C], marker: CommandMarker, before: Folded[S]) -> Executed[S]:
        if marker.fingerprint and marker.fingerprint != run.fingerprint:
            raise PayloadMismatchError(
                f"command {run.command_id!r} of aggregate {run.aggregate_id!r} was another one before; a new "
                "command needs a new id",
                key=run.command_id or "",
            )
        events: list[RecordedEvent] = []
        if marker.events:
            first = marker.first_sequence
            last = first + marker.events - 1
            async with aclosing(self._store.read(run.aggregate_id, after=first - 1, up_to=last)) as found:
                events = [event async for event in found]
        now = await self._follow(run.aggregate_id, before)
        return Executed(events, now.sequence, now.state, replayed=True)

    async def _after_silence(
        self, run: _Run[C], before: Folded[S], error: CommitOutcomeUnknownError
    ) -> Executed[S]:
        if run.command_id is None:
            raise error
        try:
            marker = await self._marker(run)
        except StorageError:
            raise error from None
        if marker is None:
            raise CommitOutcomeUnknownError(
                f"{error}; command {run.command_id!r} was not there yet a moment ago: send it again with its id",
                code=error.code,
            ) from error
        return await self._replay(run, marker, before)


class _Run(Generic[C]):
    """A command on its way. Raises `InvalidEventError` for what is no command's id."""

    def __init__(
        self,
        aggregate_id: str,
        command: C,
        command_id: str | None,
        correlation_id: str | None,
        causation_id: str | None,
        actions: Sequence[Action],
    ) -> None:
        if command_id is not None:
            check_command_id(command_id)
        self.aggregate_id = aggregate_id
        self.command = command
        self.command_id = command_id
        self.correlation_id = command_id if correlation_id is None else correlation_id
        self.causation_id = command_id if causation_id is None else causation_id
        self.fingerprint = "" if command_id is None else command_fingerprint(command)
        self.actions = tuple(actions)
