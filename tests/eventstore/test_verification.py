"""Verification finds what is damaged on purpose, and nothing else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import pytest
from pydantic import BaseModel, Field

from oms_events._aws.dynamodb import DynamoClient
from oms_events.errors import InvalidEventError
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.history import ItemPage, Token
from oms_events.eventstore.inspection import item_checks, verification
from oms_events.eventstore.inspection.item_checks import Identities, Problem, ProblemKind
from oms_events.eventstore.inspection.verification import VerifyReport, verify
from oms_events.eventstore.items import checksum, event_key, marker_key
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.personal.encryption import PersonalDataCipher
from oms_events.eventstore.personal.keys import MemorySubjectKeys
from oms_events.eventstore.personal.marks import Personal
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.schema import event_time, type_shard
from oms_events.eventstore.store import EventStore
from oms_events.testing.clock import ManualClock
from tests.eventstore.accounts import AccountClosed, AccountCreated, deposit, registry
from tests.eventstore.support import dynamodb_event_store
from tests.outbox.support import Settings

Item = dict[str, Any]


async def fill(store: EventStore) -> None:
    """Three histories, of 5, 3 and 1 events; the last two are by commands, of which one had no effect."""
    await store.append("account-1", [AccountCreated(customer_id="c"), deposit()], expected_sequence=0)
    await store.append("account-1", [deposit(1), deposit(2), AccountClosed()], expected_sequence=2)
    created = [AccountCreated(customer_id="c"), deposit(), deposit()]
    await store.append("account-2", created, expected_sequence=0, command_id="open#2")
    await store.append("account#3", [AccountCreated(customer_id="d")], expected_sequence=0, command_id="open")
    await store.append("account#3", [], expected_sequence=1, command_id="nothing")


class Damaged:
    """A filled table, and the ways to damage it."""

    def __init__(self, store: DynamoDBEventStore, dynamo: DynamoClient) -> None:
        self.store = store
        self._dynamo = dynamo

    async def item(self, aggregate_id: str, sequence: int) -> Item:
        found = await self.store.table.get(event_key(aggregate_id, sequence))
        assert found is not None
        return dict(found)

    async def put(self, item: Item) -> None:
        await self._call("PutItem", Item=item)

    async def remove(self, aggregate_id: str, sequence: int) -> None:
        await self._call("DeleteItem", Key=event_key(aggregate_id, sequence))

    async def _call(self, operation: str, **parameters: Any) -> None:
        name = self.store.table.name
        await self._dynamo.call(operation, {"TableName": name, **parameters}, table=name)

    async def move(self, aggregate_id: str, sequence: int, to: str, to_sequence: int) -> None:
        item = await self.item(aggregate_id, sequence)
        await self.remove(aggregate_id, sequence)
        await self.put({**item, **event_key(to, to_sequence)})

    async def verify(self, **options: Any) -> VerifyReport:
        return await quickly(self.store, **options)


async def quickly(store: EventStore, **options: Any) -> VerifyReport:
    """Verifies without waiting for the clock."""
    clock = ManualClock(datetime(2030, 1, 1, tzinfo=UTC))
    running = asyncio.create_task(verify(store, clock=clock, **options))
    while not running.done():
        await asyncio.wait([running], timeout=0.005)
        if clock.sleeping:
            await clock.advance(5)
    return running.result()


def signed(item: Item, **attributes: Any) -> Item:
    """The item with other attributes of its event, as a writer would have stored it."""
    head = orjson.dumps({**orjson.loads(item["CloudEvent"]["S"]), **attributes}).decode()
    aggregate_id, sequence = item["AggregateId"]["S"], int(item["EventSequence"]["N"])
    digest = checksum(aggregate_id, sequence, head, item["Data"]["S"])
    return {**item, "CloudEvent": {"S": head}, "Checksum": {"S": digest}}


def found(report: VerifyReport) -> list[tuple[str, str]]:
    assert sum(report.counts.values()) == len(report.problems)
    return sorted((problem.kind.value, problem.position) for problem in report.problems)


@pytest.fixture
async def damaged(dynamodb_store: DynamoDBEventStore, dynamo: DynamoClient) -> Damaged:
    await fill(dynamodb_store)
    return Damaged(dynamodb_store, dynamo)


# ---------------------------------------------------------------------- whole stores


@pytest.mark.parametrize("segments", [1, 3])
async def test_a_whole_store_is_whole(damaged: Damaged, segments: int) -> None:
    counts: list[int] = []
    report = await damaged.verify(
        segments=segments, registry=registry, index=True, page_size=2, on_items=counts.append
    )
    assert report.problems == []
    assert report.ok
    assert (report.aggregates, report.events, report.markers) == (3, 9, 3)
    assert (report.table, report.aggregate_id, report.unchecked) == (damaged.store.table.name, None, [])
    assert sum(counts) == 12


async def test_a_store_in_memory_is_verified_as_well(memory_store: MemoryEventStore) -> None:
    await fill(memory_store)
    report = await quickly(memory_store, segments=2, registry=registry, index=True)
    assert (report.ok, report.aggregates, report.events, report.markers) == (True, 3, 9, 3)


async def test_an_empty_store_is_whole(dynamodb_store: DynamoDBEventStore) -> None:
    report = await verify(dynamodb_store)
    assert (report.ok, report.aggregates, report.events) == (True, 0, 0)


async def test_what_was_not_looked_at_is_said(memory_store: MemoryEventStore) -> None:
    await fill(memory_store)
    report = await verify(memory_store, markers=False, max_identities=4)
    texts = ("but for 4 events", "the markers of commands", "whether your code can read", "the index by type")
    assert all(text in note for text, note in zip(texts, report.unchecked, strict=True)), report.unchecked
    alone = await verify(memory_store, aggregate_id="account-1", registry=registry, index=True)
    assert ["other aggregates" in note for note in alone.unchecked] == [True]


# ---------------------------------------------------------------------- damages


async def remove_one(damaged: Damaged) -> None:
    await damaged.remove("account-1", 3)


async def remove_two(damaged: Damaged) -> None:
    await damaged.remove("account-1", 2)
    await damaged.remove("account-1", 4)


async def remove_the_beginning(damaged: Damaged) -> None:
    await damaged.remove("account-1", 1)
    await damaged.remove("account-1", 2)


async def remove_the_end_of_a_command(damaged: Damaged) -> None:
    await damaged.remove("account-2", 3)


async def remove_what_a_command_without_effect_was_decided_on(damaged: Damaged) -> None:
    await damaged.remove("account#3", 1)


async def change_the_data(damaged: Damaged) -> None:
    item = await damaged.item("account-1", 2)
    await damaged.put({**item, "Data": {"S": item["Data"]["S"].replace("10", "99")}})


async def change_an_attribute(damaged: Damaged) -> None:
    item = await damaged.item("account-1", 2)
    await damaged.put({**item, "CloudEvent": {"S": item["CloudEvent"]["S"].replace("event-store", "other")}})


async def drop_the_checksum(damaged: Damaged) -> None:
    item = await damaged.item("account-1", 2)
    del item["Checksum"]
    await damaged.put(item)


async def move_behind_another_history(damaged: Damaged) -> None:
    await damaged.move("account-1", 2, "account-2", 9)


async def move_over_another(damaged: Damaged) -> None:
    await damaged.move("account-1", 5, "account-2", 2)


async def copy_to_position_zero(damaged: Damaged) -> None:
    item = await damaged.item("account-1", 1)
    key = {**event_key("account-1", 0), "EventTime": {"S": item["EventTime"]["S"][:-1] + "0"}}
    await damaged.put(signed({**item, **key}, sequence="0000000000000000", id="x"))


async def use_an_id_twice(damaged: Damaged) -> None:
    first = orjson.loads((await damaged.item("account-1", 2))["CloudEvent"]["S"])
    await damaged.put(signed(await damaged.item("account-2", 3), id=first["id"]))


async def use_an_id_twice_in_one_history(damaged: Damaged) -> None:
    first = orjson.loads((await damaged.item("account-1", 5))["CloudEvent"]["S"])
    await damaged.put(signed(await damaged.item("account-1", 1), id=first["id"]))


async def take_it_out_of_the_index(damaged: Damaged) -> None:
    item = await damaged.item("account-1", 2)
    del item["EventTypeShard"]
    await damaged.put(item)


async def give_it_another_time_in_the_index(damaged: Damaged) -> None:
    item = await damaged.item("account-1", 2)
    await damaged.put({**item, "EventTime": {"S": event_time(datetime(2020, 1, 1, tzinfo=UTC), "account-1", 2)}})


async def give_it_another_version(damaged: Damaged) -> None:
    item = await damaged.item("account-1", 2)
    await damaged.put({**item, "SchemaVersion": {"N": "1"}})


async def break_the_event(damaged: Damaged) -> None:
    item = await damaged.item("account-1", 2)
    await damaged.put({**item, "CloudEvent": {"S": "{"}})


async def take_the_subject(damaged: Damaged) -> None:
    item = await damaged.item("account-1", 2)
    await damaged.put({**item, "CloudEvent": {"S": item["CloudEvent"]["S"].replace("subject", "object")}})


async def drop_the_data(damaged: Damaged) -> None:
    item = await damaged.item("account-1", 2)
    del item["Data"]
    await damaged.put(item)


async def store_what_is_no_json(damaged: Damaged) -> None:
    await damaged.put(signed({**await damaged.item("account-1", 2), "Data": {"S": "{"}}))


async def put_something_else(damaged: Damaged) -> None:
    await damaged.put({**event_key("settings", 1), "Theme": {"S": "dark"}})


async def break_a_marker(damaged: Damaged) -> None:
    await damaged.put({**event_key("command#9#x", 0), "FirstSequence": {"N": "1"}})


DAMAGES = [
    (remove_one, [("gap", "account-1@3")]),
    (remove_two, [("gap", "account-1@2"), ("gap", "account-1@4")]),
    (remove_the_beginning, [("beginning_missing", "account-1@1")]),
    (remove_the_end_of_a_command, [("marker", "account-2@3")]),
    (
        remove_what_a_command_without_effect_was_decided_on,
        # Both commands say that there was one.
        [("marker", "account#3@1"), ("marker", "account#3@1")],
    ),
    (change_the_data, [("checksum", "account-1@2")]),
    (change_an_attribute, [("checksum", "account-1@2")]),
    (drop_the_checksum, [("checksum", "account-1@2")]),
    (move_behind_another_history, [("gap", "account-1@2"), ("misplaced", "account-2@9")]),
    (move_over_another, [("gap", "account-2@2"), ("misplaced", "account-2@2")]),
    (copy_to_position_zero, [("misplaced", "account-1@0")]),
    (use_an_id_twice, [("duplicate", "account-1@2")]),
    (use_an_id_twice_in_one_history, [("duplicate", "account-1@1")]),
    (take_it_out_of_the_index, [("keys", "account-1@2")]),
    (give_it_another_time_in_the_index, [("keys", "account-1@2")]),
    (give_it_another_version, [("keys", "account-1@2")]),
    (break_the_event, [("unreadable", "account-1@2")]),
    (take_the_subject, [("unreadable", "account-1@2")]),
    (drop_the_data, [("unreadable", "account-1@2")]),
    (store_what_is_no_json, [("unreadable", "account-1@2")]),
    (put_something_else, [("unreadable", "settings@1")]),
    (break_a_marker, [("unreadable", "command#9#x@0")]),
]


SAID = {
    remove_one: "event 3 is missing",
    remove_the_beginning: "events 1 to 2 are missing: the history begins with event 3",
    remove_the_end_of_a_command: "command 'open#2' led to the events 1 to 3: the history's end is missing",
    move_over_another: "its event says that it is account-1@5: it was moved or copied here",
    use_an_id_twice: "is also at account-2@3: consumers drop all but one",
    give_it_another_version: "SchemaVersion is 1, not '2'",
    take_it_out_of_the_index: "EventTypeShard is None, not 'TransactionProcessed#",
    take_the_subject: "its event has no attribute 'subject'",
    drop_the_checksum: "it has no checksum",
    drop_the_data: "the item has no 'Data'",
}


@pytest.mark.parametrize(("damage", "expected"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
async def test_each_damage_is_found_and_nothing_else(
    damaged: Damaged, damage: Callable[[Damaged], Awaitable[None]], expected: Sequence[tuple[str, str]]
) -> None:
    await damage(damaged)
    report = await damaged.verify(segments=2)
    assert found(report) == expected
    assert not report.ok
    assert any(SAID.get(damage, "") in problem.text for problem in report.problems), report.problems


async def test_one_aggregate_is_verified_alone(damaged: Damaged) -> None:
    await remove_one(damaged)
    await use_an_id_twice_in_one_history(damaged)
    await copy_to_position_zero(damaged)
    report = await damaged.verify(aggregate_id="account-1", page_size=1)
    assert found(report) == [("duplicate", "account-1@1"), ("gap", "account-1@3"), ("misplaced", "account-1@0")]
    assert (report.aggregates, report.events, report.aggregate_id) == (1, 5, "account-1")
    other = await damaged.verify(aggregate_id="account-2")
    assert (other.ok, other.events) == (True, 3)
    unknown = await damaged.verify(aggregate_id="account-9")
    assert (unknown.ok, unknown.aggregates, unknown.events) == (True, 0, 0)
    with pytest.raises(InvalidEventError):
        await damaged.verify(aggregate_id="")


async def test_with_a_registry_it_says_what_this_code_cannot_read(damaged: Damaged) -> None:
    older = EventRegistry()
    older.event(AccountCreated)
    older.event(type="TransactionProcessed", version=1)(AccountClosed)
    report = await damaged.verify(registry=older)
    assert report.counts == {ProblemKind.UNSUPPORTED: 6}
    texts = {problem.text for problem in report.problems}
    assert any("TransactionProcessed version 2 is newer than this code" in text for text in texts)
    assert any("'AccountClosed' is not registered" in text for text in texts)


async def test_an_index_that_lost_an_entry_is_found(memory_store: MemoryEventStore) -> None:
    await fill(memory_store)
    shard = type_shard("AccountClosed", "account-1")
    memory_store.table._shards[shard].clear()
    report = await quickly(memory_store, index=True)
    assert found(report) == [("index", shard)]
    assert "the index by type has 0 entries, the table 1 events" in report.problems[0].text
    assert (await quickly(memory_store)).ok


async def test_events_of_the_last_minute_are_not_expected_in_the_index(memory_store: MemoryEventStore) -> None:
    await fill(memory_store)
    memory_store.table._shards.clear()
    assert (await verify(memory_store, index=True)).ok


# ---------------------------------------------------------------------- how it reads


class Paged:
    """A table whose pages of a history hold one item; `reads` are those of histories."""

    def __init__(self, store: EventStore) -> None:
        self._table = store.table
        self.reads: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    async def read(self, aggregate_id: str, **options: Any) -> ItemPage:
        self.reads.append(aggregate_id)
        return await self._table.read(aggregate_id, **{**options, "limit": 1})


async def test_a_gap_that_is_full_of_moved_events_is_read_to_its_end(damaged: Damaged) -> None:
    for number in range(1, 4):
        await damaged.put({**await damaged.item("account-2", number), **event_key("account-1", number + 1)})
    damaged.store.table = Paged(damaged.store)  # type: ignore[assignment]
    async with asyncio.timeout(10):
        report = await damaged.verify(aggregate_id="account-1")
    misplaced = [("misplaced", f"account-1@{number}") for number in range(2, 5)]
    assert found(report) == [("gap", "account-1@2"), *misplaced]
    assert "events 2 to 4 are missing" in [problem.text for problem in report.problems]


async def test_a_whole_history_that_comes_in_another_order_is_not_looked_at_again(
    dynamodb_store: DynamoDBEventStore, dynamo: DynamoClient
) -> None:
    """The emulator gives 1, 10, 11, 2."""
    for aggregate_id in ("account-1", "account-11"):
        await dynamodb_store.append(aggregate_id, [deposit() for _ in range(12)], expected_sequence=0)
    table = Paged(dynamodb_store)
    dynamodb_store.table = table  # type: ignore[assignment]
    async with asyncio.timeout(10):
        # Nobody advances the clock: it does not wait for anything.
        assert (await verify(dynamodb_store, clock=ManualClock(datetime(2030, 1, 1, tzinfo=UTC)))).ok
    assert table.reads == []
    await Damaged(dynamodb_store, dynamo).remove("account-11", 3)
    report = await quickly(dynamodb_store)
    assert (found(report), report.aggregates) == ([("gap", "account-11@3")], 2)
    assert set(table.reads) == {"account-11"}


# ---------------------------------------------------------------------- live stores


class Blinking:
    """A table of which a scan sees parts of transactions: what is `hidden` appears when looked for again."""

    def __init__(self, store: MemoryEventStore, *hidden: tuple[str, int]) -> None:
        self._table = store.table
        self._hidden = [event_key(*place) for place in hidden]
        self.name = store.table.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    async def scan(self, **options: Token | int | None) -> ItemPage:
        page = await self._table.scan(**options)  # type: ignore[arg-type]
        seen = [item for item in page.items if not any(key.items() <= item.items() for key in self._hidden)]
        return page._replace(items=seen)

    async def get(self, key: Item) -> Any:
        if key in self._hidden:
            self._hidden.remove(key)
            return None
        return await self._table.get(key)


async def test_what_a_scan_missed_of_a_transaction_is_no_gap(memory_store: MemoryEventStore) -> None:
    await fill(memory_store)
    memory_store.table = Blinking(memory_store, ("account-1", 3), ("account-2", 3))  # type: ignore[assignment]
    report = await quickly(memory_store)
    assert (report.problems, report.events) == ([], 7)


async def test_what_is_missing_is_looked_for_again_a_second_later(memory_store: MemoryEventStore) -> None:
    await fill(memory_store)
    clock = ManualClock(datetime(2030, 1, 1, tzinfo=UTC))
    whole = memory_store.table._aggregates["account-1"]
    memory_store.table._aggregates["account-1"] = {n: item for n, item in whole.items() if n != 3}
    running = asyncio.create_task(verify(memory_store, clock=clock))
    await clock.someone_sleeps()
    assert clock.sleeping == [1.0]
    memory_store.table._aggregates["account-1"] = whole
    await clock.advance(1)
    assert (await running).ok


async def test_a_store_that_grows_meanwhile_is_whole(dynamodb_store: DynamoDBEventStore) -> None:
    await fill(dynamodb_store)

    async def write(aggregate_id: str) -> None:
        for sequence in range(12):
            await dynamodb_store.append(
                aggregate_id, [deposit()], expected_sequence=sequence, command_id=str(sequence)
            )

    writing = asyncio.gather(*(write(f"new-{number}") for number in range(4)))
    reports = []
    while not writing.done():
        reports.append(await verify(dynamodb_store, page_size=3, segments=2))
    await writing
    assert reports
    assert [problem for report in reports for problem in report.problems] == []


# ---------------------------------------------------------------------- bounds


async def test_problems_are_counted_all_and_named_up_to_a_limit(memory_store: MemoryEventStore) -> None:
    rng = random.Random(1)
    for number in range(1100):
        item = {**event_key(f"other-{number}", rng.randint(1, 9)), "Theme": {"S": "dark"}}
        memory_store.table.apply({"Put": {"Item": item}})
    report = await quickly(memory_store)
    assert report.counts[ProblemKind.UNREADABLE] == 1100
    assert len(report.problems) == 1000


def test_identities_tell_those_that_came_twice_and_take_so_many_only() -> None:
    identities = Identities(limit=2000)
    for number in [*range(1500), *range(0, 1000, 250), *range(9000, 9999)]:
        identities.add(("shop", str(number)))
    assert (identities.count, identities.is_full) == (2000, True)
    assert sum(map(len, identities.repeated())) == 4
    assert sum(map(len, identities.repeated())) == 0


async def test_ids_that_only_look_alike_are_no_duplicates(
    memory_store: MemoryEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (item_checks, verification):
        monkeypatch.setattr(module, "digest_of", lambda identity: len(identity))
    await fill(memory_store)
    assert (await verify(memory_store)).ok


async def test_the_sequence_of_a_marker_is_looked_at(damaged: Damaged) -> None:
    item = await damaged.store.table.get(marker_key("account-2", "open#2"))
    assert item is not None
    await damaged.put({**item, "EventSequence": {"N": "4"}})
    report = await damaged.verify()
    [problem] = report.problems
    assert problem == Problem(
        ProblemKind.UNREADABLE, "command#9#account-2#open#2@4", "a command's marker has sequence 0"
    )


async def test_it_needs_no_outbox_and_no_own_table_name(aws: Settings, dynamo: DynamoClient) -> None:
    async with dynamodb_event_store(aws, dynamo, registry=EventRegistry()) as store:
        await Damaged(store, dynamo).put({**event_key("settings", 1)})
        assert found(await verify(store)) == [("unreadable", "settings@1")]


# ---------------------------------------------------------------------- personal data


async def test_personal_data_is_read_as_forgotten_without_keys_and_with_them_by_the_cipher() -> None:
    private = EventRegistry()

    @private.event
    class Named(BaseModel):
        name: Annotated[str, Personal(forgotten="somebody")]
        size: int = 1

    keys = MemorySubjectKeys()
    cipher = PersonalDataCipher(keys)
    store = MemoryEventStore(registry=private, cipher=cipher)
    await store.append("account-1", [Named(name="Ann"), Named(name="Bob")], expected_sequence=0)
    assert (await verify(store, registry=private)).ok
    store.cipher = None
    assert (await verify(store, registry=private)).ok
    [item, _] = store.table._aggregates["account-1"].values()
    assert "Ann" not in item["Data"]["S"]

    stricter = EventRegistry()

    @stricter.event(type="Named")
    class Sized(BaseModel):
        name: str
        size: int = Field(gt=1)

    report = await verify(store, registry=stricter)
    assert found(report) == [("unsupported", "account-1@1"), ("unsupported", "account-1@2")]
    assert "size" in report.problems[0].text
