"""An aggregate's states in a snapshot store: found again when they still fit the code and the history."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any, Final, Generic

from pydantic import ValidationError

from oms_events._aio import Clock
from oms_events.errors import ConfigurationError, PersonalDataError, StorageError
from oms_events.events import load_json
from oms_events.eventstore.aggregates.aggregate import Aggregate, S, json_of
from oms_events.eventstore.aggregates.following import Folded
from oms_events.eventstore.aggregates.snapshots import Snapshot, SnapshotStore
from oms_events.eventstore.personal.cipher import FieldCipher
from oms_events.eventstore.personal.sealed import json_bytes
from oms_events.instrumentation.hooks import Hooks, SnapshotFailed

_log = logging.getLogger("oms_events")
_LOOKS: Final = 3
"""At so many snapshots a load looks, from the newest on, before it reads the whole history."""


class KeptStates(Generic[S]):
    """The states of one kind of aggregate. What goes wrong here is told to log and hooks, and never raised.

    Personal fields are encrypted under the aggregate's id, unless the state says another subject.
    """

    def __init__(
        self,
        store: SnapshotStore,
        aggregate: Aggregate[S, Any, Any],
        cipher: FieldCipher | None,
        *,
        timeout: float,
        hooks: Hooks,
        clock: Clock,
    ) -> None:
        self._store = store
        self._aggregate = aggregate
        self._cipher = cipher
        self._timeout = timeout
        self._hooks = hooks
        self._clock = clock
        self._others: set[tuple[str, int]] = set()

    async def find(self, aggregate_id: str, up_to: int | None) -> AsyncGenerator[Folded[S]]:
        """The states of usable snapshots, newest first, `up_to` at most; a few of them.

        Raises `ConfigurationError` for a table that is missing or of another shape.
        """
        for _ in range(_LOOKS):
            snapshot = await self._latest(aggregate_id, up_to)
            if snapshot is None:
                return
            state = await self._state_of(snapshot)
            if state is not None:
                yield Folded(state, snapshot.sequence, snapshot.event_id)
            up_to = snapshot.sequence - 1

    def ignore(self, aggregate_id: str, sequence: int, why: str) -> None:
        """Says that a snapshot is not used."""
        _log.warning("the snapshot of %r at %d is ignored: %s", aggregate_id, sequence, why)

    async def keep(self, aggregate_id: str, folded: Folded[S]) -> None:
        """Puts a snapshot."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._store.put(await self._snapshot(aggregate_id, folded))
        except TimeoutError:
            self._failed(aggregate_id, f"the snapshot at {folded.sequence} was not kept in {self._timeout:g} s")
        except Exception as error:
            self._failed(aggregate_id, f"the snapshot at {folded.sequence} was not kept: {error}")

    async def _latest(self, aggregate_id: str, up_to: int | None) -> Snapshot | None:
        try:
            return await self._store.latest(aggregate_id, up_to=up_to)
        except ConfigurationError:
            raise
        except (StorageError, ValueError) as error:
            self._failed(aggregate_id, f"no snapshot could be read: {error}")
            return None

    async def _state_of(self, snapshot: Snapshot) -> S | None:
        aggregate = self._aggregate
        found = (snapshot.aggregate, snapshot.version)
        if found != (aggregate.name, aggregate.snapshot_version):
            # After a deployment that raised the version this is so for each aggregate: it is said once.
            if found not in self._others:
                self._others.add(found)
                why = f"it is of {found[0]} version {found[1]}, and so may be others"
                self.ignore(snapshot.aggregate_id, snapshot.sequence, why)
            return None
        try:
            payload = snapshot.state
            if self._cipher is not None:
                (payload,) = await self._cipher.reveal([payload])
        except (PersonalDataError, StorageError, ValueError) as error:
            self._failed(snapshot.aggregate_id, f"the snapshot at {snapshot.sequence} could not be read: {error}")
            return None
        try:
            return aggregate.state.model_validate_json(payload)
        except Exception as error:
            why = f"it does not fit {aggregate.state.__name__}: {_first_problem(error)}"
            self.ignore(snapshot.aggregate_id, snapshot.sequence, why)
            return None

    async def _snapshot(self, aggregate_id: str, folded: Folded[S]) -> Snapshot:
        state, aggregate = folded.state, self._aggregate
        payload = json_of(state)
        name = type(state).__name__
        try:
            again = aggregate.state.model_validate_json(payload)
        except Exception as error:
            raise ValueError(f"{name} could not be read back: {_first_problem(error)}") from None
        if again != state:
            text = "is another after it was written as JSON and read again; give it only fields that survive that"
            raise ValueError(f"{name} {text}")
        if self._cipher is not None:
            clear = load_json(payload)
            data = await self._cipher.protect(state, clear, subject=aggregate_id, if_forgotten="replace")
            if data is not clear:
                payload = json_bytes(data)
        return Snapshot(
            aggregate_id=aggregate_id,
            sequence=folded.sequence,
            event_id=folded.event_id,
            aggregate=aggregate.name,
            version=aggregate.snapshot_version,
            state=payload,
            time=self._clock.now(),
        )

    def _failed(self, aggregate_id: str, reason: str) -> None:
        _log.warning("aggregate %r: %s", aggregate_id, reason)
        self._hooks(SnapshotFailed(aggregate_id, reason))


def _first_problem(error: Exception) -> str:
    """Without values, which may be personal. A validator may raise anything."""
    if not isinstance(error, ValidationError):
        return f"its validation failed with {type(error).__name__}"
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'state'}: {first['msg']}"
