from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events._aws.marshal import to_item
from oms_events.devstack import Denied, Fault, FaultProxy, LoseAnswer, ServerError, Throttle, run_in_thread
from oms_events.errors import (
    ConfigurationError,
    StorageDeniedError,
    StorageOutcomeUnknownError,
    StorageRejectedError,
    StorageUnavailableError,
)
from oms_events.outbox import schema
from oms_events.outbox.config import OutboxConfig
from oms_events.outbox.dynamodb import DynamoDBOutboxStore
from oms_events.outbox.dynamodb_calls import table_problems
from oms_events.outbox.records import UNREADABLE, Lease, Member, PlatformState, RecordState, sequence_key
from oms_events.testing import ManualClock
from oms_events.testing.outbox_contract import OutboxStoreContract
from oms_events.testing.outbox_contract.support import (
    BUCKET,
    KEYED,
    PLAN,
    buried,
    make_letter,
    make_record,
    put,
    read_all,
    read_letters,
    settled_as,
    sks,
    state_of,
    taken_by,
)
from tests.outbox.support import (
    SHAPE,
    Settings,
    fresh_table,
    items_of,
    open_store,
    outbox_config,
    session_of,
    wipe,
)

HELD, DEAD, DELIVERED = PlatformState.HELD, PlatformState.DEAD, PlatformState.DELIVERED
TRANSACT = "TransactWriteItems"


def canceled(*reasons: str) -> Fault:
    return Throttle("TransactionCanceledException", f"Transaction cancelled [{', '.join(reasons)}]")


@pytest.fixture(scope="module", params=["direct", "ordinary"])
async def shared_store(
    request: pytest.FixtureRequest, aws: Settings, dynamo: DynamoClient
) -> AsyncIterator[DynamoDBOutboxStore]:
    async with fresh_table(aws, dynamo) as config:
        store = DynamoDBOutboxStore(config, session=None if request.param == "direct" else session_of(aws))
        yield store
        await store.close()


class TestDynamoDBOutboxStore(OutboxStoreContract):
    @pytest.fixture
    async def store(self, shared_store: DynamoDBOutboxStore, dynamo: DynamoClient) -> DynamoDBOutboxStore:
        await shared_store.open()
        await wipe(dynamo, shared_store.table)
        return shared_store


# ---------------------------------------------------------------------- behind the proxy


@pytest.fixture(scope="module")
async def table(aws: Settings, dynamo: DynamoClient) -> AsyncIterator[OutboxConfig]:
    async with fresh_table(aws, dynamo) as config:
        yield config


@pytest.fixture(scope="module")
def shared_proxy(aws: Settings) -> Any:
    with run_in_thread(FaultProxy(aws["endpoint_url"])) as proxy:
        yield proxy


@pytest.fixture(scope="module")
async def proxied_store(
    aws: Settings, table: OutboxConfig, shared_proxy: FaultProxy
) -> AsyncIterator[DynamoDBOutboxStore]:
    config = outbox_config({**aws, "endpoint_url": shared_proxy.endpoint_url}, table.table_name)
    async with open_store(config) as store:
        yield store


@pytest.fixture
async def store(proxied_store: DynamoDBOutboxStore, dynamo: DynamoClient) -> DynamoDBOutboxStore:
    """An open store whose calls go through the proxy, on an empty table."""
    await wipe(dynamo, proxied_store.table)
    return proxied_store


@pytest.fixture
async def proxy(store: DynamoDBOutboxStore, shared_proxy: FaultProxy) -> Any:
    shared_proxy.forget_calls()
    yield shared_proxy
    shared_proxy.clear()


# ---------------------------------------------------------------------- opening


async def test_a_table_that_is_missing_is_not_opened(aws: Settings) -> None:
    store = DynamoDBOutboxStore(outbox_config(aws, "nowhere"))
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="'nowhere': it does not exist; create it"):
            await store.open()
    await store.close()


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ((("id", "HASH", "S"),), r"id \(S, HASH\)"),
        ((("pk", "HASH", "S"), ("sk", "RANGE", "N")), r"pk \(S, HASH\), sk \(N, RANGE\)"),
        ((("sk", "HASH", "S"), ("pk", "RANGE", "S")), r"sk \(S, HASH\), pk \(S, RANGE\)"),
    ],
)
async def test_a_table_with_other_keys_is_not_opened(
    aws: Settings, dynamo: DynamoClient, keys: Sequence[tuple[str, str, str]], found: str
) -> None:
    shape = {
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": kind} for name, _, kind in keys],
        "KeySchema": [{"AttributeName": name, "KeyType": role} for name, role, _ in keys],
    }
    async with fresh_table(aws, dynamo, shape=shape) as config:
        store = DynamoDBOutboxStore(config)
        with pytest.raises(ConfigurationError, match=f"its keys are {found}; an outbox needs pk"):
            await store.open()
        with pytest.raises(StorageUnavailableError, match=r"not open: call open\(\) first"):
            await store.read(KEYED)


def test_a_table_of_several_regions_or_on_its_way_does_not_fit() -> None:
    described = {**SHAPE, "TableStatus": "ACTIVE"}
    assert table_problems(described) == ()
    assert table_problems({**described, "TableStatus": "UPDATING"}) == ()
    (replicas,) = table_problems({**described, "Replicas": [{"RegionName": "eu-west-1"}]})
    assert "replicas in eu-west-1" in replicas
    (status,) = table_problems({**described, "TableStatus": "DELETING"})
    assert "status is DELETING; wait" in status


async def test_a_table_that_may_not_be_described_names_the_permission(
    proxy: FaultProxy, aws: Settings, table: OutboxConfig
) -> None:
    proxy.script(Denied(), operation="DescribeTable")
    store = DynamoDBOutboxStore(outbox_config({**aws, "endpoint_url": proxy.endpoint_url}, table.table_name))
    with pytest.raises(StorageDeniedError, match=f"allow dynamodb:DescribeTable on table '{table.table_name}'"):
        await store.open()
    await store.open()
    assert await store.read_layout() is None
    await store.close()


async def test_opened_at_once_it_looks_once(proxy: FaultProxy, aws: Settings, table: OutboxConfig) -> None:
    store = DynamoDBOutboxStore(outbox_config({**aws, "endpoint_url": proxy.endpoint_url}, table.table_name))
    await asyncio.gather(*(store.open() for _ in range(3)))
    assert len(proxy.calls_of("DescribeTable")) == 1
    await store.close()


# ---------------------------------------------------------------------- lost and refused answers


async def test_a_burial_whose_answer_is_lost_is_done_once(store: DynamoDBOutboxStore, proxy: FaultProxy) -> None:
    record = make_record(1)
    await put(store, record)
    proxy.script(LoseAnswer(), operation=TRANSACT)
    assert await store.bury(make_letter(record), None)
    assert await read_all(store) == []
    assert len(await read_letters(store)) == 1


async def test_a_requeue_whose_answer_is_lost_is_done_once(store: DynamoDBOutboxStore, proxy: FaultProxy) -> None:
    record = make_record(1)
    letter = await buried(store, record, settled_as({"nats": HELD}), held=True)
    proxy.script(LoseAnswer(), operation=TRANSACT)
    assert await store.requeue(letter, None)
    assert (await state_of(store, record)).generation == 1


async def test_a_purge_whose_answer_is_lost_is_done_once(store: DynamoDBOutboxStore, proxy: FaultProxy) -> None:
    letter = await buried(store, make_record(1), None)
    proxy.script(LoseAnswer(), operation=TRANSACT)
    assert await store.purge(letter)
    assert await read_letters(store) == []


async def test_a_takeover_whose_answer_is_lost_is_done_once(store: DynamoDBOutboxStore, proxy: FaultProxy) -> None:
    lease = await taken_by(store, Lease(BUCKET), "one")
    proxy.script(LoseAnswer(), operation=TRANSACT)
    taken = await store.take(lease, "two", silent=Member("one", 1))
    assert taken is not None
    assert (await store.read_coordination()).leases == {BUCKET: taken}


async def test_an_answer_lost_twice_stays_unknown(store: DynamoDBOutboxStore, proxy: FaultProxy) -> None:
    record = make_record(1)
    await put(store, record)
    proxy.forget_calls()
    proxy.script(LoseAnswer(), ServerError(), operation=TRANSACT)
    with pytest.raises(StorageOutcomeUnknownError):
        await store.bury(make_letter(record), None)
    assert len(proxy.calls_of(TRANSACT)) == 2
    assert len(await read_letters(store)) == 1


@pytest.mark.parametrize("second", [canceled("TransactionConflict", "None"), Throttle(), Denied()])
async def test_after_a_lost_answer_a_refusal_proves_nothing(
    store: DynamoDBOutboxStore, proxy: FaultProxy, second: Fault
) -> None:
    record = make_record(1)
    await put(store, record)
    proxy.script(LoseAnswer(), second, operation=TRANSACT)
    with pytest.raises(StorageOutcomeUnknownError):
        await store.bury(make_letter(record), None)
    assert len(await read_letters(store)) == 1


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        (canceled("TransactionConflict", "None"), StorageUnavailableError, "TransactionConflict"),
        (canceled("None", "ThrottlingError"), StorageUnavailableError, "ThrottlingError"),
        (canceled("None", "ValidationError"), StorageRejectedError, "ValidationError"),
        (Throttle(), StorageUnavailableError, "ThrottlingException"),
    ],
)
async def test_a_refused_burial_says_whether_it_may_work_later(
    store: DynamoDBOutboxStore, proxy: FaultProxy, fault: Fault, kind: type[Exception], code: str
) -> None:
    record = make_record(1)
    await put(store, record)
    proxy.script(fault, operation=TRANSACT)
    with pytest.raises(kind) as caught:
        await store.bury(make_letter(record), None)
    assert caught.value.code == code  # type: ignore[attr-defined]
    assert (len(await read_all(store)), await read_letters(store)) == (1, [])


async def test_a_commit_is_sent_once_and_its_repetition_does_nothing(
    store: DynamoDBOutboxStore, proxy: FaultProxy
) -> None:
    actions, token = [store.put_action(make_record(1))], uuid.uuid4().hex
    proxy.script(LoseAnswer(), operation=TRANSACT)
    with pytest.raises(StorageOutcomeUnknownError):
        await store.commit(actions, token)
    assert len(proxy.calls_of(TRANSACT)) == 1
    await store.remove(KEYED, [sequence_key(1)])
    await store.commit(actions, token)
    assert await read_all(store) == []


async def test_a_reservation_whose_answer_is_lost_leaves_a_gap(
    store: DynamoDBOutboxStore, proxy: FaultProxy
) -> None:
    assert await store.reserve(BUCKET, 2) == 1
    proxy.script(LoseAnswer(), operation="UpdateItem")
    with pytest.raises(StorageOutcomeUnknownError):
        await store.reserve(BUCKET, 3)
    assert await store.reserve(BUCKET, 1) == 6


# ---------------------------------------------------------------------- probing and removing


async def test_a_probe_beside_a_transaction_may_work_later(store: DynamoDBOutboxStore, proxy: FaultProxy) -> None:
    proxy.script(canceled("TransactionConflict"), operation="TransactGetItems")
    with pytest.raises(StorageUnavailableError) as caught:
        await store.probe(KEYED, [sequence_key(1)])
    assert caught.value.code == "TransactionConflict"


@pytest.mark.parametrize("refused", [Denied("ValidationException"), canceled("ValidationError")])
async def test_a_probe_that_finds_too_much_is_made_in_halves(
    store: DynamoDBOutboxStore, proxy: FaultProxy, refused: Fault
) -> None:
    records = [make_record(number) for number in range(1, 6)]
    await put(store, *records)
    proxy.script(refused, refused, operation="TransactGetItems")
    assert sks(await store.probe(KEYED, sks(records))) == sks(records)
    assert len(proxy.calls_of("TransactGetItems")) == 5


async def test_a_probe_that_is_refused_for_one_record_ends(store: DynamoDBOutboxStore, proxy: FaultProxy) -> None:
    proxy.always(Denied("ValidationException"), operation="TransactGetItems")
    with pytest.raises(StorageRejectedError):
        await store.probe(KEYED, [sequence_key(1), sequence_key(2)])
    assert len(proxy.calls_of("TransactGetItems")) == 2


async def test_removals_go_in_full_calls_and_each_record_once(
    store: DynamoDBOutboxStore, proxy: FaultProxy
) -> None:
    wanted = [sequence_key(number) for number in range(60)]
    await store.remove(KEYED, [*wanted, *wanted])
    assert len(proxy.calls_of("BatchWriteItem")) == 3


async def test_a_failed_removal_raises_and_the_others_are_done(
    store: DynamoDBOutboxStore, proxy: FaultProxy
) -> None:
    records = [make_record(number) for number in range(60)]
    await put(store, *records)
    proxy.script(Throttle("ProvisionedThroughputExceededException"), operation="BatchWriteItem")
    with pytest.raises(StorageUnavailableError):
        await store.remove(KEYED, sks(records))
    assert len(await read_all(store)) in (10, 25)


class Unprocessing:
    """Lets a client's BatchWriteItem process only its first request, `times` times, and notes their numbers."""

    def __init__(self, client: Any, times: int) -> None:
        self.seen: list[int] = []
        self._times = times
        self._left: dict[str, Any] = {}
        client.meta.events.register("provide-client-params.dynamodb.BatchWriteItem", self._cut)
        client.meta.events.register("after-call.dynamodb.BatchWriteItem", self._tell)

    def _cut(self, params: dict[str, Any], **_: Any) -> dict[str, Any]:
        ((table, requests),) = params["RequestItems"].items()
        self.seen.append(len(requests))
        kept = requests[:1] if len(self.seen) <= self._times else requests
        self._left = {table: requests[len(kept) :]} if len(kept) < len(requests) else {}
        return {**params, "RequestItems": {table: kept}}

    def _tell(self, parsed: dict[str, Any], **_: Any) -> None:
        parsed["UnprocessedItems"] = self._left


async def next_pause(clock: ManualClock) -> float:
    """Lets the next sleeper sleep to its end, and says how long that was."""
    async with asyncio.timeout(10):
        await clock.someone_sleeps()
    pause = clock.sleeping[0] - clock.monotonic()
    await clock.advance(pause)
    return pause


async def test_unprocessed_removals_are_sent_again_after_growing_pauses(
    aws: Settings, table: OutboxConfig, store: DynamoDBOutboxStore
) -> None:
    await put(store, *(make_record(number) for number in range(10)))
    clock = ManualClock()
    async with session_of(aws).client("dynamodb", endpoint_url=aws["endpoint_url"]) as client:
        calls = Unprocessing(client, 3)
        async with open_store(table, client=client, clock=clock) as slow:
            removing = asyncio.create_task(slow.remove(KEYED, [sequence_key(number) for number in range(10)]))
            pauses = [await next_pause(clock) for _ in range(3)]
            await removing
    assert calls.seen == [10, 9, 8, 7]
    assert all(low <= pause <= 2 * low for pause, low in zip(pauses, (0.025, 0.05, 0.1), strict=True))
    assert await read_all(store) == []


async def test_removals_that_stay_unprocessed_are_an_error(
    aws: Settings, table: OutboxConfig, store: DynamoDBOutboxStore
) -> None:
    clock = ManualClock()
    async with session_of(aws).client("dynamodb", endpoint_url=aws["endpoint_url"]) as client:
        calls = Unprocessing(client, 100)
        async with open_store(table, client=client, clock=clock) as slow:
            removing = asyncio.create_task(slow.remove(KEYED, [sequence_key(number) for number in range(25)]))
            for _ in range(8):
                await next_pause(clock)
            with pytest.raises(StorageUnavailableError, match="left 16 removals unprocessed 9 times") as caught:
                await removing
    assert caught.value.code == "UnprocessedItems"
    assert len(calls.seen) == 9


# ---------------------------------------------------------------------- states and letters


async def test_attempts_never_go_down(store: DynamoDBOutboxStore, proxy: FaultProxy) -> None:
    record = make_record(1)
    await put(store, record)
    await store.update(KEYED, record.sk, RecordState(PLAN, {}, attempts=5, tried_for=2.5))
    late = RecordState(PLAN, {"nats": DELIVERED}, attempts=2, tried_for=7.0)
    both = RecordState(PLAN, {"nats": DELIVERED}, attempts=5, tried_for=7.0)
    assert await store.update(KEYED, record.sk, late) == both
    assert await state_of(store, record) == both


async def test_a_letter_that_died_again_is_another_one(store: DynamoDBOutboxStore) -> None:
    record = make_record(1)
    old = await buried(store, record, settled_as({"nats": HELD}), held=True)
    assert await store.requeue(old, None)
    new = make_letter(record, held=True)
    new = type(new)(
        **{**{name: getattr(new, name) for name in new.__dataclass_fields__}, "failed": old.failed + 9}
    )
    assert await store.bury(new, settled_as({"nats": HELD}, generation=1))
    assert not await store.requeue(old, None)
    assert not await store.purge(old)
    assert [letter.failed for letter in await read_letters(store)] == [new.failed]


async def test_only_what_is_held_is_freed(store: DynamoDBOutboxStore) -> None:
    record = make_record(1)
    letter = await buried(store, record, settled_as({"nats": DELIVERED, "web-hook_2": HELD}))
    assert not await store.requeue(replace(letter, held=True, platforms=("nats", "web-hook_2")), None)
    assert (await state_of(store, record)).states == {"nats": DELIVERED, "web-hook_2": HELD}
    assert len(await read_letters(store)) == 1


async def test_the_largest_record_can_be_settled_and_buried(store: DynamoDBOutboxStore) -> None:
    room = schema.RECORD_LIMIT - schema.item_size(store.put_action(make_record(1, data=""))["Put"]["Item"])
    record = make_record(1, data="x" * room)
    await put(store, record)
    state = settled_as({f"a-platform-with-a-long-name-{number}": DELIVERED for number in range(20)})
    assert await store.update(KEYED, record.sk, state)
    letter = replace(make_letter(record), reason="ü" * 9000, history=[{"error": "x" * 500}] * 50)
    assert await store.bury(letter, settled_as({"nats": DEAD}))


async def test_an_unreadable_record_is_buried_with_its_item(
    store: DynamoDBOutboxStore, dynamo: DynamoClient
) -> None:
    item = to_item(
        {"pk": "k#0001#0003", "sk": sequence_key(1), "v": 1, "a": 5, "k": "ü", "odd": [b"\x00", {"n": 1}]}
    )
    await dynamo.call("PutItem", {"TableName": store.table, "Item": item}, table=store.table)
    (found,) = (await store.read(KEYED)).records
    assert (found.event, found.key, found.problem) == (None, "ü", "the record has no attribute 'e'")
    letter = make_letter(make_record(1), platform=UNREADABLE)
    assert await store.bury(replace(letter, event=None, raw=found.raw), None)
    assert await read_all(store) == []
    (kept,) = await read_letters(store)
    assert kept.event is None
    assert kept.raw == found.raw


async def test_a_letter_of_another_release_hides_no_other_and_can_be_purged(
    store: DynamoDBOutboxStore, dynamo: DynamoClient
) -> None:
    good = await buried(store, make_record(1), None)
    for item in (
        to_item({"pk": "dead", "sk": "nats#1", "v": 9}),
        to_item({"pk": "dead", "sk": "nats#2", "v": 9, "f": "another shape"}),
        to_item({"pk": "dead", "sk": "zzz", "v": 1}),
    ):
        await dynamo.call("PutItem", {"TableName": store.table, "Item": item}, table=store.table)
    found = await read_letters(store)
    assert [letter.id for letter in found] == ["nats#1", good.id, "nats#2", "zzz"]
    assert [letter.platform for letter in found] == ["nats", "nats", "nats", "zzz"]
    assert "format 9: use the release that wrote it" in (found[0].problem or "")
    for letter in [letter for letter in found if letter.problem]:
        assert await store.purge(letter)
        assert not await store.purge(letter)
    assert [letter.id for letter in await read_letters(store)] == [good.id]


async def test_a_damaged_letter_that_died_again_is_not_purged_with_an_old_reading(
    store: DynamoDBOutboxStore, dynamo: DynamoClient
) -> None:
    item = to_item({"pk": "dead", "sk": "nats#1", "v": 9, "f": 5})
    await dynamo.call("PutItem", {"TableName": store.table, "Item": item}, table=store.table)
    (old,) = await read_letters(store)
    await dynamo.call("PutItem", {"TableName": store.table, "Item": {**item, "f": {"N": "6"}}}, table=store.table)
    assert not await store.purge(old)
    (new,) = await read_letters(store)
    assert await store.purge(new)


async def test_purging_a_damaged_letter_lets_the_key_that_it_holds_go_on(
    store: DynamoDBOutboxStore, dynamo: DynamoClient
) -> None:
    record = make_record(1)
    await buried(store, record, settled_as({"nats": HELD}), held=True)
    (item,) = [item for item in await items_of(dynamo, store.table) if item["pk"] == "dead"]
    damaged = to_item({name: item[name] for name in ("pk", "sk", "f")})
    await dynamo.call("PutItem", {"TableName": store.table, "Item": damaged}, table=store.table)
    (letter,) = await read_letters(store)
    assert "no attribute 'v'" in (letter.problem or "")
    assert await store.purge(letter)
    assert (await state_of(store, record)).states == {"nats": DEAD}


async def test_letters_are_paged_past_an_id_of_another_platform(store: DynamoDBOutboxStore) -> None:
    letter = await buried(store, make_record(1), None)
    page = await store.dead_letters(platform="nats", after="eventbridge#1")
    assert [found.id for found in page.letters] == [letter.id]
    page = await store.dead_letters(platform="nats", after="webhook#1")
    assert list(page.letters) == []


# ---------------------------------------------------------------------- coordination and cost


async def test_a_coordination_of_more_than_a_page_is_read_whole(store: DynamoDBOutboxStore) -> None:
    members = {name: Member(name, 1, {"x" * 380_000: 1}) for name in "abcd"}
    for member in members.values():
        await store.beat(member)
    assert (await store.read_coordination()).members == members


async def test_a_lease_that_came_back_to_its_owner_is_another_one(store: DynamoDBOutboxStore) -> None:
    old = await taken_by(store, Lease(BUCKET), "one")
    again = await taken_by(store, await taken_by(store, old, "two"), "one")
    assert await store.take(old, "three") is None
    assert not await store.release(old)
    assert (await store.read_coordination()).leases == {BUCKET: again}


async def test_each_wake_keeps_a_lease_from_being_released(store: DynamoDBOutboxStore) -> None:
    await store.wake(BUCKET)
    lease = await taken_by(store, Lease(BUCKET), "one")
    await store.wake(BUCKET)
    assert not await store.release(lease)
    assert await store.release((await store.read_coordination()).leases[BUCKET])


async def test_a_takeover_that_meets_another_may_work_later(store: DynamoDBOutboxStore, proxy: FaultProxy) -> None:
    lease = await taken_by(store, Lease(BUCKET), "one")
    proxy.script(canceled("TransactionConflict", "None"), operation=TRANSACT)
    with pytest.raises(StorageUnavailableError):
        await store.take(lease, "two", silent=Member("one", 1))
    assert (await store.read_coordination()).leases == {BUCKET: lease}


async def test_what_calls_cost_can_be_counted(store: DynamoDBOutboxStore) -> None:
    costs: list[tuple[str, float, float]] = []
    store.on_capacity = lambda *cost: costs.append(cost)
    try:
        await store.reserve(BUCKET, 1)
        await put(store, make_record(1))
        await store.read(KEYED)
        await store.probe(KEYED, [sequence_key(1)])
        await store.remove(KEYED, [sequence_key(1)])
    finally:
        store.on_capacity = None
    assert costs == [
        ("UpdateItem", 0.0, 1.0),
        ("TransactWriteItems", 0.0, 2.0),
        ("Query", 1.0, 0.0),
        ("TransactGetItems", 2.0, 0.0),
        ("BatchWriteItem", 0.0, 1.0),
    ]
    await store.reserve(BUCKET, 1)
    assert len(costs) == 5


async def test_everything_is_read_consistently(store: DynamoDBOutboxStore, proxy: FaultProxy) -> None:
    await store.read(KEYED)
    await store.count(KEYED, limit=1)
    await store.dead_letters()
    await store.read_coordination()
    await store.read_layout()
    calls = [*proxy.calls_of("Query"), *proxy.calls_of("GetItem")]
    assert len(calls) == 5
    assert all(b'"ConsistentRead":true' in call.body for call in calls)


async def test_nothing_of_another_partition_is_left_in_a_table(
    store: DynamoDBOutboxStore, dynamo: DynamoClient
) -> None:
    """The keys that operators meet in the console."""
    await store.reserve(BUCKET, 1)
    await store.beat(Member("me", 1))
    await store.wake(BUCKET)
    await buried(store, make_record(1), None)
    await put(store, make_record(2))
    keys = sorted((item["pk"], item["sk"]) for item in await items_of(dynamo, store.table))
    assert keys == [
        ("coordination", "l#0001#0003"),
        ("coordination", "m#me"),
        ("dead", make_letter(make_record(1)).id),
        ("k#0001#0003", sequence_key(2)),
        ("n#0001#0003", "counter"),
    ]
