"""What operators do: looking, requeueing, purging and replanning, over memory and a table of DynamoDB."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from oms_events import build_event
from oms_events._aws.dynamodb import DynamoClient
from oms_events.errors import (
    ConfigurationError,
    InvalidEventError,
    StorageDeniedError,
    StorageOutcomeUnknownError,
    StorageUnavailableError,
)
from oms_events.outbox.admin import OutboxAdmin
from oms_events.outbox.config import WriterConfig
from oms_events.outbox.filters import OutboxFilter, record_id
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.outbox import DynamoDBOutbox, MemoryOutbox, Outbox
from oms_events.outbox.records import (
    UNDECIDED,
    UNREADABLE,
    UNROUTABLE,
    Bucket,
    Coordination,
    Count,
    DeadLetter,
    Lease,
    Member,
    NewRecord,
    Partition,
    PlatformState,
    RecordState,
    StoredRecord,
)
from oms_events.outbox.schema import RECORD_LIMIT
from oms_events.outbox.store import DeadPage
from oms_events.publishing import Plan
from oms_events.testing import ManualClock
from tests.outbox.dead import BOTH, DEAD, DELIVERED, HELD, NOON, add, bury, hold, letter_of
from tests.outbox.support import Settings, fresh_table

BACKED = Plan("orders", "failover", ("nats", "eventbridge"), first_that_works=True)


@pytest.fixture(params=["memory", "dynamodb"])
async def outbox(request: pytest.FixtureRequest, aws: Settings, dynamo: DynamoClient) -> AsyncIterator[Outbox]:
    if request.param == "memory":
        async with MemoryOutbox(WriterConfig(buckets=4)) as memory:
            yield memory
        return
    async with fresh_table(aws, dynamo, buckets=4) as config, DynamoDBOutbox(config) as table:
        yield table


@pytest.fixture
def admin(outbox: Outbox) -> OutboxAdmin:
    return OutboxAdmin(outbox)


async def letters(admin: OutboxAdmin, where: OutboxFilter = OutboxFilter()) -> list[str]:  # noqa: B008
    return [letter.id async for letter in admin.letters(where)]


async def records(admin: OutboxAdmin, where: OutboxFilter = OutboxFilter()) -> list[StoredRecord]:  # noqa: B008
    return [record async for record in admin.records(where)]


# ---------------------------------------------------------------------- looking


async def test_letters_come_in_the_order_of_their_ids_and_go_on_after_one(
    outbox: Outbox, admin: OutboxAdmin
) -> None:
    ids = sorted([(await bury(outbox, number)).id for number in range(5)])
    assert await letters(admin) == ids
    assert [letter.id async for letter in admin.letters(after=ids[2])] == ids[3:]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (OutboxFilter(), {"e-1", "e-2", "e-3"}),
        (OutboxFilter(platform="nats"), {"e-1", "e-2"}),
        (OutboxFilter(platform="nat"), set()),
        (OutboxFilter(event_type="shop.order.placed"), {"e-1", "e-3"}),
        (OutboxFilter(event_type="shop.order"), set()),
        (OutboxFilter(event_type=re.compile(r"shop\..*\.paid")), {"e-2"}),
        (OutboxFilter(event_type=re.compile(r"shop\.order")), set()),
        (OutboxFilter(key="B"), {"e-3"}),
        (OutboxFilter(event_id="e-2"), {"e-2"}),
        (OutboxFilter(event_id="e-2@/shop"), {"e-2"}),
        (OutboxFilter(since=NOON + timedelta(hours=1)), {"e-2"}),
        (OutboxFilter(until=NOON + timedelta(hours=1)), {"e-1", "e-3"}),
        (OutboxFilter(platform="nats", key="B"), set()),
    ],
)
async def test_a_filter_takes_what_agrees_with_all_of_its_fields(where: OutboxFilter, expected: set[str]) -> None:
    async with MemoryOutbox() as outbox:
        await bury(outbox, 1)
        paid = letter_of(
            await add(outbox, 2, kind="shop.order.paid"), failed=int(NOON.timestamp() * 1000) + 3_600_000
        )
        assert await outbox.store.bury(paid, None)
        await bury(outbox, 3, key="B", platform="eventbridge")
        found = [letter async for letter in OutboxAdmin(outbox).letters(where)]
        assert {letter.event.id for letter in found if letter.event} == expected


async def test_a_filter_refuses_a_time_without_a_zone() -> None:
    with pytest.raises(ConfigurationError, match=r"since = 2026-01-01T00:00:00 has no time zone"):
        OutboxFilter(since=datetime(2026, 1, 1))  # noqa: DTZ001


async def test_records_are_found_in_all_partitions_and_go_on_after_one(outbox: Outbox, admin: OutboxAdmin) -> None:
    keys = ["A", "B", "C", "D", None, None, "A", "B"]
    added = [await add(outbox, number, key=key) for number, key in enumerate(keys)]
    found = await records(admin)
    assert {record_id(record) for record in found} == {record_id(record) for record in added}
    of_a = [record.event.id for record in found if record.key == "A" and record.event is not None]
    assert of_a == ["e-0", "e-6"]
    for at, record in enumerate(found):
        rest = [record_id(one) async for one in admin.records(after=record_id(record))]
        assert rest == [record_id(one) for one in found[at + 1 :]]


async def test_a_pending_record_is_of_the_platforms_of_its_recorded_plan_that_lack_it(
    outbox: Outbox, admin: OutboxAdmin
) -> None:
    record = await add(outbox)
    assert await records(admin, OutboxFilter(platform="nats")) == []
    state = RecordState(plan=BOTH, states={"nats": DELIVERED}, attempts=1)
    assert await outbox.store.update(record.partition, record.sk, state)
    assert await records(admin, OutboxFilter(platform="nats")) == []
    assert len(await records(admin, OutboxFilter(platform="eventbridge"))) == 1


async def test_records_after_something_else_are_refused(admin: OutboxAdmin) -> None:
    with pytest.raises(InvalidEventError, match="'nats#1' is no id of a pending record"):
        [record async for record in admin.records(after="nats#1")]


async def test_one_is_found_by_its_id_and_all_by_the_event(outbox: Outbox, admin: OutboxAdmin) -> None:
    record = await add(outbox, 1)
    other = await add(outbox, 12)
    first, second = letter_of(record), letter_of(record, platform="eventbridge")
    for letter in (first, second):
        assert await outbox.store.bury(letter, RecordState(plan=BOTH, states={letter.platform: DEAD}))
    assert [one.id for one in await admin.find(first.id) if isinstance(one, DeadLetter)] == [first.id]
    assert [record_id(one) for one in await admin.find(record_id(other)) if isinstance(one, StoredRecord)] == [
        record_id(other)
    ]
    for name in ("e-1", "e-1@/shop"):
        kinds = [type(one) for one in await admin.find(name)]
        assert kinds == [DeadLetter, DeadLetter, StoredRecord]
    assert list(await admin.find("e-2")) == []
    assert list(await admin.find(first.id + "0")) == []
    assert list(await admin.find("k#0001#0000#00000000000000009999")) == []


# ---------------------------------------------------------------------- requeue


async def test_a_requeued_letter_is_a_new_record_for_the_platforms_that_refused_it(
    outbox: Outbox, admin: OutboxAdmin
) -> None:
    letter = await bury(outbox, history=({"platform": "nats", "code": "older"},))
    later = await add(outbox, 2)
    heard: list[object] = []
    outbox.subscribe(heard.append)
    selection = await admin.select()
    changes = await admin.requeue(selection)
    assert (changes.done, changes.gone, dict(changes.failed)) == (1, 0, {})
    assert await letters(admin) == []
    first, again = await records(admin)
    assert record_id(first) == record_id(later)
    assert again.sk > later.sk
    assert (again.partition, again.key) == (letter.origin, "A")
    assert again.event is not None
    assert letter.event is not None
    assert again.event.json == letter.event.json
    assert again.state == RecordState(plan=Plan("orders", "all", ("nats",), first_that_works=False))
    older, newest = again.history
    assert older["code"] == "older"
    assert (newest["platform"], newest["code"], newest["reason"]) == ("nats", "too_large", "it is too large")
    assert heard == []


async def test_a_requeued_failover_letter_keeps_its_strategy(outbox: Outbox, admin: OutboxAdmin) -> None:
    await bury(outbox, platform="eventbridge", platforms=("nats", "eventbridge"), plan=BACKED)
    await admin.requeue(await admin.select())
    (record,) = await records(admin)
    assert record.state.plan == BACKED


async def test_a_requeued_unroutable_letter_is_decided_anew(outbox: Outbox, admin: OutboxAdmin) -> None:
    await bury(outbox, platform=UNROUTABLE, plan=None)
    await admin.requeue(await admin.select())
    (record,) = await records(admin)
    assert record.state == RecordState()


async def test_the_key_of_a_requeued_event_is_the_recorded_one() -> None:
    """Also where nobody has the function that gave it, as in the command line."""
    config = WriterConfig(key_of=lambda event: "from the function")
    writer = MemoryOutbox(config)
    async with writer:
        await writer.add(build_event("shop.order.placed", "/shop", id="e-1"))
        (record,) = await records(OutboxAdmin(writer))
        assert await writer.store.bury(letter_of(record), None)
        async with Outbox(writer.store, WriterConfig()) as bare:
            await OutboxAdmin(bare).requeue(await OutboxAdmin(bare).select())
            (again,) = await records(OutboxAdmin(bare))
    assert (again.key, again.partition) == ("from the function", record.partition)


async def test_a_held_letter_frees_its_record_in_its_place(outbox: Outbox, admin: OutboxAdmin) -> None:
    letter = await hold(outbox)
    assert (await admin.requeue(await admin.select())).done == 1
    assert await letters(admin) == []
    (record,) = await records(admin)
    assert (record.partition, record.sk) == (letter.origin, letter.origin_sk)
    assert record.state.states == {"eventbridge": DELIVERED}
    assert record.state.generation == 1


async def test_a_held_letter_whose_record_is_gone_becomes_a_new_one(outbox: Outbox, admin: OutboxAdmin) -> None:
    letter = await hold(outbox)
    await outbox.store.remove(letter.origin, [letter.origin_sk])
    assert (await admin.requeue(await admin.select())).done == 1
    (record,) = await records(admin)
    assert record.sk > letter.origin_sk
    assert record.state.plan == Plan("orders", "all", ("nats",), first_that_works=False)


@pytest.mark.parametrize("held", [False, True])
async def test_requeued_twice_at_once_it_is_there_once(outbox: Outbox, admin: OutboxAdmin, held: bool) -> None:
    for number in range(6):
        await (hold(outbox, number) if held else bury(outbox, number))
    selection = await admin.select()
    first, second = await asyncio.gather(admin.requeue(selection), OutboxAdmin(outbox).requeue(selection))
    assert first.done + second.done == 6
    assert first.gone + second.gone == 6
    assert len(await records(admin)) == 6
    assert await letters(admin) == []


async def test_requeue_of_many_keeps_the_order_of_each_key(outbox: Outbox, admin: OutboxAdmin) -> None:
    for number in range(40):
        await bury(outbox, number, key=f"key {number % 7}")
    done: list[int] = []
    assert (await admin.requeue(await admin.select(), on_done=done.append)).done == 40
    assert sum(done) == 40
    by_key: dict[str | None, list[int]] = {}
    for record in await records(admin):
        assert record.event is not None
        by_key.setdefault(record.key, []).append(record.event.data["number"])
    assert len(by_key) == 7
    assert all(numbers == sorted(numbers) for numbers in by_key.values())


async def test_what_dies_again_meanwhile_is_left_for_another_time(outbox: Outbox, admin: OutboxAdmin) -> None:
    await bury(outbox, 1)
    selection = await admin.select()
    await bury(outbox, 2)
    assert (await admin.requeue(selection)).done == 1
    (left,) = [letter async for letter in admin.letters()]
    assert left.event is not None
    assert left.event.id == "e-2"


async def test_a_letter_that_cannot_be_read_is_not_requeued(outbox: Outbox, admin: OutboxAdmin) -> None:
    letter = await bury(outbox, platform=UNREADABLE, event=None, raw={"pk": {"S": "k"}}, plan=None)
    changes = await admin.requeue(await admin.select())
    assert changes.done == changes.gone == 0
    assert "purge it" in changes.failed[letter.id]
    assert await letters(admin) == [letter.id]
    assert (await admin.purge(await admin.select())).done == 1
    assert await letters(admin) == []


async def test_the_history_of_an_event_outlives_each_requeue_of_its_held_record(
    outbox: Outbox, admin: OutboxAdmin
) -> None:
    letter = await hold(outbox)
    for times in (1, 2):
        assert (await admin.requeue(await admin.select())).done == 1
        (record,) = await records(admin)
        history = (*record.history, {"code": f"refused {times}"})
        again = letter_of(record, held=True, failed=letter.failed + times, history=history, code=f"code {times}")
        assert await outbox.store.bury(again, replace(record.state, states={**record.state.states, "nats": HELD}))
    (found,) = [one async for one in admin.letters()]
    assert [entry["code"] for entry in found.history] == ["too_large", "refused 1", "code 1", "refused 2"]


async def test_an_event_near_the_size_limit_can_be_requeued(outbox: Outbox, admin: OutboxAdmin) -> None:
    large = "x" * (RECORD_LIMIT - 1000)
    await outbox.add(build_event("shop.order.placed", "/shop", large, id="e-1", partitionkey="A"))
    (record,) = await records(admin)
    letter = letter_of(record, history=({"error": "x" * 2000},))
    assert await outbox.store.bury(letter, None)
    changes = await admin.requeue(await admin.select())
    assert (changes.done, dict(changes.failed)) == (1, {})
    assert len(await records(admin)) == 1


async def damage(dynamo: DynamoClient, table: str, letter: DeadLetter) -> None:
    """Makes a dead letter one of another format."""
    update = {
        "TableName": table,
        "Key": {"pk": {"S": "dead"}, "sk": {"S": letter.id}},
        "UpdateExpression": "SET v = :v",
        "ExpressionAttributeValues": {":v": {"N": "2"}},
    }
    await dynamo.call("UpdateItem", update, table=table)


async def test_a_letter_of_another_format_is_shown_and_purged_but_not_requeued(
    aws: Settings, dynamo: DynamoClient
) -> None:
    async with fresh_table(aws, dynamo, buckets=4) as config, DynamoDBOutbox(config) as outbox:
        admin = OutboxAdmin(outbox)
        bad, good, held = await bury(outbox, 1), await bury(outbox, 2), await hold(outbox, 3)
        for letter in (bad, held):
            await damage(dynamo, config.table_name, letter)
        (found,) = await admin.find(bad.id)
        assert isinstance(found, DeadLetter)
        assert "format 2" in (found.problem or "")
        status = await admin.status()
        assert [one.count for one in status.dead_letters or ()] == [3]
        changes = await admin.requeue(await admin.select())
        assert changes.done == 1
        assert changes.failed.keys() == {bad.id, held.id}
        assert "cannot be requeued: the dead letter has format 2" in changes.failed[bad.id]
        assert (await admin.purge(await admin.select())).done == 2
        assert await letters(admin) == []
        assert good.id != bad.id
        (record,) = [record for record in await records(admin) if record.sk == held.origin_sk]
        assert record.state.states["nats"] == DEAD


# ---------------------------------------------------------------------- bury


async def test_a_pending_record_is_given_up_for_the_platforms_that_are_owed_it(
    outbox: Outbox, admin: OutboxAdmin
) -> None:
    record = await add(outbox, 1)
    state = RecordState(BOTH, {"nats": DELIVERED}, attempts=4, last_error="eventbridge: denied: not allowed")
    assert await outbox.store.update(record.partition, record.sk, state)
    selection = await admin.select_pending(ids=[record_id(record)])
    (group,) = selection.groups
    assert (group.platform, group.code, group.text) == (
        "eventbridge",
        "orders",
        "eventbridge: denied: not allowed",
    )
    changes = await admin.bury(selection, "the shop is closed")
    assert (changes.done, dict(changes.failed)) == (1, {})
    assert await records(admin) == []
    (letter,) = [one async for one in admin.letters()]
    assert (letter.platforms, letter.code, letter.reason) == (("eventbridge",), "given_up", "the shop is closed")
    assert (letter.attempts, letter.held, letter.plan) == (4, False, BOTH)
    assert letter.history[-1]["last_error"] == "eventbridge: denied: not allowed"
    assert (await admin.requeue(await admin.select())).done == 1
    (again,) = await records(admin)
    assert again.state.plan == Plan("orders", "all", ("eventbridge",), first_that_works=False)


async def test_a_record_without_a_plan_is_given_up_whole_and_decided_anew_when_it_is_requeued(
    outbox: Outbox, admin: OutboxAdmin
) -> None:
    await add(outbox, 1)
    assert (await admin.bury(await admin.select_pending(), "no")).done == 1
    (letter,) = [one async for one in admin.letters()]
    assert (letter.platform, letter.plan) == (UNDECIDED, None)
    assert await records(admin) == []
    assert (await admin.requeue(await admin.select())).done == 1
    (again,) = await records(admin)
    assert again.state == RecordState()


async def test_a_failover_record_is_given_up_for_all_its_platforms(outbox: Outbox, admin: OutboxAdmin) -> None:
    record = await add(outbox, 1)
    state = RecordState(BACKED, {"nats": PlatformState.REJECTED}, attempts=1)
    assert await outbox.store.update(record.partition, record.sk, state)
    assert (await admin.bury(await admin.select_pending(), "no")).done == 1
    (letter,) = [one async for one in admin.letters()]
    assert letter.platforms == ("nats", "eventbridge")
    assert await records(admin) == []


async def test_what_only_waits_for_its_dead_letter_is_not_given_up(outbox: Outbox, admin: OutboxAdmin) -> None:
    held = await hold(outbox)
    changes = await admin.bury(await admin.select_pending(), "no")
    (reason,) = changes.failed.values()
    assert (changes.done, "requeue or purge that one" in reason) == (0, True)
    assert await letters(admin) == [held.id]
    assert len(await records(admin)) == 1


async def test_a_record_that_another_generation_owns_is_not_given_up(outbox: Outbox, admin: OutboxAdmin) -> None:
    record = await add(outbox, 1)
    assert await outbox.store.update(record.partition, record.sk, RecordState(BOTH, {}, attempts=1))
    selection = await admin.select_pending()
    assert await outbox.store.forget_plan(record.partition, record.sk, generation=0)
    changes = await admin.bury(selection, "no")
    assert (changes.done, changes.gone, len(await records(admin))) == (0, 1, 1)
    assert await letters(admin) == []


# ---------------------------------------------------------------------- select


async def test_a_selection_counts_by_platform_and_code_and_names_what_is_missing(
    outbox: Outbox, admin: OutboxAdmin
) -> None:
    for number in range(3):
        await bury(outbox, number)
    other = await bury(outbox, 9, platform="eventbridge", code="denied", reason="no")
    selection = await admin.select()
    found = [(group.platform, group.code, group.text, group.count) for group in selection.groups]
    assert found == [("nats", "too_large", "it is too large", 3), ("eventbridge", "denied", "no", 1)]
    named = await admin.select(ids=[other.id, "e-1", "nothing", "nats#0#k#1#1#1"])
    assert {chosen.id for chosen in named.chosen} == {other.id, (await letters(admin))[2]} or len(
        named.chosen
    ) == 2
    assert named.missing == ("nats#0#k#1#1#1", "nothing")
    both = await admin.select(OutboxFilter(platform="nats"), ids=[other.id, "e-1"])
    assert len(both.chosen) == 1


# ---------------------------------------------------------------------- purge


async def test_purge_removes_and_lets_a_held_key_go_on(outbox: Outbox, admin: OutboxAdmin) -> None:
    await bury(outbox, 1)
    held = await hold(outbox, 2)
    changes = await admin.purge(await admin.select())
    assert (changes.done, changes.gone) == (2, 0)
    assert await letters(admin) == []
    (record,) = await records(admin)
    assert (record.sk, record.state.states["nats"]) == (held.origin_sk, DEAD)


async def test_a_purge_after_another_is_already_gone(outbox: Outbox, admin: OutboxAdmin) -> None:
    await bury(outbox)
    selection = await admin.select()
    assert (await admin.purge(selection)).done == 1
    again = await admin.purge(selection)
    assert (again.done, again.gone) == (0, 1)


# ---------------------------------------------------------------------- replan


async def test_replan_forgets_the_plan_and_keeps_what_was_delivered(outbox: Outbox, admin: OutboxAdmin) -> None:
    planned, _unplanned = await add(outbox, 1), await add(outbox, 2)
    state = RecordState(plan=BOTH, states={"nats": DELIVERED}, attempts=3)
    assert await outbox.store.update(planned.partition, planned.sk, state)
    selection = await admin.select_planned()
    (group,) = selection.groups
    assert (group.platform, group.code, group.text, group.count) == ("nats, eventbridge", "orders", "all", 1)
    assert (await admin.replan(selection)).done == 1
    (found,) = await outbox.store.probe(planned.partition, [planned.sk])
    assert found.state.plan is None
    assert found.state.states == {"nats": DELIVERED}
    assert found.state.generation == 1
    again = await admin.replan(selection)
    assert (again.done, again.gone) == (0, 1)


async def test_replan_takes_records_by_id_and_by_event(outbox: Outbox, admin: OutboxAdmin) -> None:
    added = [await add(outbox, number) for number in range(3)]
    for record in added:
        assert await outbox.store.update(record.partition, record.sk, RecordState(plan=BOTH, attempts=1))
    selection = await admin.select_planned(ids=[record_id(added[0]), "e-2", "e-9"])
    assert {chosen.id for chosen in selection.chosen} == {record_id(added[0]), record_id(added[2])}
    assert selection.missing == ("e-9",)


# ---------------------------------------------------------------------- status


async def test_status_counts_what_is_pending_and_dead_up_to_a_limit(outbox: Outbox, admin: OutboxAdmin) -> None:
    for number in range(4):
        await add(outbox, number)
    await add(outbox, 9, key=None)
    for number in range(10, 13):
        await bury(outbox, number)
    await bury(outbox, 14, code="denied", reason="not allowed")
    await bury(outbox, 15, platform="eventbridge")
    status = await admin.status()
    assert (status.pending, status.bounded, dict(status.problems)) == (5, False, {})
    assert status.epochs is not None
    assert [(epoch.number, epoch.buckets, epoch.is_open) for epoch in status.epochs] == [(1, 4, True)]
    assert status.buckets is not None
    assert sorted(bucket.pending or 0 for bucket in status.buckets)[-1] in (4, 5)
    assert status.oldest_age is not None
    assert 0 <= status.oldest_age < 60
    assert status.dead_letters is not None
    eventbridge, nats = status.dead_letters
    assert (eventbridge.platform, eventbridge.count, eventbridge.bounded) == ("eventbridge", 1, False)
    assert [(reason.code, reason.count) for reason in nats.reasons] == [("too_large", 3), ("denied", 1)]
    limited = await admin.status(limit=2)
    assert limited.bounded
    assert limited.dead_letters is not None
    assert [(one.count, one.bounded) for one in limited.dead_letters] == [(1, False), (2, True)]


async def test_status_tells_why_records_wait(outbox: Outbox, admin: OutboxAdmin) -> None:
    errors = ["nats: denied: subject a: no", "nats: denied: subject b", "eventbridge: timeout: none", None]
    for number, error in enumerate(errors):
        record = await add(outbox, number, key=f"key {number}" if number else None)
        state = RecordState(BOTH, {}, attempts=1, last_error=error)
        assert await outbox.store.update(record.partition, record.sk, state)
    denied, timeout = (await admin.status()).reasons
    assert (denied.code, denied.count, denied.example.startswith("subject ")) == ("nats: denied", 2, True)
    assert (timeout.code, timeout.count, timeout.example) == ("eventbridge: timeout", 1, "none")


async def test_status_of_a_table_without_a_layout_is_empty_and_not_unknown() -> None:
    status = await OutboxAdmin(MemoryOutbox()).status()
    assert (status.epochs, status.pending, status.oldest_age, dict(status.problems)) == ((), 0, None, {})


async def test_status_tells_owners_and_which_processors_live() -> None:
    clock = ManualClock()
    async with MemoryOutbox(WriterConfig(buckets=2)) as outbox:
        await add(outbox)
        store = outbox.store
        for name in ("alive", "dead"):
            await store.beat(Member(name, 1, {"in_flight": 7}))
        assert await store.take(Lease(Bucket(1, 0)), "alive")
        asked = asyncio.create_task(OutboxAdmin(outbox, clock=clock).status(watch=6.0))
        await clock.someone_sleeps()
        await store.beat(Member("alive", 2, {"in_flight": 8}))
        await clock.advance(10.0)
        status = await asked
    assert status.members is not None
    assert [(one.id, one.alive, one.buckets, one.info["in_flight"]) for one in status.members] == [
        ("alive", True, 1, 8),
        ("dead", False, 0, 7),
    ]
    assert status.buckets is not None
    assert [bucket.owner for bucket in status.buckets] == ["alive", None]
    unwatched = await OutboxAdmin(outbox).status()
    assert [one.alive for one in unwatched.members or ()] == [None, None]


class Broken(MemoryOutboxStore):
    """A store whose named parts cannot be read, and whose changes fail as its script says."""

    def __init__(self, *parts: str) -> None:
        super().__init__()
        self.parts = set(parts)
        self.before: list[Exception] = []
        self.after: list[Exception] = []

    async def read_coordination(self) -> Coordination:
        self._check("processors")
        return await super().read_coordination()

    async def count(self, partition: Partition, *, limit: int) -> Count:
        if partition.bucket.number == 1:
            self._check("bucket 1/1")
        return await super().count(partition, limit=limit)

    async def dead_letters(
        self, *, platform: str | None = None, after: str | None = None, limit: int = 100
    ) -> DeadPage:
        self._check("dead letters")
        return await super().dead_letters(platform=platform, after=after, limit=limit)

    async def requeue(self, letter: DeadLetter, record: NewRecord | None) -> bool:
        if self.before:
            raise self.before.pop(0)
        done = await super().requeue(letter, record)
        if self.after:
            raise self.after.pop(0)
        return done

    def _check(self, part: str) -> None:
        if part in self.parts:
            raise StorageUnavailableError(f"{part}: throttled")


@pytest.mark.parametrize("part", ["processors", "bucket 1/1", "dead letters"])
async def test_what_cannot_be_measured_is_said_and_never_zero(part: str) -> None:
    store = Broken(part)
    async with Outbox(store, WriterConfig(buckets=2)) as outbox:
        await add(outbox)
        status = await OutboxAdmin(outbox).status()
    assert dict(status.problems) == {part: f"{part}: throttled"}
    assert (status.members is None) == (part == "processors")
    assert (status.dead_letters is None) == (part == "dead letters")
    assert (status.pending is None) == (part == "bucket 1/1")
    assert status.buckets is not None
    unknown = [bucket for bucket in status.buckets if bucket.pending is None]
    assert [bucket.problem for bucket in unknown] == (["bucket 1/1: throttled"] if part == "bucket 1/1" else [])


# ---------------------------------------------------------------------- faults


async def requeued_with(store: Broken, *, count: int = 1) -> tuple[Any, list[StoredRecord], list[str]]:
    clock = ManualClock()
    async with Outbox(store, WriterConfig(buckets=2)) as outbox:
        for number in range(count):
            await bury(outbox, number)
        admin = OutboxAdmin(outbox, clock=clock)
        asked = asyncio.create_task(admin.requeue(await admin.select()))
        while not asked.done():
            await clock.advance(1.0)
        return await asked, await records(admin), await letters(admin)


async def test_a_throttled_requeue_is_tried_again() -> None:
    store = Broken()
    store.before = [StorageUnavailableError("throttled")] * 3
    changes, found, left = await requeued_with(store)
    assert (changes.done, len(found), left) == (1, 1, [])


async def test_a_requeue_without_an_answer_is_asked_again_and_done_once() -> None:
    store = Broken()
    store.after = [StorageOutcomeUnknownError("no answer")]
    changes, found, left = await requeued_with(store)
    assert (changes.done, changes.gone, len(found), left) == (1, 0, 1, [])


class Purging(Broken):
    """A store on which somebody else purges a letter while the first requeue gets no answer."""

    async def requeue(self, letter: DeadLetter, record: NewRecord | None) -> bool:
        if self.parts:
            self.parts.clear()
            assert await self.purge(letter)
            raise StorageOutcomeUnknownError("no answer")
        return await super().requeue(letter, record)


@pytest.mark.parametrize("held", [False, True])
async def test_what_somebody_purged_while_an_answer_was_lost_does_not_count_as_requeued(held: bool) -> None:
    clock, store = ManualClock(), Purging("first")
    async with Outbox(store, WriterConfig(buckets=2)) as outbox:
        await (hold(outbox) if held else bury(outbox))
        admin = OutboxAdmin(outbox, clock=clock)
        asked = asyncio.create_task(admin.requeue(await admin.select()))
        while not asked.done():
            await clock.advance(1.0)
        changes = await asked
        assert (changes.done, changes.gone, changes.unsure, changes.failed) == (0, 0, 1, {})


async def test_a_change_that_is_refused_after_silence_while_the_letter_is_there_was_not_made() -> None:
    clock, store = ManualClock(), Broken()
    store.before = [StorageOutcomeUnknownError("no answer")]
    async with Outbox(store, WriterConfig(buckets=2)) as outbox:
        letter = await hold(outbox)
        await store.remove(letter.origin, [letter.origin_sk])
        admin = OutboxAdmin(outbox, clock=clock)
        asked = asyncio.create_task(admin.requeue(await admin.select()))
        while not asked.done():
            await clock.advance(1.0)
        # Its record is gone, so it became a new one.
        assert (await asked).done == 1
        assert len(await records(admin)) == 1


@pytest.mark.parametrize("error", [StorageUnavailableError("throttled"), StorageDeniedError("no permission")])
async def test_what_would_fail_for_all_stops_the_rest(error: Exception) -> None:
    store = Broken()
    store.before = [error] * 100
    changes, found, left = await requeued_with(store, count=5)
    assert changes.stopped == str(error)
    assert (changes.done, len(changes.failed), found, len(left)) == (0, 1, [], 5)
