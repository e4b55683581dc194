"""Whatever is delivered, in whatever order, to however many projectors: the read models are the fold."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oms_events._aws.dynamodb import DynamoClient
from oms_events.devstack import FaultProxy, Forward, LoseAnswer, Reset, ServerError, Throttle
from oms_events.errors import StorageError
from oms_events.eventstore.config import ProjectionTables, ProjectorConfig
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.projections.dynamodb import DynamoDBReadModels
from oms_events.eventstore.projections.items import Checkpoint
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.projections.read_models import MemoryReadModels
from oms_events.eventstore.schema import CHECKPOINTS, READ_MODEL
from oms_events.resilience.backoff import RetryConfig
from tests.eventstore.accounts import AccountClosed, AccountCreated, deposit, registry
from tests.eventstore.ledgers import (
    Breaking,
    aggregates,
    behind,
    deliver,
    folded,
    population,
    rows_of,
    summaries,
    totals,
)
from tests.eventstore.support import fresh_table
from tests.outbox.support import Settings

QUICK = RetryConfig(max_attempts=200, initial=1e-6, maximum=1e-6)
EVENTS = {"o": AccountCreated(customer_id="c"), "d": deposit(3), "c": AccountClosed()}
histories = st.dictionaries(st.sampled_from("abc"), st.text("odc", min_size=1, max_size=8), min_size=1)


class Jittery(Breaking):
    """Calls that take turns of the loop by chance, before and after they take effect."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._rng = random.Random(seed)

    async def call(self, method: Any, *args: Any, **options: Any) -> Any:
        for _ in range(self._rng.choice((0, 0, 1, 4))):
            await asyncio.sleep(0)
        answer = await method(*args, **options)
        for _ in range(self._rng.choice((0, 0, 1, 4))):
            await asyncio.sleep(0)
        return answer


@settings(max_examples=40, deadline=None)
@given(histories, st.data())
async def test_any_deliveries_followed_by_catching_up_are_the_fold(
    written: dict[str, str], data: st.DataObject
) -> None:
    store, read_models = MemoryEventStore(registry=registry), MemoryReadModels()
    events = []
    for name, kinds in written.items():
        events += await store.append(name, [EVENTS[kind] for kind in kinds], expected_sequence=0)
    projections = (summaries(), totals(), population())
    projectors = []
    for _ in range(data.draw(st.integers(1, 3), label="projectors")):
        config = ProjectorConfig(
            conflicts=QUICK,
            page_size=data.draw(st.integers(1, 4)),
            remembered_positions=data.draw(st.sampled_from((0, 1, 100))),
            concurrency=data.draw(st.sampled_from((1, 16))),
        )
        seen_store, seen = behind(Jittery(data.draw(st.integers(0, 99))), store, read_models)
        projectors.append(Projector(projections, seen_store, seen, config=config))
    batches = st.lists(st.lists(st.sampled_from(events), max_size=8), max_size=6)
    # All is drawn before any of it is begun: a draw may end the example.
    deliveries = [(projector, batch) for projector in projectors for batch in data.draw(batches)]
    await asyncio.gather(*(deliver(projector, batch) for projector, batch in deliveries))
    await asyncio.gather(*(projector.catch_up(name) for projector in projectors for name in aggregates(store)))
    for projection in projections:
        assert rows_of(projection, read_models) == await folded(projection, store)
    # All the histories are in those that every event is of interest to.
    for name in written:
        assert await read_models.checkpoint(projections[0], name) == Checkpoint(len(written[name]))


# ---------------------------------------------------------------------- DynamoDB and its failures


@pytest.fixture(scope="module")
async def tables(aws: Settings, dynamo: DynamoClient) -> AsyncIterator[dict[str, str]]:
    async with (
        fresh_table(dynamo, READ_MODEL, "read-model") as rows,
        fresh_table(dynamo, CHECKPOINTS, "checkpoints") as checkpoints,
    ):
        yield {"read_model_table": rows, "checkpoint_table": checkpoints}


@pytest.fixture
async def faulty(
    aws: Settings, tables: dict[str, str], oms_fault_proxy: FaultProxy
) -> AsyncIterator[DynamoDBReadModels]:
    """Read models behind the proxy, which have made a call that later ones can be like."""
    config = ProjectionTables(
        **tables,
        **{**aws, "endpoint_url": oms_fault_proxy.endpoint_url},
        read_timeout=1.0,
        retry=RetryConfig(max_attempts=4, initial=0.001, maximum=0.01),
    )
    async with DynamoDBReadModels(config) as read_models:
        await read_models.active_version("Total")
        yield read_models


CONFLICT = Throttle(
    code="TransactionCanceledException",
    message="Transaction cancelled, please refer to the reasons: [TransactionConflict, None]",
)
THROTTLED = Throttle(
    code="TransactionCanceledException",
    message="Transaction cancelled, please refer to the reasons: [ThrottlingError, None]",
)


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ("TransactWriteItems", LoseAnswer()),
        ("TransactWriteItems", ServerError()),
        ("TransactWriteItems", Throttle()),
        ("TransactWriteItems", CONFLICT),
        ("TransactWriteItems", THROTTLED),
        ("TransactWriteItems", Reset()),
        ("BatchGetItem", ServerError()),
        ("BatchGetItem", Throttle()),
    ],
)
async def test_every_other_call_that_goes_wrong_changes_nothing(
    faulty: DynamoDBReadModels, oms_fault_proxy: FaultProxy, operation: str, fault: Any
) -> None:
    store = MemoryEventStore(registry=registry)
    projections = (summaries(), totals())
    name = f"a-{operation}-{type(fault).__name__}-{id(fault)}"
    events = await store.append(name, [EVENTS[kind] for kind in "oddod"], expected_sequence=0)
    before = await faulty.row("Total", "deposit")
    projector = Projector(projections, store, faulty)
    await projector.open()
    oms_fault_proxy.script(*[fault, *[Forward(), fault] * 6], operation=operation)
    for batch in (events[:1], events[2:3], events[1:4], events):
        await deliver(projector, batch)
    oms_fault_proxy.clear()
    assert await faulty.row("Summary", name) == {"balance": "9", "events": [1, 2, 3, 4, 5]}
    after = await faulty.row("Total", "deposit")
    assert after is not None
    assert after["count"] - (before["count"] if before else 0) == 3


async def test_storage_that_stays_away_is_told_and_nothing_is_lost(
    faulty: DynamoDBReadModels, oms_fault_proxy: FaultProxy
) -> None:
    store = MemoryEventStore(registry=registry)
    events = await store.append("away", [EVENTS[kind] for kind in "oo"], expected_sequence=0)
    projector = Projector([summaries()], store, faulty)
    await projector.open()
    oms_fault_proxy.always(Throttle(), operation="TransactWriteItems")
    results = await projector.handle(events)
    assert all(isinstance(error, StorageError) for error in results)
    oms_fault_proxy.clear()
    assert await projector.handle(events) == [None, None]
