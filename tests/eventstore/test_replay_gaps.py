"""A replay of a history in which events are missing: it is told, and not passed over in silence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oms_events.errors import ReplayError
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.replay.checkpoints import MemoryReplayCheckpoint
from oms_events.eventstore.replay.config import ReplaySelection
from oms_events.eventstore.replay.report import ReplayFailure, ReplayReport
from oms_events.eventstore.replay.store_replay import StoreReplay
from oms_events.eventstore.store import EventStore
from oms_events.publishers.memory import MemoryPublisher
from oms_events.testing import ManualClock
from tests.eventstore.accounts import registry
from tests.eventstore.replaying import fill, first_deliveries, positions, quick, router_of
from tests.eventstore.support import Hurried

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
async def store(clock: ManualClock) -> EventStore:
    """Three accounts of four events, an hour apart, and an hour that has passed since."""
    store = MemoryEventStore(registry=registry, clock=clock)
    for name in ("A", "B", "C"):
        await fill(store, [name])
        await clock.advance(3600)
    return store


async def replayed(store: EventStore, memory: MemoryPublisher | None = None, **options: Any) -> ReplayReport:
    """Replays into one platform with a rule for everything."""
    async with router_of(memory or MemoryPublisher()) as router:
        return await StoreReplay(store, router, **{"config": quick(), **options}).run()


WHOLE: list[dict[str, Any]] = [{}, {"aggregate_ids": ["A", "B", "C"]}]


@pytest.mark.parametrize("selection", WHOLE)
@pytest.mark.parametrize("page_size", [1, 2, 100])
async def test_a_gap_in_a_history_stops_it_or_is_told_and_passed_over(
    store: EventStore, selection: dict[str, Any], page_size: int
) -> None:
    table: Any = store.table
    lost = [(name, number, table._aggregates[name].pop(number)) for name, number in (("B", 1), ("B", 3), ("C", 2))]
    wanted = ReplaySelection(**selection)
    checkpoint, memory = MemoryReplayCheckpoint(), MemoryPublisher()
    told: list[ReplayFailure] = []
    options: dict[str, Any] = {"selection": wanted, "clock": Hurried()}
    with pytest.raises(
        ReplayError, match=r"stopped at an event that was not delivered: [BC]@\d .* missing: it is not"
    ):
        await replayed(store, memory, **options, checkpoint=checkpoint, config=quick(page_size=page_size))
    kept = MemoryReplayCheckpoint()
    kept.state = checkpoint.state
    goes_on = quick(page_size=page_size, after_failure="continue")
    report = await replayed(store, memory, **options, checkpoint=kept, on_failure=told.append, config=goes_on)
    assert (report.failed, report.complete) == (3, True)
    assert sorted((failure.kind, failure.position) for failure in told) == [
        ("missing", "B@1"),
        ("missing", "B@3"),
        ("missing", "C@2"),
    ]
    assert {*positions(memory.events)} == {f"{name}@{number}" for name in "ABC" for number in range(1, 5)} - {
        "B@1",
        "B@3",
        "C@2",
    }
    counted = await StoreReplay(store, router_of(MemoryPublisher()), wanted, clock=Hurried()).count()
    assert (counted.failed, counted.matched) == (3, 9)
    # Somebody restores them: it goes on before the first of the gaps.
    for name, number, item in lost:
        table._aggregates[name][number] = item
        table._aggregates[name] = dict(sorted(table._aggregates[name].items()))
    memory.events.clear()
    report = await replayed(store, memory, **options, checkpoint=checkpoint, config=quick(page_size=page_size))
    assert (report.failed, report.complete) == (0, True)
    assert {"B@1", "B@3", "C@2"} <= {*positions(memory.events)}


async def test_a_gap_beside_the_selected_time_is_nothing_to_it(store: EventStore) -> None:
    table: Any = store.table
    for name in "ABC":
        del table._aggregates[name][2]

    async def failures(**times: Any) -> int:
        config = quick(after_failure="continue")
        selection = ReplaySelection(aggregate_ids=["A", "B", "C"], **times)
        return (await replayed(store, selection=selection, clock=Hurried(), config=config)).failed

    hour = timedelta(hours=1)
    assert await failures(end=START + 9 * hour) == 3
    assert await failures(start=START + hour) == 2
    assert await failures(start=START + hour, end=START + 2 * hour) == 1
    assert await failures(end=START + hour) == 1


@pytest.mark.parametrize("selection", WHOLE)
async def test_what_is_being_committed_is_no_gap(
    store: EventStore, selection: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    table: Any = store.table
    history = table._aggregates["B"]
    item = history.pop(2)

    class Committing(Hurried):
        async def sleep(self, seconds: float) -> None:
            history[2] = item
            table._aggregates["B"] = dict(sorted(history.items()))
            await super().sleep(seconds)

    memory, clock = MemoryPublisher(), Committing()
    report = await replayed(store, memory, selection=ReplaySelection(**selection), clock=clock)
    assert (report.delivered, report.failed) == (12, 0)
    assert first_deliveries(memory.events)["B"] == [1, 2, 3, 4]
