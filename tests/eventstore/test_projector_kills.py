"""The projector is killed, or its storage fails, at every single step; in the end the read models are right."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from oms_events.errors import StorageError
from oms_events.eventstore.config import ProjectorConfig
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.projections.projection import Projection
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.projections.read_models import MemoryReadModels
from oms_events.eventstore.records import RecordedEvent
from oms_events.resilience.backoff import RetryConfig
from tests.eventstore.accounts import AccountClosed, AccountCreated, TransactionProcessed, deposit, registry
from tests.eventstore.ledgers import (
    FAULTS,
    Breaking,
    aggregates,
    behind,
    checkpoints,
    folded,
    population,
    rows_of,
    summaries,
    totals,
    until_death,
    waiting,
)

NO_PAUSE = RetryConfig(max_attempts=30, initial=1e-6, maximum=1e-6)
OPENED = AccountCreated(customer_id="c-1")
WITHDRAWAL = TransactionProcessed(amount=3, kind="withdrawal")
HISTORIES = {
    "a": [OPENED, deposit(5), deposit(7), AccountClosed(), OPENED, deposit(1), WITHDRAWAL],
    "b": [OPENED, WITHDRAWAL, deposit(2), AccountClosed()],
    "c": [deposit(4), AccountClosed(), AccountClosed(), deposit(8)],
}
DELIVERED = [
    [("a", 1), ("b", 1), ("c", 1), ("a", 2)],
    # A gap, in a batch that is not in order and has duplicates.
    [("a", 5), ("b", 3), ("a", 4), ("a", 1), ("a", 4)],
    [("c", 4), ("b", 2), ("b", 4), ("a", 7), ("c", 3)],
    [("a", 6), ("a", 7)],
]


Recorded = dict[tuple[str, int], RecordedEvent]


async def written(histories: dict[str, Sequence[Any]]) -> tuple[MemoryEventStore, Recorded]:
    """A store with histories, and its events by place."""
    store = MemoryEventStore(registry=registry)
    return store, {
        place: event for name in histories for place, event in (await more(store, name, histories[name])).items()
    }


async def more(store: MemoryEventStore, name: str, events: Sequence[Any]) -> Recorded:
    last = await store.last_sequence(name)
    recorded = await store.append(name, events, expected_sequence=last)
    return {(event.aggregate_id, event.sequence): event for event in recorded}


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.nightly)], ids=["some", "all"])
def nightly(request: pytest.FixtureRequest) -> bool:
    """Whether this is a nightly run."""
    return bool(request.param)


class World:
    """A history, read models, and a source that delivers until everything was taken."""

    def __init__(
        self, *projections: Projection[Any], store: MemoryEventStore, breaking: Breaking, **config: Any
    ) -> None:
        self.store = store
        self.read_models = MemoryReadModels()
        self.projections = projections
        self.breaking = breaking
        self._config = ProjectorConfig(conflicts=NO_PAUSE, page_size=2, **config)
        self.breaking.other = self.overtaken
        self.projector = self.restarted()

    def restarted(self) -> Projector:
        """A new process: it knows nothing of what the last one had in memory."""
        store, read_models = behind(self.breaking, self.store, self.read_models)
        self.projector = Projector(self.projections, store, read_models, config=self._config)
        return self.projector

    async def overtaken(self) -> None:
        """Another process brings an aggregate to its end, or all of them, and tries again what is parked."""
        other = Projector(self.projections, self.store, self.read_models, config=self._config)
        names = aggregates(self.store)
        chosen = self.breaking.steps // (len(FAULTS) - 1) % (len(names) + 1)
        for name in names[chosen : chosen + 1] or names:
            await other.catch_up(name)
            for projection in self.projections:
                await other.retry_parked(projection, aggregate_id=name)

    async def insist(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Does work until it is done, in a new process each time that one died or storage failed."""
        for _ in range(10):
            try:
                answer = await until_death(self.breaking, work())
            except StorageError:
                continue
            if answer is not None:
                return answer
            self.restarted()
        raise AssertionError("it never ends")

    async def deliver(self, events: Sequence[RecordedEvent]) -> None:
        left = list(events)
        while left:
            results = await self.insist(partial(self.projector_handles, left))
            left = [event for event, error in zip(left, results, strict=True) if error is not None]

    async def projector_handles(self, events: Sequence[RecordedEvent]) -> list[Exception | None]:
        # The projector of the moment: after a death it is another one.
        return await self.projector.handle(events)

    async def is_right(self, without: frozenset[str] = frozenset()) -> None:
        for projection in self.projections:
            expected = await folded(projection, self.store, without=without)
            assert rows_of(projection, self.read_models) == expected


async def every_step(run: Callable[[Breaking], Awaitable[World]], *, at_least: int, nightly: bool) -> None:
    """Runs it without a fault, and then with a fault at each step: each fault at each step in nightly runs.

    Else it dies at each step, or the next fault in turn comes there.
    """
    steps = (await run(Breaking())).breaking.steps
    assert steps >= at_least
    for at in range(1, steps + 1):
        for fault in FAULTS if nightly else ("dies before", FAULTS[1 + at % (len(FAULTS) - 1)]):
            try:
                world = await run(Breaking(at, fault))
            except AssertionError as error:
                error.add_note(f"{fault} at step {at} of {steps}")
                raise
            # A fault that never came proves nothing.
            assert world.breaking.steps >= at, (fault, at)


async def test_each_event_takes_effect_once_whatever_step_goes_wrong(nightly: bool) -> None:
    store, recorded = await written(HISTORIES)

    async def run(breaking: Breaking) -> World:
        world = World(summaries(), totals(), population(), store=store, breaking=breaking)
        for batch in DELIVERED:
            await world.deliver([recorded[place] for place in batch])
        await world.is_right()
        assert checkpoints(world.projections[0], world.read_models) == {"a": 7, "b": 4, "c": 4}
        return world

    await every_step(run, at_least=30, nightly=nightly)


@pytest.mark.parametrize("concurrency", [1, 16])
async def test_many_aggregates_share_rows_whatever_step_goes_wrong(nightly: bool, concurrency: int) -> None:
    store, recorded = await written({f"account-{number}": [OPENED, deposit(1), deposit(2)] for number in range(4)})

    async def run(breaking: Breaking) -> World:
        world = World(totals(), population(), store=store, breaking=breaking, concurrency=concurrency)
        await world.deliver([event for event in recorded.values() if event.sequence != 2])
        await world.is_right()
        return world

    await every_step(run, at_least=10, nightly=nightly)


async def test_what_waited_for_a_parked_event_is_never_lost_whatever_step_goes_wrong(nightly: bool) -> None:
    store, recorded = await written(HISTORIES)

    async def run(breaking: Breaking) -> World:
        poison = {"a@3", "b@1"}
        world = World(summaries(poison), totals(poison), store=store, breaking=breaking)
        for batch in DELIVERED:
            await world.deliver([recorded[place] for place in batch])
        assert checkpoints(world.projections[0], world.read_models) == {"a": 2, "b": 0, "c": 4}
        assert len(waiting(world.read_models)) >= 4
        poison.clear()
        for projection in world.projections:
            await world.insist(lambda projection=projection: world.projector.retry_parked(projection))
        await world.is_right()
        assert waiting(world.read_models) == []
        return world

    await every_step(run, at_least=60, nightly=nightly)


async def test_after_a_killed_retry_the_next_event_brings_everything(nightly: bool) -> None:
    """Killed between the release and the end of the catching up, nobody retries: the next event comes."""

    async def run(breaking: Breaking) -> World:
        poison = {"a@3"}
        store, recorded = await written(HISTORIES)
        world = World(summaries(poison), store=store, breaking=breaking)
        quiet, breaking.steps = breaking.steps, -(10**6)
        await world.deliver(list(recorded.values()))
        poison.clear()
        breaking.steps = quiet
        with suppress(StorageError):
            await until_death(breaking, world.projector.retry_parked("Summary"))
        world.restarted()
        await world.deliver(list((await more(store, "a", [deposit(100)])).values()))
        if checkpoints(world.projections[0], world.read_models)["a"] == 2:
            # It never came to the release: the aggregate waits still, and says so.
            assert len(waiting(world.read_models)) == 2
            await world.insist(lambda: world.projector.retry_parked("Summary"))
        await world.is_right()
        assert waiting(world.read_models) == []
        return world

    await every_step(run, at_least=8, nightly=nightly)


async def test_an_event_that_was_passed_over_comes_late_and_once_whatever_step_goes_wrong(nightly: bool) -> None:
    store, recorded = await written(HISTORIES)

    async def run(breaking: Breaking) -> World:
        poison = {"a@2", "a@3", "b@3", "c@4"}
        world = World(totals(poison), store=store, breaking=breaking, after_poison="continue")
        for batch in DELIVERED:
            await world.deliver([recorded[place] for place in batch])
        without = frozenset(poison)
        poison.clear()
        await world.is_right(without)
        await world.insist(lambda: world.projector.retry_parked("Total"))
        await world.is_right()
        assert waiting(world.read_models) == []
        return world

    await every_step(run, at_least=30, nightly=nightly)


async def test_catching_up_is_right_whatever_step_goes_wrong(nightly: bool) -> None:
    store, recorded = await written(HISTORIES)

    async def run(breaking: Breaking) -> World:
        world = World(summaries(), totals(), population(), store=store, breaking=breaking)
        await world.deliver([recorded["a", 2], recorded["b", 1]])
        for name in HISTORIES:

            async def catch_up(name: str = name) -> bool:
                await world.projector.catch_up(name)
                return True

            await world.insist(catch_up)
        await world.is_right()
        return world

    await every_step(run, at_least=30, nightly=nightly)
