"""Personal data in a whole system on DynamoDB: it lies nowhere in clear text, and is forgotten everywhere."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
import pytest
from pydantic import BaseModel

from oms_events._aws.dynamodb import DynamoClient
from oms_events._aws.marshal import binary_text
from oms_events.errors import DuplicateCommandError, EventUnreadableError, PayloadMismatchError, PersonalDataError
from oms_events.eventstore.aggregates.aggregate import Aggregate
from oms_events.eventstore.aggregates.dynamodb import DynamoDBSnapshotStore
from oms_events.eventstore.aggregates.repository import Repository, RepositoryConfig
from oms_events.eventstore.config import EventStoreConfig, PersonalKeysConfig, ProjectionTables, SnapshotConfig
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.items import CHECKSUM, DATA
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.personal.dynamodb import DynamoDBSubjectKeys
from oms_events.eventstore.personal.encryption import PersonalDataCipher
from oms_events.eventstore.personal.keys import MemorySubjectKeys
from oms_events.eventstore.personal.marks import FORGOTTEN, Personal
from oms_events.eventstore.projections.dynamodb import DynamoDBReadModels
from oms_events.eventstore.projections.projection import Projection
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.schema import CHECKPOINTS, EVENT_STORE, PERSONAL_KEYS, READ_MODEL, SNAPSHOTS
from oms_events.outbox.config import OutboxConfig
from oms_events.outbox.outbox import DynamoDBOutbox
from tests.eventstore.support import fresh_table
from tests.outbox.support import Settings

ANN, BOB = "customer-1", "customer-2"
SECRETS = ("Ann Margaret Smith", "Ännchen von Tharau", "ann@mail.example.com", "Main Street No. 7")
"""What must lie nowhere."""

registry = EventRegistry()


class Address(BaseModel, frozen=True):
    street: Annotated[str, Personal()]
    country: str


@registry.event(version=2)
class Registered(BaseModel, frozen=True):
    full_name: Annotated[str, Personal()]
    mail: Annotated[str | None, Personal()] = None
    address: Address | None = None
    plan: str = "basic"


@registry.upcaster("Registered", from_version=1)
def _name_was_short(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "full_name": data.pop("name")}


@registry.event
class NoteTaken(BaseModel, frozen=True):
    note: Annotated[str, Personal()]


@registry.event
class PlanChanged(BaseModel, frozen=True):
    plan: str


@registry.event
class PersonForgotten(BaseModel, frozen=True):
    reason: str = "asked to be"


Event = Registered | NoteTaken | PlanChanged | PersonForgotten


class Customer(BaseModel, frozen=True):
    name: Annotated[str, Personal()] = ""
    greeting: Annotated[str, Personal()] = ""
    address: Address | None = None
    notes: list[Annotated[str, Personal()]] = []
    plan: str = "none"


class Register(BaseModel, frozen=True):
    name: Annotated[str, Personal()]
    mail: Annotated[str | None, Personal()] = None
    street: Annotated[str, Personal()] = SECRETS[3]


class TakeNote(BaseModel, frozen=True):
    note: Annotated[str, Personal()]


class ChangePlan(BaseModel, frozen=True):
    plan: str


class Forget(BaseModel, frozen=True):
    pass


def decide(customer: Customer, command: Register | TakeNote | ChangePlan | Forget) -> Sequence[Event]:
    match command:
        case Register():
            address = Address(street=command.street, country="DE")
            return [Registered(full_name=command.name, mail=command.mail, address=address)]
        case TakeNote():
            return [NoteTaken(note=command.note)]
        case ChangePlan():
            return [PlanChanged(plan=command.plan)]
        case Forget():
            return [PersonForgotten()]


def evolve(customer: Customer, event: Event) -> Customer:
    match event:
        case Registered():
            changes: dict[str, Any] = {
                "name": event.full_name, "greeting": f"Dear {event.full_name}", "address": event.address,
                "plan": event.plan,
            }  # fmt: skip
        case NoteTaken():
            changes = {"notes": [*customer.notes, event.note]}
        case PlanChanged():
            changes = {"plan": event.plan}
        case PersonForgotten():
            changes = {}
    return customer.model_copy(update=changes)


customers: Aggregate[Customer, Any, Any] = Aggregate(
    name="Customer", state=Customer, initial=lambda _: Customer(), decide=decide, evolve=evolve
)


class Card(BaseModel):
    name: str = ""
    plan: str = ""


def cards(version: int = 1) -> Projection[Card]:
    projection = Projection("Card", Card, version=version, registry=registry)

    @projection.on(Registered)
    def registered(card: Card | None, event: Registered, recorded: RecordedEvent) -> Card:
        return Card(name=event.full_name, plan=event.plan)

    @projection.on(PlanChanged)
    def changed(card: Card | None, event: PlanChanged, recorded: RecordedEvent) -> Card:
        return Card(name=card.name if card else "", plan=event.plan)

    @projection.on(PersonForgotten)
    def forgotten(card: Card | None, event: PersonForgotten, recorded: RecordedEvent) -> Card | None:
        return card and Card(name=FORGOTTEN, plan=card.plan)

    return projection


@dataclass
class System:
    """All tables, and everything that is opened on them."""

    store: DynamoDBEventStore
    repository: Repository[Customer, Any, Any]
    read_models: DynamoDBReadModels
    cipher: PersonalDataCipher
    outbox: DynamoDBOutbox
    dynamo: DynamoClient
    tables: dict[str, str]

    async def project(self, projection: Projection[Card] | None = None) -> None:
        async with Projector([projection or cards()], self.store, self.read_models) as projector:
            for aggregate_id in (ANN, BOB):
                await projector.catch_up(aggregate_id)

    async def card(self, projection: Projection[Card] | None = None) -> dict[str, Any] | None:
        row = await self.read_models.row(projection or "Card", ANN, version=2 if projection else None)
        return None if row is None else {name: row[name] for name in ("name", "plan")}

    async def lies_in(self, table: str, text: str) -> bool:
        """Whether a table has a text, as such, in base64 or escaped."""
        name = self.tables[table]
        answer = await self.dynamo.call("Scan", {"TableName": name, "ConsistentRead": True}, table=name)
        assert "LastEvaluatedKey" not in answer
        raw = orjson.dumps(answer["Items"], default=binary_text).decode()
        forms = {text, json.dumps(text)[1:-1], json.dumps(json.dumps(text))[3:-3], text.encode().hex()}
        in_base64 = {base64.b64encode((" " * n + text).encode()).decode()[4:-4] for n in range(3)}
        # Of a short text nothing is left of which that is certain.
        return any(form in raw for form in (*forms, *(form for form in in_base64 if len(form) >= 12)))

    async def leaks(self) -> dict[str, list[str]]:
        """Which tables have which secrets in clear text."""
        found = {name: [text for text in SECRETS if await self.lies_in(name, text)] for name in self.tables}
        return {name: texts for name, texts in found.items() if texts}


@pytest.fixture
async def system(aws: Settings, dynamo: DynamoClient, table_config: OutboxConfig) -> AsyncIterator[System]:
    shapes = {
        "events": EVENT_STORE, "snapshots": SNAPSHOTS, "rows": READ_MODEL, "checkpoints": CHECKPOINTS,
        "keys": PERSONAL_KEYS,
    }  # fmt: skip
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        tables = {name: await enter(fresh_table(dynamo, shape, name)) for name, shape in shapes.items()}
        outbox = await enter(DynamoDBOutbox(table_config))
        keys = await enter(DynamoDBSubjectKeys(PersonalKeysConfig(table_name=tables["keys"], **aws)))
        cipher = PersonalDataCipher(keys)
        config = EventStoreConfig(table_name=tables["events"], **aws)
        store = await enter(DynamoDBEventStore(config, outbox=outbox, registry=registry, cipher=cipher))
        snapshots = await enter(DynamoDBSnapshotStore(SnapshotConfig(table_name=tables["snapshots"], **aws)))
        repository = Repository(store, customers, snapshots=snapshots, config=RepositoryConfig(snapshot_every=2))
        both = ProjectionTables(read_model_table=tables["rows"], checkpoint_table=tables["checkpoints"], **aws)
        read_models = await enter(DynamoDBReadModels(both))
        tables["outbox"] = table_config.table_name
        yield System(store, repository, read_models, cipher, outbox, dynamo, tables)


async def _live(system: System) -> None:
    """Two customers, a command id, snapshots, rows."""
    execute = system.repository.execute
    ann = Register(name=SECRETS[0], mail=SECRETS[2])
    executed = await execute(ANN, ann, command_id="c-1")
    assert executed.events[0].domain_event == Registered(
        full_name=SECRETS[0], mail=SECRETS[2], address=Address(street=SECRETS[3], country="DE")
    )
    await execute(BOB, Register(name="Bob"), command_id="c-2")
    await execute(ANN, TakeNote(note=f"is called {SECRETS[1]}"))
    for number in range(4):
        await execute(ANN, ChangePlan(plan=f"plan-{number}"))
    await system.project()


async def test_it_lies_nowhere_in_clear_text_but_in_rows_and_is_forgotten_everywhere(system: System) -> None:
    await _live(system)
    # The search finds what is there.
    for table in ("events", "outbox", "snapshots", "rows"):
        assert await system.lies_in(table, "plan-"), table
    assert await system.lies_in("events", "$personal")
    assert await system.lies_in("outbox", "$personal")
    assert await system.lies_in("snapshots", "$personal")
    assert await system.leaks() == {"rows": [SECRETS[0]]}
    before = await system.repository.load(ANN)
    assert before == Customer(
        name=SECRETS[0],
        greeting=f"Dear {SECRETS[0]}",
        address=Address(street=SECRETS[3], country="DE"),
        notes=[f"is called {SECRETS[1]}"],
        plan="plan-3",
    )
    assert await system.card() == {"name": SECRETS[0], "plan": "plan-3"}

    await system.repository.execute(ANN, Forget())
    await system.cipher.forget(ANN)
    await system.project()

    assert await system.leaks() == {}
    assert await system.card() == {"name": FORGOTTEN, "plan": "plan-3"}
    after = await system.repository.load(ANN)
    gone = Address(street=FORGOTTEN, country="DE")
    # From a snapshot that was made before, in which the greeting was personal.
    assert after == Customer(name=FORGOTTEN, greeting=FORGOTTEN, address=gone, notes=[FORGOTTEN], plan="plan-3")
    assert (await system.repository.load(BOB)).name == "Bob"


async def test_history_stays_readable_and_typed_and_goes_on(system: System) -> None:
    await _live(system)
    await system.cipher.forget(ANN)
    events = [event async for event in system.store.read(ANN)]
    assert [type(event.domain_event).__name__ for event in events] == [
        "Registered", "NoteTaken", *["PlanChanged"] * 4,
    ]  # fmt: skip
    first = events[0].domain_event
    assert first == Registered(
        full_name=FORGOTTEN, mail=FORGOTTEN, address=Address(street=FORGOTTEN, country="DE")
    )
    assert [event.domain_event async for event in system.store.events_by_type("NoteTaken")] == [
        NoteTaken(note=FORGOTTEN)
    ]
    assert (await system.repository.load(ANN, up_to_sequence=1)).name == FORGOTTEN
    # Commands without personal data go on, and so do snapshots of the forgotten state, also from the events alone.
    async with open_snapshots(system, "more") as snapshots:
        config = RepositoryConfig(snapshot_every=2)
        repository = Repository(system.store, customers, snapshots=snapshots, config=config)
        assert (await repository.load(ANN)).greeting == f"Dear {FORGOTTEN}"
        assert await system.lies_in("more", "plan-3")
    for number in range(4, 9):
        executed = await system.repository.execute(ANN, ChangePlan(plan=f"plan-{number}"))
    assert executed.state.plan == "plan-8"
    assert await system.lies_in("snapshots", "plan-7")
    assert (await system.repository.load(ANN)).name == FORGOTTEN
    assert await system.leaks() == {"rows": [SECRETS[0]]}
    with pytest.raises(PersonalDataError, match=r"note: the person 'customer-1' was forgotten"):
        await system.repository.execute(ANN, TakeNote(note="new"))
    assert (await system.repository.load_with_sequence(ANN)).sequence == 11


async def test_a_rebuild_after_forgetting_has_no_clear_text(system: System) -> None:
    await _live(system)
    await system.cipher.forget(ANN)
    newer = cards(version=2)
    await system.project(newer)
    assert await system.card(newer) == {"name": FORGOTTEN, "plan": "plan-3"}


async def test_the_marker_of_a_command_keeps_nothing_that_could_be_guessed_back(system: System) -> None:
    await system.repository.execute(ANN, Register(name=SECRETS[0]), command_id="c-1")
    one = await system.store.marker(ANN, "c-1")
    await system.repository.execute(BOB, Register(name="Bob"), command_id="c-1")
    other = await system.store.marker(BOB, "c-1")
    assert one is not None
    assert other is not None
    assert one.fingerprint == other.fingerprint
    with pytest.raises((PayloadMismatchError, DuplicateCommandError)):
        await system.repository.execute(ANN, ChangePlan(plan="x"), command_id="c-1")


async def test_events_that_were_renamed_since_are_revealed_and_forgotten(system: System) -> None:
    older = EventRegistry()

    @older.event(type="Registered")
    class RegisteredBefore(BaseModel):
        name: Annotated[str, Personal()]

    config = EventStoreConfig(table_name=system.tables["events"], **_aws_of(system))
    async with DynamoDBEventStore(config, registry=older, cipher=system.cipher) as store:
        await store.append(ANN, [RegisteredBefore(name=SECRETS[0])], expected_sequence=0)
    assert await system.leaks() == {}
    assert [event.domain_event async for event in system.store.read(ANN)] == [Registered(full_name=SECRETS[0])]
    await system.cipher.forget(ANN)
    assert [event.domain_event async for event in system.store.read(ANN)] == [Registered(full_name=FORGOTTEN)]


async def test_a_damaged_event_is_named_with_its_position(system: System) -> None:
    await _live(system)
    key = {"AggregateId": {"S": ANN}, "EventSequence": {"N": "2"}}
    table = system.tables["events"]
    answer = await system.dynamo.call("GetItem", {"TableName": table, "Key": key}, table=table)
    data = json.loads(answer["Item"][DATA]["S"])
    data["note"]["$personal"]["s"] = BOB
    item = {**answer["Item"], DATA: {"S": json.dumps(data)}}
    item.pop(CHECKSUM)
    await system.dynamo.call("PutItem", {"TableName": table, "Item": item}, table=table)
    with pytest.raises(PersonalDataError, match=r"^customer-1@2: note of subject 'customer-2': ") as caught:
        [event async for event in system.store.read(ANN)]
    assert caught.value.subject == BOB


async def test_without_the_cipher_it_is_unreadable_and_not_mistaken_for_text() -> None:
    keys = MemorySubjectKeys()
    store = MemoryEventStore(registry=registry, cipher=PersonalDataCipher(keys))
    await store.append(ANN, [NoteTaken(note="x")], expected_sequence=0)
    bare = MemoryEventStore(registry=registry)
    bare.table = store.table
    (event,) = [event async for event in bare.read(ANN)]
    with pytest.raises(EventUnreadableError, match="note: Input should be a valid string"):
        _ = event.domain_event


@asynccontextmanager
async def open_snapshots(system: System, name: str) -> AsyncIterator[DynamoDBSnapshotStore]:
    async with fresh_table(system.dynamo, SNAPSHOTS, "snapshots") as table:
        system.tables[name] = table
        async with DynamoDBSnapshotStore(SnapshotConfig(table_name=table, **_aws_of(system))) as snapshots:
            yield snapshots
    del system.tables[name]


def _aws_of(system: System) -> Settings:
    config = system.store.config
    names = ("aws_region", "endpoint_url", "aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    return {name: getattr(config, name) for name in names}
