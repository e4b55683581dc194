"""The projector as a platform: what it answers, and read models by way of the outbox."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cloudevents.core.v1.event import CloudEvent
from pydantic import BaseModel

from oms_events.errors import (
    AddressDeniedError,
    ConfigurationError,
    EventRejectedError,
    InvalidEventError,
    PlatformDeniedError,
    ProjectionError,
    PublishError,
    StorageDeniedError,
    StorageOutcomeUnknownError,
    StorageRejectedError,
    StorageUnavailableError,
    TransactionConflictError,
    TransientError,
    UnknownOutcomeError,
)
from oms_events.events import EncodedEvent, build_event, encode, parse_event
from oms_events.eventstore.config import EventStoreConfig
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.projections.platform import (
    ProjectionPublisher,
    publish_error_of,
    received_events_handler,
)
from oms_events.eventstore.projections.projection import Projection
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.projections.read_models import MemoryReadModels, MemoryReadModelTables, ReadModels
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.registry import EventRegistry
from oms_events.publishing import Publisher, PublisherTraits, Receipt
from oms_events.testing.contract import PublisherContract
from tests.eventstore.accounts import AccountClosed, AccountCreated, deposit, registry
from tests.eventstore.summaries import assert_rows_are_as_the_store, summaries

letters = EventRegistry()


@letters.event
class LetterSent(BaseModel):
    document: str


class Letter(BaseModel):
    document: str


LETTERS = Projection("Letters", Letter, registry=letters)


@LETTERS.on(LetterSent)
def keep(row: Letter | None, event: LetterSent, recorded: RecordedEvent) -> Letter:
    return Letter(document=event.document)


class SilentTables(MemoryReadModelTables):
    """Tables that give no answer while they are told so."""

    def __init__(self) -> None:
        super().__init__()
        self.works = asyncio.Event()
        self.works.set()

    async def get(self, keys: Any) -> Any:
        await self.works.wait()
        return await super().get(keys)


class Recording:
    """The platform of the contract: any event goes to the projector as the data of a recorded event."""

    def __init__(self, tables: SilentTables) -> None:
        self.tables = tables
        self.store = MemoryEventStore(EventStoreConfig(table_name="letters"), registry=letters)
        self.read_models = ReadModels(tables)
        self._inner = ProjectionPublisher(Projector([LETTERS], self.store, self.read_models), check_timeout=0.2)
        self._recorded: dict[str, EncodedEvent] = {}

    @property
    def traits(self) -> PublisherTraits:
        return self._inner.traits

    async def open(self) -> None:
        await self._inner.open()

    async def close(self) -> None:
        await self._inner.close()

    async def check(self) -> None:
        await self._inner.check()

    async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Sequence[Receipt | PublishError]:
        return await self._inner.publish([await self._record(event) for event in events], timeout=timeout)

    async def _record(self, event: EncodedEvent) -> EncodedEvent:
        if event.id not in self._recorded:
            sent = LetterSent(document=event.json.decode())
            [recorded] = await self.store.append(event.id, [sent], expected_sequence=0)
            self._recorded[event.id] = recorded.encoded
        return self._recorded[event.id]

    async def stored(self) -> list[CloudEvent]:
        rows = await self.read_models.rows(LETTERS, list(self._recorded))
        return [parse_event(row["document"]) for row in rows.values() if row is not None]


class TestContract(PublisherContract):
    @pytest.fixture
    async def publisher(self) -> AsyncIterator[Recording]:
        publisher = Recording(SilentTables())
        await publisher.open()
        yield publisher
        await publisher.close()

    async def stored(self, publisher: Publisher, count: int) -> list[CloudEvent]:
        assert isinstance(publisher, Recording)
        return await publisher.stored()

    def unopened(self, publisher: Publisher) -> Publisher:
        return Recording(SilentTables())

    def outage(self, publisher: Publisher) -> Any:
        assert isinstance(publisher, Recording)
        return _silence(publisher.tables)

    async def test_the_same_event_again_is_stored_once_if_it_says_so(self, publisher: Publisher) -> None:
        # It does not know which copy was the first one; that the second has no effect is shown below.
        assert publisher.traits.deduplicates

    async def test_an_event_too_large_is_rejected_and_harms_no_other(self, publisher: Publisher) -> None:
        # What fits into an event store is taken.
        assert self.too_large(publisher) is None


@asynccontextmanager
async def _silence(tables: SilentTables) -> AsyncIterator[None]:
    tables.works.clear()
    try:
        yield
    finally:
        tables.works.set()


class Rig:
    """A store, its read models, and the platform between them."""

    def __init__(self, *, sources: Any = None) -> None:
        self.store = MemoryEventStore(registry=registry)
        self.tables = SilentTables()
        self.read_models = ReadModels(self.tables)
        self.projector = Projector([summaries()], self.store, self.read_models)
        self.platform = ProjectionPublisher(self.projector, sources=sources)

    async def append(self, account_id: str, *events: BaseModel, after: int = 0) -> list[EncodedEvent]:
        return [
            event.encoded for event in await self.store.append(account_id, list(events), expected_sequence=after)
        ]

    async def check(self, *account_ids: str) -> None:
        await assert_rows_are_as_the_store(self.store, self.read_models, list(account_ids))


async def test_events_are_in_the_read_model_when_it_says_so() -> None:
    rig = Rig()
    await rig.platform.open()
    one = await rig.append("a", AccountCreated(customer_id="c"), deposit(3), AccountClosed(), deposit(4))
    two = await rig.append("b", AccountCreated(customer_id="d"))
    answers = await rig.platform.publish([*one, *two], timeout=5)
    assert [type(answer) for answer in answers] == [Receipt] * 5
    await rig.check("a", "b")
    # Twice, in the wrong order, and with gaps: to the same effect.
    await rig.platform.publish([*reversed(one), one[0]], timeout=5)
    await rig.check("a", "b")
    more = await rig.append("a", deposit(5), deposit(6), deposit(7), after=4)
    assert [type(answer) for answer in await rig.platform.publish([more[2], more[0]], timeout=5)] == [Receipt] * 2
    await rig.check("a", "b")


async def test_what_is_no_event_of_this_store_is_refused_and_harms_no_other() -> None:
    rig = Rig()
    await rig.platform.open()
    [good] = await rig.append("a", AccountCreated(customer_id="c"))
    fields: dict[str, Any] = {"subject": "a", "sequence": "0000000000000001"}
    others = [
        encode(build_event("AccountCreated", "event-store", {"customer_id": "x"})),
        encode(build_event("AccountCreated", "event-store", {"customer_id": "x"}, subject="a", sequence="first")),
        encode(build_event("AccountCreated", "event-store", {"customer_id": "x"}, subject="a", sequence="0")),
        # Another store's account of the same id.
        encode(build_event("AccountCreated", "/other", {"customer_id": "x"}, **fields)),
    ]
    answers = await rig.platform.publish([*others[:2], good, *others[2:]], timeout=5)
    assert [type(answer) for answer in answers] == [
        EventRejectedError, EventRejectedError, Receipt, EventRejectedError, EventRejectedError,
    ]  # fmt: skip
    assert "route only" in str(answers[0])
    assert "'/other' is not this event store's (event-store)" in str(answers[4])
    await rig.check("a")


async def test_a_store_whose_source_was_changed_names_both() -> None:
    rig = Rig(sources=["event-store", "/before"])
    await rig.platform.open()
    [event] = await rig.append("a", AccountCreated(customer_id="c"))
    attributes = {**event.event.get_attributes(), "source": "/before"}
    old = encode(CloudEvent(attributes, event.data))
    assert [type(answer) for answer in await rig.platform.publish([old], timeout=5)] == [Receipt]
    await rig.check("a")
    assert rig.platform.describe()["sources"] == ["/before", "event-store"]
    with pytest.raises(ConfigurationError, match="give a list"):
        ProjectionPublisher(rig.projector, sources="event-store")


async def test_data_that_went_to_a_claim_check_is_read_from_the_store() -> None:
    rig = Rig()
    await rig.platform.open()
    events = await rig.append("a", AccountCreated(customer_id="c"), deposit(3))
    referring = []
    for event in events:
        attributes = {**event.attributes, "dataref": "s3://bucket/key"}
        head = json.dumps({**json.loads(event.head), "dataref": "s3://bucket/key"}).encode()
        referring.append(EncodedEvent(None, attributes, head, b"", "json"))
    assert [type(answer) for answer in await rig.platform.publish(referring, timeout=5)] == [Receipt] * 2
    await rig.check("a")


async def test_out_of_time_nothing_is_claimed_and_doing_it_again_is_right() -> None:
    rig = Rig()
    await rig.platform.open()
    events = await rig.append("a", AccountCreated(customer_id="c"), deposit(3))
    rig.tables.works.clear()
    answers = await rig.platform.publish(events, timeout=0.05)
    assert [type(answer) for answer in answers] == [UnknownOutcomeError] * 2
    rig.tables.works.set()
    assert [type(answer) for answer in await rig.platform.publish(events, timeout=5)] == [Receipt] * 2
    await rig.check("a")


async def test_a_parked_event_counts_as_delivered() -> None:
    store, read_models = MemoryEventStore(registry=registry), MemoryReadModels()
    projector = Projector([summaries(poison=13)], store, read_models)
    platform = ProjectionPublisher(projector)
    await platform.open()
    recorded = await store.append("a", [AccountCreated(customer_id="c"), deposit(13)], expected_sequence=0)
    answers = await platform.publish([event.encoded for event in recorded], timeout=5)
    assert [type(answer) for answer in answers] == [Receipt] * 2
    assert [event.position async for event in projector.parked("AccountSummary")] == ["a@2"]


class BrokenTables(MemoryReadModelTables):
    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None

    async def get(self, keys: Any) -> Any:
        if self.error is not None:
            raise self.error
        return await super().get(keys)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StorageUnavailableError("throttled", code="Throttling", retry_after=3.0), TransientError),
        (TransactionConflictError("others"), TransientError),
        (StorageDeniedError("no such table", code="ResourceNotFoundException"), PlatformDeniedError),
        (ConfigurationError("table", ["of another shape"]), PlatformDeniedError),
        (StorageOutcomeUnknownError("no answer"), UnknownOutcomeError),
        (StorageRejectedError("too large"), AddressDeniedError),
        (ProjectionError("no event a@1"), AddressDeniedError),
        (RuntimeError("a bug"), TransientError),
        (EventRejectedError("as it is"), EventRejectedError),
    ],
)
async def test_errors_are_of_the_class_that_says_what_to_do(error: Exception, expected: type[Exception]) -> None:
    tables = BrokenTables()
    store = MemoryEventStore(registry=registry)
    platform = ProjectionPublisher(Projector([summaries()], store, ReadModels(tables)))
    await platform.open()
    await platform.check()
    [event] = await store.append("a", [AccountCreated(customer_id="c")], expected_sequence=0)
    tables.error = error
    [answer] = await platform.publish([event.encoded], timeout=5)
    assert type(answer) is expected
    if isinstance(error, StorageUnavailableError):
        assert isinstance(answer, PublishError)
        assert (answer.code, answer.retry_after) == ("Throttling", 3.0)
    with pytest.raises(expected):
        await platform.check()
    with pytest.raises(expected):
        await ProjectionPublisher(Projector([summaries()], store, ReadModels(tables))).open()
    tables.error = None
    assert [type(answer) for answer in await platform.publish([event.encoded], timeout=5)] == [Receipt]


def test_the_cause_is_kept() -> None:
    cause = StorageUnavailableError("throttled")
    assert publish_error_of(cause).__cause__ is cause


async def test_the_handler_of_a_receiver_refuses_what_is_no_event_of_the_store() -> None:
    rig = Rig()
    handle = received_events_handler(rig.projector)
    [good] = await rig.append("a", AccountCreated(customer_id="c"))
    results = await handle([encode(build_event("t", "/elsewhere", {})), good])
    assert isinstance(results[0], InvalidEventError)
    assert results[1] is None
    await rig.check("a")
    assert await handle([]) == []
