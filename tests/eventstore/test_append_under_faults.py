"""Appends and reads when DynamoDB throttles, conflicts, breaks off or stays silent: nothing twice or lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events.devstack import (
    Denied,
    Fault,
    FaultProxy,
    Hang,
    LoseAnswer,
    Reset,
    ServerError,
    Throttle,
    run_in_thread,
)
from oms_events.errors import (
    CommitOutcomeUnknownError,
    ConcurrencyError,
    DuplicateCommandError,
    StorageDeniedError,
    StorageUnavailableError,
    TransactionConflictError,
)
from oms_events.eventstore.config import EventStoreConfig
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.records import CommandMarker, RecordedEvent
from oms_events.eventstore.schema import EVENT_STORE
from oms_events.eventstore.store import EventStore
from oms_events.outbox.config import OutboxConfig
from oms_events.outbox.outbox import DynamoDBOutbox
from oms_events.resilience.backoff import RetryConfig
from oms_events.testing import ManualClock
from oms_events.testing.event_store_contract.support import Changed, check_outbox, history, new_id, registry
from tests.eventstore.support import fresh_table
from tests.outbox.support import Settings, outbox_config
from tests.outbox.support import fresh_table as fresh_outbox

COMMIT = "TransactWriteItems"
CONFLICT = Throttle("TransactionCanceledException", "Transaction cancelled [TransactionConflict, None]")
THROTTLED = Throttle("ProvisionedThroughputExceededException")


@dataclass(frozen=True, slots=True)
class Bench:
    """One service behind the proxy, another beside it on the same tables, and an aggregate."""

    store: DynamoDBEventStore
    other: DynamoDBEventStore
    proxy: FaultProxy
    aggregate: str

    async def append(self, *numbers: int, store: EventStore | None = None, **options: Any) -> list[RecordedEvent]:
        events = [Changed(number=number) for number in numbers or (1,)]
        return await (store or self.store).append(self.aggregate, events, **{"expected_sequence": 0, **options})

    async def check(self, *numbers: int) -> None:
        """The aggregate has these events and no others, and so has the outbox."""
        found = await history(self.other, self.aggregate)
        assert [event.data["number"] for event in found] == list(numbers)
        await check_outbox(self.other, self.aggregate, found)


@pytest.fixture(scope="module")
def proxy_server(aws: Settings) -> Iterator[FaultProxy]:
    with run_in_thread(FaultProxy(aws["endpoint_url"])) as proxy:
        yield proxy


@pytest.fixture(scope="module")
async def tables(aws: Settings, dynamo: DynamoClient) -> AsyncIterator[tuple[str, OutboxConfig]]:
    async with fresh_table(dynamo, EVENT_STORE, "faults") as name, fresh_outbox(aws, dynamo) as config:
        yield name, config


@asynccontextmanager
async def services(
    aws: Settings, tables: tuple[str, OutboxConfig], proxy: FaultProxy, kind: str
) -> AsyncIterator[Bench]:
    """Both have made an append: what makes connections ready, and layouts known, is no part of the tests."""
    name, outbox = tables
    commits = {"commit_timeout": 0.6, "conflict_attempts": 3}
    quick = RetryConfig(max_attempts=3, initial=0.001, maximum=0.002)
    stores = []
    async with AsyncExitStack() as stack:
        for settings in ({"endpoint_url": proxy.endpoint_url, "read_timeout": 0.3}, {}):
            fields = {**aws, **settings}
            made = None
            if kind == "outbox":
                config = outbox_config(fields, outbox.table_name, **commits)
                made = await stack.enter_async_context(DynamoDBOutbox(config))
            store = DynamoDBEventStore(
                EventStoreConfig(table_name=name, **fields, **commits, retry=quick), outbox=made, registry=registry
            )
            stores.append(await stack.enter_async_context(store))
            await store.append(new_id(), [Changed()], expected_sequence=0)
        yield Bench(stores[0], stores[1], proxy, new_id())


@contextmanager
def faultless(proxy: FaultProxy) -> Iterator[None]:
    """Before and after."""
    proxy.forget_calls()
    try:
        yield
    finally:
        proxy.clear()
        proxy.release()


@pytest.fixture(scope="module", params=["alone", "outbox"])
async def shared(
    request: pytest.FixtureRequest, aws: Settings, tables: tuple[str, OutboxConfig], proxy_server: FaultProxy
) -> AsyncIterator[Bench]:
    async with services(aws, tables, proxy_server, request.param) as bench:
        yield bench


@pytest.fixture
def bench(shared: Bench) -> Iterator[Bench]:
    with faultless(shared.proxy):
        yield replace(shared, aggregate=new_id())


@pytest.fixture(params=["alone", "outbox"])
async def own(
    request: pytest.FixtureRequest, aws: Settings, tables: tuple[str, OutboxConfig], proxy_server: FaultProxy
) -> AsyncIterator[Bench]:
    """Services that the test may close."""
    async with services(aws, tables, proxy_server, request.param) as bench:
        with faultless(bench.proxy):
            yield bench


def tokens(proxy: FaultProxy) -> list[str]:
    return [orjson.loads(call.body)["ClientRequestToken"] for call in proxy.calls_of(COMMIT)]


# ---------------------------------------------------------------------- no answer


@pytest.mark.parametrize("fault", [LoseAnswer(), LoseAnswer(orderly=True), Reset(), Hang(), ServerError()])
async def test_an_append_without_an_answer_is_done_once(bench: Bench, fault: Fault) -> None:
    bench.proxy.script(fault, operation=COMMIT)
    appended = await bench.append(1, 2, command_id="c")
    await bench.check(1, 2)
    assert [event.id for event in await history(bench.other, bench.aggregate)] == [event.id for event in appended]
    assert len(tokens(bench.proxy)) == 2
    assert len(set(tokens(bench.proxy))) == 1


@pytest.mark.parametrize("then", [CONFLICT, THROTTLED, Throttle("TransactionInProgressException"), ServerError()])
async def test_after_silence_refusals_are_not_believed(bench: Bench, then: Fault) -> None:
    bench.proxy.script(LoseAnswer(), then, operation=COMMIT)
    await bench.append(1)
    await bench.check(1)
    assert len(set(tokens(bench.proxy))) == 1


@pytest.mark.parametrize("fault", [LoseAnswer(), Reset()])
async def test_an_append_that_is_never_answered_may_be_repeated_with_its_command(
    bench: Bench, fault: Fault
) -> None:
    bench.proxy.always(fault, operation=COMMIT)
    with pytest.raises(CommitOutcomeUnknownError, match="no certain answer to a commit"):
        await bench.append(1, 2, command_id="c", fingerprint="f")
    assert len(set(tokens(bench.proxy))) == 1
    bench.proxy.clear()
    if isinstance(fault, Reset):
        await bench.check()
        await bench.append(1, 2, command_id="c", fingerprint="f")
    with pytest.raises(DuplicateCommandError) as refused:
        await bench.append(1, 2, command_id="c", fingerprint="f")
    assert (refused.value.first_sequence, refused.value.events) == (1, 2)
    await bench.check(1, 2)


async def test_without_a_command_an_append_that_took_effect_shows_as_a_conflict(bench: Bench) -> None:
    bench.proxy.always(LoseAnswer(), operation=COMMIT)
    with pytest.raises(CommitOutcomeUnknownError):
        await bench.append(1)
    bench.proxy.clear()
    with pytest.raises(ConcurrencyError) as refused:
        await bench.append(1)
    assert refused.value.actual == 1
    await bench.check(1)


async def test_after_a_lost_answer_another_append_may_have_followed(bench: Bench) -> None:
    """Sent again, it is done already: the condition is not looked at a second time."""
    bench.proxy.script(LoseAnswer(), Hang(0.2), operation=COMMIT)
    appending = asyncio.create_task(bench.append(1))
    await bench.proxy.wait_for_calls(1, operation=COMMIT)
    await bench.append(2, store=bench.other, expected_sequence=1)
    assert [event.sequence for event in await appending] == [1]
    await bench.check(1, 2)


# ---------------------------------------------------------------------- refused for a while, or for good


@pytest.mark.parametrize("fault", [CONFLICT, THROTTLED, Throttle("RequestLimitExceeded")])
async def test_what_passes_is_tried_again(bench: Bench, fault: Fault) -> None:
    bench.proxy.script(fault, fault, operation=COMMIT)
    await bench.append(1, 2)
    await bench.check(1, 2)
    assert len(set(tokens(bench.proxy))) == 3


async def test_throttling_that_lasts_is_told(bench: Bench) -> None:
    bench.proxy.always(THROTTLED, operation=COMMIT)
    with pytest.raises(StorageUnavailableError, match="nothing was written, after 3 attempts"):
        await bench.append(1, command_id="c")
    bench.proxy.clear()
    await bench.check()
    await bench.append(1, command_id="c")
    await bench.check(1)


async def test_conflicts_without_a_winner_are_told_as_such(bench: Bench) -> None:
    bench.proxy.always(CONFLICT, operation=COMMIT)
    with pytest.raises(TransactionConflictError, match="nothing was written, after 3 attempts"):
        await bench.append(1, command_id="c")
    await bench.check()


async def test_conflicts_whose_winner_shows_are_told_with_it(bench: Bench) -> None:
    bench.proxy.always(CONFLICT, operation=COMMIT)
    await bench.append(7, 8, store=bench.other, command_id="theirs")
    with pytest.raises(ConcurrencyError) as refused:
        await bench.append(1, command_id="ours")
    assert (refused.value.expected, refused.value.actual) == (0, 2)
    with pytest.raises(DuplicateCommandError) as duplicate:
        await bench.append(7, 8, command_id="theirs")
    assert duplicate.value.first_sequence == 1
    assert await bench.other.marker(bench.aggregate, "ours") is None
    await bench.check(7, 8)


async def test_who_cannot_connect_knows_that_nothing_was_written(own: Bench) -> None:
    await own.store.close()
    own.proxy.always(Hang(), operation="DescribeTable")
    fresh = DynamoDBEventStore(own.store.config, outbox=own.store.outbox, registry=registry)
    # It takes longer than a commit may.
    with pytest.raises(StorageUnavailableError, match="DescribeTable"):
        await own.append(1, store=fresh)
    assert own.proxy.calls_of(COMMIT) == ()
    await fresh.close()


async def test_a_permission_that_is_missing_is_told_at_once(bench: Bench) -> None:
    bench.proxy.script(Denied(), operation=COMMIT)
    with pytest.raises(StorageDeniedError, match="allow dynamodb:PutItem on table"):
        await bench.append(1)
    assert len(tokens(bench.proxy)) == 1
    await bench.check()


@pytest.mark.parametrize(
    ("command", "fault", "calls"), [(None, "Query", 3), ("c", "GetItem", 3), ("c", "Query", 3)]
)
async def test_a_refusal_that_cannot_be_looked_into_is_one_all_the_same(
    bench: Bench, command: str | None, fault: str, calls: int
) -> None:
    await bench.append(1, store=bench.other)
    bench.proxy.always(THROTTLED, operation=fault)
    with pytest.raises(ConcurrencyError, match="its last sequence could not be read") as refused:
        await bench.append(2, command_id=command)
    assert refused.value.actual is None
    assert len(bench.proxy.calls_of(fault)) == calls
    await bench.check(1)


async def test_a_duplicate_that_cannot_be_looked_into_is_no_success(bench: Bench) -> None:
    await bench.append(1, command_id="c")
    bench.proxy.always(THROTTLED, operation="GetItem")
    with pytest.raises(StorageUnavailableError):
        await bench.append(1, command_id="c")
    await bench.check(1)


# ---------------------------------------------------------------------- cancelled, closed


@pytest.mark.parametrize("fault", [Hang(), LoseAnswer()])
async def test_cancelled_all_or_nothing_was_written(bench: Bench, fault: Fault) -> None:
    bench.proxy.script(fault, *[Hang()] * 5, operation=COMMIT)
    appending = asyncio.create_task(bench.append(1, 2, command_id="c"))
    await bench.proxy.wait_for_calls(1 if isinstance(fault, Hang) else 2, operation=COMMIT)
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending
    bench.proxy.clear()
    bench.proxy.release()
    if isinstance(fault, Hang):
        await bench.check()
        await bench.append(1, 2, command_id="c")
    else:
        with pytest.raises(DuplicateCommandError):
            await bench.append(1, 2, command_id="c")
    await bench.check(1, 2)


async def test_closing_ends_appends_whose_answer_is_out(own: Bench) -> None:
    """With an outbox they are its own: they end with it."""
    own.proxy.always(Hang(), operation=COMMIT)
    appending = asyncio.create_task(own.append(1))
    await own.proxy.wait_for_calls(1, operation=COMMIT)
    await own.store.close()
    if own.store.outbox is not None:
        assert not appending.done()
        await own.store.outbox.close()
    async with asyncio.timeout(5):
        with pytest.raises(CommitOutcomeUnknownError, match=r"was closed before a commit had a certain answer"):
            await appending
    with pytest.raises(StorageUnavailableError, match="was closed: nothing was written; open it again"):
        await own.append(1)
    await own.check()


async def test_closing_ends_appends_that_wait_for_their_next_try(own: Bench) -> None:
    own.proxy.script(*[Throttle()] * 9, operation=COMMIT)
    clock = ManualClock()
    store = EventStore(own.store.table, own.store.config, registry=registry, clock=clock)
    appending = asyncio.create_task(own.append(1, store=store))
    await clock.someone_sleeps()
    await store.close()
    with pytest.raises(StorageUnavailableError, match=r"was closed: nothing was written; open it again"):
        await appending
    await own.check()


async def test_a_closed_store_may_be_opened_again(own: Bench) -> None:
    await own.store.close()
    for call in (
        own.store.last_sequence(own.aggregate),
        own.store.scan(),
        history(own.store, own.aggregate),
        own.append(1),
    ):
        with pytest.raises(StorageUnavailableError, match="was closed: nothing was"):
            await call
    await own.store.close()
    async with own.store as store:
        await own.append(1)
        assert await store.last_sequence(own.aggregate) == 1
    await own.check(1)


async def test_closing_ends_reads(own: Bench) -> None:
    own.proxy.always(Hang(), operation="Query")
    reading = asyncio.create_task(own.store.last_sequence(own.aggregate))
    await own.proxy.wait_for_calls(1, operation="Query")
    await own.store.close()
    async with asyncio.timeout(5):
        with pytest.raises(StorageUnavailableError):
            await reading


# ---------------------------------------------------------------------- reading


@pytest.mark.parametrize("fault", [THROTTLED, Reset(), LoseAnswer(), Hang(), ServerError()])
async def test_reads_are_tried_again(bench: Bench, fault: Fault) -> None:
    await bench.append(1, 2, 3, command_id="c")
    bench.proxy.script(fault, operation="Query")
    bench.proxy.script(fault, operation="GetItem")
    bench.proxy.script(fault, operation="Scan")
    assert len(await history(bench.store, bench.aggregate)) == 3
    assert await bench.store.marker(bench.aggregate, "c") == CommandMarker(1, 3, "")
    assert (await bench.store.scan(limit=1)).next is not None
    assert bench.proxy.pending_faults == 0


async def test_a_read_that_fails_for_long_says_so_and_leaves_nothing_behind(bench: Bench) -> None:
    await bench.append(1)
    bench.proxy.always(THROTTLED, operation="Query")
    before = asyncio.all_tasks()
    for read in (history(bench.store, bench.aggregate), by_type(bench.store)):
        with pytest.raises(StorageUnavailableError, match="Rate exceeded"):
            await read
        assert asyncio.all_tasks() == before
    bench.proxy.clear()
    # One of the index's shards.
    bench.proxy.script(Denied(), operation="Query")
    with pytest.raises(StorageDeniedError):
        await by_type(bench.store)
    assert asyncio.all_tasks() == before


async def by_type(store: EventStore) -> list[RecordedEvent]:
    return [event async for event in store.events_by_type("contract.Changed")]


@pytest.mark.parametrize("shared", ["alone"], indirect=True)
@pytest.mark.parametrize("fault", [THROTTLED, ServerError(), Reset()])
async def test_opening_is_tried_again(bench: Bench, fault: Fault) -> None:
    bench.proxy.script(fault, fault, operation="DescribeTable")
    async with DynamoDBEventStore(bench.store.config, registry=registry) as store:
        assert await store.last_sequence(bench.aggregate) == 0


@pytest.mark.parametrize("shared", ["alone"], indirect=True)
async def test_opening_that_was_given_up_is_tried_again_by_the_next_call(bench: Bench) -> None:
    config = bench.store.config
    bench.proxy.always(THROTTLED, operation="DescribeTable")
    store = DynamoDBEventStore(config, registry=registry)
    for _ in range(2):
        with pytest.raises(StorageUnavailableError, match="Rate exceeded"):
            await store.last_sequence(bench.aggregate)
    bench.proxy.clear()
    assert await store.last_sequence(bench.aggregate) == 0
    await store.close()


# ---------------------------------------------------------------------- many at once


async def test_a_crowd_under_faults_loses_and_doubles_nothing(bench: Bench) -> None:
    mix = {LoseAnswer(): 0.15, Reset(): 0.1, THROTTLED: 0.15, CONFLICT: 0.15, ServerError(): 0.05}
    bench.proxy.seeded(7, mix, operation=COMMIT)
    done: set[str] = set()
    unknown: set[str] = set()
    refused: set[str] = set()

    async def work(number: int) -> None:
        name, expected = f"{number}", 0
        for _ in range(3):
            try:
                await bench.append(number, expected_sequence=expected, command_id=name)
            except ConcurrencyError as error:
                expected = error.actual or 0
            except (StorageUnavailableError, TransactionConflictError):
                continue
            except CommitOutcomeUnknownError:
                unknown.add(name)
                return
            else:
                done.add(name)
                return
        refused.add(name)

    await asyncio.gather(*(work(number) for number in range(16)))
    bench.proxy.clear()
    found = await history(bench.other, bench.aggregate)
    names = [str(event.data["number"]) for event in found]
    assert [event.sequence for event in found] == list(range(1, len(found) + 1))
    assert len(names) == len(set(names))
    assert done <= set(names) <= done | unknown
    assert done
    for name in map(str, range(16)):
        assert (await bench.other.marker(bench.aggregate, name) is not None) is (name in names)
    await check_outbox(bench.other, bench.aggregate, found)
