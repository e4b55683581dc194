"""A replay that ends early goes on where it was, wherever it ended, and whatever the platform does meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oms_events._aws.dynamodb import DynamoClient
from oms_events._aws.tables import create_request
from oms_events.errors import ReplayError, StorageUnavailableError, TransientError, UnknownOutcomeError
from oms_events.eventstore.config import EventStoreConfig
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.replay import checkpoints as replay_checkpoints
from oms_events.eventstore.replay.checkpoints import FileReplayCheckpoint, MemoryReplayCheckpoint, ReplayState
from oms_events.eventstore.replay.config import ReplaySelection
from oms_events.eventstore.replay.store_replay import StoreReplay
from oms_events.eventstore.schema import EVENT_STORE
from oms_events.publishers.memory import MemoryPublisher
from oms_events.publishing import PublisherTraits
from oms_events.testing import Fault, FlakyPublisher, ManualClock
from tests.eventstore.accounts import registry
from tests.eventstore.replaying import (
    CLOSED,
    CREATED,
    DEPOSIT,
    EveryCheckpoint,
    TextOrderTable,
    WatchedPublisher,
    fill,
    first_deliveries,
    quick,
    router_of,
    until,
)
from tests.outbox.support import Settings

SELECTIONS: list[dict[str, Any]] = [
    {},
    {"types": (CREATED, DEPOSIT, CLOSED)},
    {"aggregate_ids": ("A", "B", "C", "D", "no-such")},
]
faults = st.one_of(
    st.none(),
    st.builds(
        Fault,
        error=st.sampled_from([TransientError("busy"), UnknownOutcomeError("no answer")]),
        only=st.one_of(st.none(), st.frozensets(st.integers(0, 3))),
        stored=st.booleans(),
    ),
)
histories = st.dictionaries(st.sampled_from("ABCD"), st.integers(1, 7), min_size=1)


async def stop(running: asyncio.Task[Any]) -> None:
    running.cancel()
    await asyncio.wait((running,))


async def crashing_replay(
    counts: dict[str, int],
    selection: ReplaySelection,
    script: list[Fault | None],
    crashes: list[tuple[int, int, bool]],
    *,
    max_calls: int,
    max_batch: int,
    page_size: int,
    in_text_order: bool = False,
) -> tuple[WatchedPublisher, MemoryPublisher]:
    """Replays, and is ended after so many sent events: in an orderly way, or as by a crash."""
    store = MemoryEventStore(registry=registry)
    await fill(store, counts)
    if in_text_order:
        store.table = TextOrderTable(store.table)
    memory = MemoryPublisher(traits=PublisherTraits())
    flaky = FlakyPublisher(memory)
    flaky.script(*script)
    watched = WatchedPublisher(flaky)
    config = quick(max_calls=max_calls, max_batch=max_batch, page_size=page_size, readers=2, save_interval=0.0001)
    states: list[ReplayState] = []
    for sent, back, is_orderly in [*crashes, (10**9, 0, True)]:
        checkpoint = EveryCheckpoint()
        if states:
            # Somebody who comes after a crash finds some state that was written, not always the newest.
            checkpoint.state = states[max(0, len(states) - 1 - back)]
        watched.sent = 0
        async with router_of(watched) as router:
            running = asyncio.create_task(
                StoreReplay(store, router, selection, checkpoint=checkpoint, config=config).run()
            )
            await until(lambda sent=sent, running=running: watched.sent >= sent or running.done())
            known = len(checkpoint.all)
            await stop(running)
        states += checkpoint.all if is_orderly else checkpoint.all[:known]
        if running.cancelled():
            continue
        report = running.result()
        assert report.complete
        break
    return watched, memory


@settings(max_examples=80)
@given(
    counts=histories,
    selection=st.sampled_from(SELECTIONS),
    script=st.lists(faults, max_size=8),
    crashes=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5), st.booleans()), max_size=4),
    max_calls=st.integers(1, 3),
    max_batch=st.integers(1, 4),
    page_size=st.integers(1, 5),
)
def test_killed_anywhere_it_delivers_everything_in_order(
    counts: dict[str, int], selection: dict[str, Any], script: Any, crashes: Any, **limits: int
) -> None:
    watched, memory = asyncio.run(crashing_replay(counts, ReplaySelection(**selection), script, crashes, **limits))
    delivered = first_deliveries(memory.events)
    assert delivered == {name: [*range(1, count + 1)] for name, count in counts.items()}
    assert watched.overtaken == []


@settings(max_examples=40)
@given(
    counts=st.dictionaries(st.sampled_from("ABCD"), st.sampled_from((1, 3, 9, 10, 13, 23)), min_size=1),
    crashes=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5), st.booleans()), max_size=4),
    max_batch=st.integers(1, 4),
    page_size=st.integers(1, 7),
)
def test_the_order_does_not_rest_on_that_of_a_scan(counts: dict[str, int], crashes: Any, **limits: int) -> None:
    watched, memory = asyncio.run(
        crashing_replay(counts, ReplaySelection(), [], crashes, max_calls=2, in_text_order=True, **limits)
    )
    assert first_deliveries(memory.events) == {name: [*range(1, count + 1)] for name, count in counts.items()}
    assert watched.overtaken == []


@pytest.mark.parametrize("selection", SELECTIONS)
async def test_after_an_orderly_end_no_more_comes_again_than_the_window_held(selection: dict[str, Any]) -> None:
    store = MemoryEventStore(registry=registry)
    await fill(store, [*"ABCD"], events=20)
    watched, checkpoint = WatchedPublisher(), MemoryReplayCheckpoint()
    options = {"checkpoint": checkpoint, "config": quick(save_interval=1000, window=8, readers=4)}
    async with router_of(watched) as router:
        running = asyncio.create_task(StoreReplay(store, router, ReplaySelection(**selection), **options).run())
        await until(lambda: watched.sent >= 30)
        await stop(running)
        before = len(watched.memory.events)
        assert checkpoint.state is not None
        assert not checkpoint.state.complete
        again = StoreReplay(store, router, ReplaySelection(**selection), **options)
        counted = await again.count()
        report = await again.run()
    assert len(first_deliveries(watched.memory.events)) == 4
    assert 80 - before <= report.delivered == counted.matched <= 80 - before + 8
    assert (report.resumed, report.name) == (True, checkpoint.state.name)


@pytest.mark.parametrize(
    "fields", [{"rate": 1000.0}, {"max_calls": 2, "max_batch": 3}, {"ordered": False, "max_batch": 3}]
)
async def test_once_it_is_cancelled_nothing_more_is_published(fields: dict[str, Any]) -> None:
    store = MemoryEventStore(registry=registry)
    await fill(store, [f"A{number}" for number in range(100)], events=4)
    watched = WatchedPublisher()
    async with router_of(watched) as router:
        running = asyncio.create_task(StoreReplay(store, router, config=quick(**fields)).run())
        await until(lambda: watched.sent >= 20)
        running.cancel()
        await asyncio.wait((running,))
        sent = watched.sent
        left = [task.get_name() for task in asyncio.all_tasks() if "replay" in task.get_name()]
        for _ in range(100):
            await asyncio.sleep(0)
    assert running.cancelled()
    assert (left, watched.sent) == ([], sent)
    assert sent < 400


async def test_a_replay_that_is_complete_does_nothing_more() -> None:
    store, checkpoint = MemoryEventStore(registry=registry), MemoryReplayCheckpoint()
    await fill(store, ["A"])
    memory = MemoryPublisher()
    async with router_of(memory) as router:
        first = await StoreReplay(store, router, checkpoint=checkpoint, config=quick()).run()
        await fill(store, ["B"])
        second = await StoreReplay(store, router, checkpoint=checkpoint, config=quick()).run()
        counted = await StoreReplay(store, router, checkpoint=checkpoint, config=quick()).count()
    assert (second.complete, second.resumed, second.name, second.read) == (True, True, first.name, 0)
    assert counted.read == 0
    assert len(memory.events) == 4


async def test_relative_times_stay_what_they_were_when_it_began() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    store, checkpoint = MemoryEventStore(registry=registry, clock=clock), MemoryReplayCheckpoint()
    for name in ("A", "B"):
        await fill(store, [name])
        await clock.advance(3600)
    selection = ReplaySelection(start="1 hour ago")
    flaky = FlakyPublisher(MemoryPublisher())
    async with router_of(flaky) as router:
        flaky.down()
        running = asyncio.create_task(
            StoreReplay(store, router, selection, checkpoint=checkpoint, clock=clock, config=quick()).run()
        )
        await until(lambda: len(flaky.calls) > 0)
        await stop(running)
        flaky.up()
        await clock.advance(7200)
        await fill(store, ["C"])
        report = await StoreReplay(
            store, router, selection, checkpoint=checkpoint, clock=clock, config=quick()
        ).run()
    assert report.delivered == 4
    assert str(report.time_range).startswith("from 2026-01-01T01:00:00+00:00 until before 2026-01-01T02:00:00")


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"selection": ReplaySelection(types=[CREATED])}, "types is [] there, ['AccountCreated'] here"),
        ({"selection": ReplaySelection(start="1 hour ago")}, "start is None there, '1 hour ago' here"),
        ({"selection": ReplaySelection(platform="nats")}, "platform is None there, 'nats' here"),
        ({"name": "other"}, "name is 'first' there, 'other' here"),
    ],
)
async def test_a_checkpoint_of_another_replay_is_refused(other: dict[str, Any], difference: str) -> None:
    store, checkpoint, memory = MemoryEventStore(), MemoryReplayCheckpoint(), MemoryPublisher()
    async with router_of(memory) as router:
        await StoreReplay(store, router, name="first", checkpoint=checkpoint).run()
        with pytest.raises(ReplayError) as raised:
            await StoreReplay(store, router, **other, checkpoint=checkpoint).run()
        assert difference in str(raised.value)
        with pytest.raises(ReplayError, match="another replay"):
            await StoreReplay(store, router, **other, checkpoint=checkpoint).count()


async def test_a_checkpoint_of_another_table_of_that_name_is_refused(
    aws: Settings, dynamo: DynamoClient, dynamodb_store: DynamoDBEventStore
) -> None:
    checkpoint, memory = EveryCheckpoint(), MemoryPublisher()
    await fill(dynamodb_store, ["A"])
    name = dynamodb_store.table.name
    config = EventStoreConfig(table_name=name, **aws)
    async with router_of(memory) as router:
        store = DynamoDBEventStore(config, registry=registry)
        # Which opens it.
        await StoreReplay(store, router, checkpoint=checkpoint, config=quick()).run()
        await store.close()
        async with DynamoDBEventStore(config, registry=registry) as store:
            assert (await StoreReplay(store, router, checkpoint=checkpoint).run()).read == 0
        await dynamo.call("DeleteTable", {"TableName": name}, table=name)
        await dynamo.call("CreateTable", create_request(name, EVENT_STORE), table=name)
        async with DynamoDBEventStore(config, registry=registry) as store:
            replay = StoreReplay(store, router, checkpoint=checkpoint)
            with pytest.raises(ReplayError, match=f"its table was another one of the name '{name}'"):
                await replay.run()
        unsure = EventStoreConfig(table_name=name, verify_table=False, **aws)
        async with DynamoDBEventStore(unsure, registry=registry) as store:
            assert (await StoreReplay(store, router, checkpoint=checkpoint).run()).complete


async def test_a_scan_goes_on_in_the_parts_it_began_with() -> None:
    store, checkpoint, memory = MemoryEventStore(registry=registry), MemoryReplayCheckpoint(), MemoryPublisher()
    await fill(store, [*"ABCDEFG"])
    flaky = FlakyPublisher(memory)
    async with router_of(flaky) as router:
        running = asyncio.create_task(
            StoreReplay(store, router, checkpoint=checkpoint, config=quick(readers=3, max_batch=2)).run()
        )
        await until(lambda: len(memory.events) >= 10)
        await stop(running)
        report = await StoreReplay(store, router, checkpoint=checkpoint, config=quick(readers=5)).run()
    assert report.complete
    assert len(memory.events) == 28


async def test_an_error_of_the_store_ends_it_with_its_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    store, checkpoint, memory = MemoryEventStore(registry=registry), MemoryReplayCheckpoint(), MemoryPublisher()
    await fill(store, ["A"], events=20)
    read, reads = store.table.read, 0

    async def fails_later(*arguments: Any, **options: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads == 3:
            raise StorageUnavailableError("throttled")
        return await read(*arguments, **options)

    monkeypatch.setattr(store.table, "read", fails_later)
    selection = ReplaySelection(aggregate_ids=["A"])
    config = quick(page_size=5)
    async with router_of(memory) as router:
        with pytest.raises(StorageUnavailableError):
            await StoreReplay(store, router, selection, checkpoint=checkpoint, config=config).run()
        await StoreReplay(store, router, selection, checkpoint=checkpoint, config=config).run()
    assert first_deliveries(memory.events) == {"A": [*range(1, 21)]}


# ---------------------------------------------------------------------- files


def state(**fields: Any) -> ReplayState:
    values = {"store": "events", "name": "x", "selection": {"types": ["A"]}, "start": None, "end": None}
    return ReplayState(**{**values, **fields})


async def test_a_file_keeps_what_was_saved(tmp_path: Path) -> None:
    checkpoint = FileReplayCheckpoint(tmp_path / "replay.json")
    assert await checkpoint.load() is None
    first = state(positions={"0": {"AggregateId": {"S": "A"}, "EventSequence": {"N": "3"}}, "1": 7, "types": "x"})
    await checkpoint.save(first)
    assert await FileReplayCheckpoint(checkpoint.path).load() == first
    second = state(end=datetime(2026, 1, 1, tzinfo=UTC), complete=True)
    await checkpoint.save(second)
    assert await checkpoint.load() == second
    assert os.listdir(tmp_path) == ["replay.json"]  # noqa: PTH208 - the loop waits for nobody here


async def test_what_one_who_was_killed_left_is_replaced_and_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("other")
    (tmp_path / ".replay.json.tmp").symlink_to(other)
    checkpoint = FileReplayCheckpoint(tmp_path / "replay.json")
    await checkpoint.save(state())
    assert sorted(os.listdir(tmp_path)) == ["other", "replay.json"]  # noqa: PTH208 - the loop waits for nobody here
    assert other.read_text() == "other"
    assert not checkpoint.path.is_symlink()


@pytest.mark.parametrize("content", ["", "{", "{}", '{"version": 2}', "[1]", '{"store": 1}'])
async def test_a_file_that_is_no_checkpoint_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    path = tmp_path / "orders.json"
    path.write_text(content)
    with pytest.raises(ReplayError, match=r"orders\.json is none of a replay .*; name another file"):
        await FileReplayCheckpoint(path).load()
    assert path.read_text() == content


async def test_a_file_that_cannot_be_written_shows_before_anything_is_published(tmp_path: Path) -> None:
    store, memory = MemoryEventStore(registry=registry), MemoryPublisher()
    await fill(store, ["A"])
    async with router_of(memory) as router:
        for path in (tmp_path / "no" / "such" / "folder.json", tmp_path):
            replay = StoreReplay(store, router, checkpoint=FileReplayCheckpoint(path))
            with pytest.raises(ReplayError, match="cannot be"):
                await replay.run()
    assert memory.events == []


async def test_a_checkpoint_that_cannot_be_kept_any_more_stops_it() -> None:
    class Full(MemoryReplayCheckpoint):
        async def save(self, state: ReplayState) -> None:
            if self.state is not None:
                raise ReplayError("disk full")
            await super().save(state)

    store = MemoryEventStore(registry=registry)
    await fill(store, ["A"], events=90)
    watched = WatchedPublisher()
    async with router_of(watched) as router:
        with pytest.raises(ReplayError, match="disk full"):
            await StoreReplay(store, router, checkpoint=Full(), config=quick(save_interval=0.0001)).run()
    assert len(watched.memory.events) < 90


async def test_a_write_that_fails_leaves_the_file_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = FileReplayCheckpoint(tmp_path / "replay.json")
    await checkpoint.save(state(positions={"A": 1}))

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ReplayError, match=r"cannot be written: No space left on device; name another file"):
        await checkpoint.save(state(positions={"A": 2}))
    assert checkpoint.has_saved
    unsaved = FileReplayCheckpoint(checkpoint.path)
    with pytest.raises(ReplayError):
        await unsaved.save(state())
    assert not unsaved.has_saved
    assert json.loads(checkpoint.path.read_text())["positions"] == {"A": 1}
    assert os.listdir(tmp_path) == ["replay.json"]  # noqa: PTH208 - the loop waits for nobody here


async def test_a_save_that_was_cancelled_does_not_undo_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = FileReplayCheckpoint(tmp_path / "replay.json")
    may_write = threading.Event()
    write: Callable[..., None] = FileReplayCheckpoint._write

    def late(self: FileReplayCheckpoint, state: ReplayState, number: int) -> None:
        if number == 1:
            may_write.wait(5)
        write(self, state, number)

    monkeypatch.setattr(FileReplayCheckpoint, "_write", late)
    first = asyncio.create_task(checkpoint.save(state(positions={"A": 1})))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.wait((first,))
    await checkpoint.save(state(positions={"A": 2}))
    may_write.set()
    await asyncio.to_thread(lambda: None)
    await asyncio.sleep(0.05)
    found = await checkpoint.load()
    assert found is not None
    assert found.positions == {"A": 2}


def test_the_loop_is_not_blocked_by_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    replace = replay_checkpoints._replace
    monkeypatch.setattr(
        replay_checkpoints, "_replace", lambda *given: (threads.append(threading.get_ident()), replace(*given))
    )
    asyncio.run(FileReplayCheckpoint(tmp_path / "x").save(state()))
    assert threads
    assert threading.get_ident() not in threads
    # Only its owner may read it: it names aggregates.
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600
