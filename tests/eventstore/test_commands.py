from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

from oms_events._aws.dynamodb import DynamoClient
from oms_events.devstack import Denied, FaultProxy, LoseAnswer
from oms_events.errors import (
    CommandRejectedError,
    ConcurrencyError,
    ConfigurationError,
    PayloadMismatchError,
    PersonForgottenError,
    RequestError,
    StorageDeniedError,
    StorageError,
    StorageUnavailableError,
)
from oms_events.eventstore.aggregates.aggregate import Aggregate
from oms_events.eventstore.aggregates.repository import Repository, RepositoryConfig
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.personal.encryption import PersonalDataCipher
from oms_events.eventstore.personal.keys import MemorySubjectKeys
from oms_events.eventstore.personal.marks import Personal
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.requests.commands import CommandDispatcher
from oms_events.eventstore.requests.functions import create_request_handler
from oms_events.eventstore.store import EventStore
from oms_events.outbox.outbox import MemoryOutbox
from tests.eventstore.accounts import AccountClosed, AccountCreated, TransactionProcessed, registry
from tests.eventstore.support import dynamodb_event_store
from tests.outbox.support import Settings

Json = dict[str, Any]


class _Data(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)


class Open(_Data):
    customer_id: Annotated[str, Field(min_length=1)]
    currency: str = "USD"
    pin: SecretStr | None = None


class Line(_Data):
    model_config = ConfigDict(extra="forbid")
    text: str


class Pay(_Data):
    amount: Annotated[Decimal, Field(gt=0, decimal_places=2)]
    kind: Literal["deposit", "withdrawal"]
    lines: tuple[Line, ...] = ()


class Close(BaseModel):
    """Takes no data."""


class Split(BaseModel):
    parts: int


class Account(BaseModel):
    is_open: bool = False
    balance: Decimal = Decimal(0)


def _decide(state: Account, command: BaseModel) -> Sequence[BaseModel]:
    match command:
        case Open():
            if state.is_open:
                raise CommandRejectedError("the account is open already", code="ALREADY_OPEN")
            return [AccountCreated(customer_id=command.customer_id, currency=command.currency)]
        case Pay():
            if command.kind == "withdrawal" and command.amount > state.balance:
                raise CommandRejectedError(
                    f"the balance is {state.balance}", code="INSUFFICIENT_FUNDS", field="commandData.amount"
                )
            return [TransactionProcessed(amount=command.amount, kind=command.kind)]
        case Split():
            return [TransactionProcessed(amount=Decimal(1), kind="deposit")] * command.parts
    return [AccountClosed()] if state.is_open else []


def _evolve(state: Account, event: BaseModel) -> Account:
    match event:
        case AccountCreated():
            return state.model_copy(update={"is_open": True})
        case TransactionProcessed():
            amount = event.amount if event.kind == "deposit" else -event.amount
            return state.model_copy(update={"balance": state.balance + amount})
    return state.model_copy(update={"is_open": False})


accounts = Aggregate(name="Account", state=Account, initial=lambda _: Account(), decide=_decide, evolve=_evolve)


def _dispatcher(store: EventStore, **options: Any) -> CommandDispatcher:
    dispatcher = CommandDispatcher(**options)
    repository = Repository(store, accounts, config=RepositoryConfig(attempts=2))
    dispatcher.register(Open, repository, type="CreateAccount")
    for model in (Pay, Close, Split):
        dispatcher.register(model, repository)
    return dispatcher


def _create(**changes: Any) -> Json:
    return {
        "commandType": "CreateAccount",
        "aggregateId": "account-1",
        "commandId": "command-1",
        "commandData": {"customerId": "c-1", "currency": "EUR"},
        **changes,
    }


def _pay(amount: Any, kind: str = "deposit", **changes: Any) -> Json:
    return _create(commandType="Pay", **{"commandData": {"amount": amount, "kind": kind}, **changes})


async def _refused(dispatcher: CommandDispatcher, request: Any) -> Json:
    """The error of a command's answer, which is the one that `dispatch` raises."""
    answer = await dispatcher.answer(request)
    assert answer.keys() == {"ok", "error"}, answer
    assert answer["ok"] is False
    with pytest.raises(RequestError) as raised:
        await dispatcher.dispatch(request)
    error: Json = answer["error"]
    assert error == {"code": raised.value.code, "message": str(raised.value), "field": raised.value.field}
    return error


async def _history(store: EventStore, aggregate_id: str = "account-1") -> list[str]:
    return [event.type async for event in store.read(aggregate_id)]


@pytest.fixture(params=["memory", "dynamodb"])
async def store(request: pytest.FixtureRequest, aws: Settings, dynamo: DynamoClient) -> AsyncIterator[EventStore]:
    if request.param == "memory":
        yield MemoryEventStore(registry=registry)
    else:
        async with dynamodb_event_store(aws, dynamo) as store:
            yield store


# ---------------------------------------------------------------------- what commands lead to


async def test_a_command_and_its_answer(store: EventStore) -> None:
    dispatcher = _dispatcher(store)
    answer = await dispatcher.answer(_create())
    [event] = [event async for event in store.read("account-1")]
    assert answer == {
        "ok": True,
        "commandType": "CreateAccount",
        "aggregateId": "account-1",
        "commandId": "command-1",
        "sequence": 1,
        "events": [{"type": "AccountCreated", "sequence": 1, "id": event.id}],
        "replayed": False,
    }
    assert json.loads(json.dumps(answer)) == answer
    assert event.data == {"customer_id": "c-1", "currency": "EUR"}
    assert event.encoded.attributes["causationid"] == "command-1"
    assert event.encoded.attributes["correlationid"] == "command-1"


async def test_a_command_that_is_sent_again_is_carried_out_once(store: EventStore) -> None:
    dispatcher = _dispatcher(store)
    first = await dispatcher.dispatch(_create())
    await dispatcher.dispatch(_pay(10, commandId="command-2"))
    again = await dispatcher.dispatch(_create())
    assert again == {**first, "sequence": 2, "replayed": True}
    assert await _history(store) == ["AccountCreated", "TransactionProcessed"]


async def test_an_id_is_of_one_command(store: EventStore) -> None:
    dispatcher = _dispatcher(store)
    await dispatcher.dispatch(_create())
    other = _create(commandData={"customerId": "c-2"})
    with pytest.raises(PayloadMismatchError):
        await dispatcher.dispatch(other)
    answer = await dispatcher.answer(other)
    assert answer["error"]["code"] == "COMMAND_ID_REUSED"
    assert answer["error"]["field"] == "commandId"
    assert "a new command needs a new id" in answer["error"]["message"]
    assert await _history(store) == ["AccountCreated"]


async def test_money_is_exact(store: EventStore) -> None:
    dispatcher = _dispatcher(store)
    await dispatcher.dispatch(_create())
    for at, amount in enumerate((0.1, 0.2, "0.30", 5)):
        await dispatcher.dispatch(_pay(amount, commandId=f"deposit-{at}"))
    amounts = [event.data["amount"] async for event in store.read("account-1", after=1)]
    assert amounts == ["0.1", "0.2", "0.30", "5"]
    assert (await _refused(dispatcher, _pay("5.61", "withdrawal", commandId="w")))["code"] == "INSUFFICIENT_FUNDS"
    assert (await dispatcher.answer(_pay("5.60", "withdrawal", commandId="w")))["ok"]


async def test_the_aggregates_no(store: EventStore) -> None:
    dispatcher = _dispatcher(store)
    await dispatcher.dispatch(_create())
    error = await _refused(dispatcher, _pay(7, "withdrawal", commandId="w-1"))
    assert error == {"code": "INSUFFICIENT_FUNDS", "message": "the balance is 0", "field": "commandData.amount"}
    with pytest.raises(CommandRejectedError):
        await dispatcher.dispatch(_create(commandId="command-2"))
    assert await _history(store) == ["AccountCreated"]


async def test_a_command_without_effect(store: EventStore) -> None:
    answer = await _dispatcher(store).dispatch(_create(commandType="Close", commandData={}))
    assert (answer["sequence"], answer["events"], answer["replayed"]) == (0, [], False)
    again = await _dispatcher(store).dispatch(_create(commandType="Close", commandData={}))
    assert (again["sequence"], again["events"], again["replayed"]) == (0, [], True)


async def test_correlation_and_causation_are_carried_on() -> None:
    store = MemoryEventStore(registry=registry)
    await _dispatcher(store).dispatch(_create(correlationId="order-7", causationId="event-3"))
    [event] = [event async for event in store.read("account-1")]
    assert event.encoded.attributes["correlationid"] == "order-7"
    assert event.encoded.attributes["causationid"] == "event-3"


async def test_an_expected_sequence(store: EventStore) -> None:
    dispatcher = _dispatcher(store)
    await dispatcher.dispatch(_create(expectedSequence=0))
    await dispatcher.dispatch(_pay(5, commandId="p-1", expectedSequence=1))
    late = _pay(5, commandId="p-2", expectedSequence=1)
    with pytest.raises(ConcurrencyError):
        await dispatcher.dispatch(late)
    error = (await dispatcher.answer(late))["error"]
    assert (error["code"], error["field"]) == ("CONCURRENCY_CONFLICT", "expectedSequence")
    assert "was expected at sequence 1, but it is at 2" in error["message"]
    # Sent again, a command that was carried out needs no more than its id.
    again = await dispatcher.answer(_pay(5, commandId="p-1", expectedSequence=1))
    assert (again["ok"], again["replayed"]) == (True, True)


async def test_commands_side_by_side_are_all_carried_out(store: EventStore) -> None:
    dispatcher = CommandDispatcher()
    dispatcher.register(Pay, Repository(store, accounts, config=RepositoryConfig(attempts=100)))
    payments = [_pay(1, commandId=f"p-{at % 8}") for at in range(16)]
    answers = await asyncio.gather(*map(dispatcher.answer, payments))
    assert all(answer["ok"] for answer in answers)
    assert sorted(answer["replayed"] for answer in answers) == [False] * 8 + [True] * 8
    assert await _history(store) == ["TransactionProcessed"] * 8


async def test_a_command_with_too_many_events_is_told_so(store: EventStore) -> None:
    error = (await _dispatcher(store).answer(_create(commandType="Split", commandData={"parts": 101})))["error"]
    assert error["code"] == "TOO_LARGE"
    assert "append at most" in error["message"]


async def test_a_command_with_too_large_an_event_for_the_outbox_is_told_so() -> None:
    store = MemoryEventStore(registry=registry, outbox=MemoryOutbox())
    data = {"customerId": "x" * 400_000}
    error = (await _dispatcher(store).answer(_create(commandData=data)))["error"]
    assert error["code"] == "TOO_LARGE"
    assert "the record of event" in error["message"]
    assert await _history(store) == []


people = EventRegistry()


@people.event
class Met(BaseModel):
    name: Annotated[str, Personal()]


class Meet(BaseModel):
    name: str


async def test_new_data_of_a_forgotten_person_is_refused_for_good() -> None:
    cipher = PersonalDataCipher(MemorySubjectKeys())
    store = MemoryEventStore(registry=people, cipher=cipher)
    aggregate: Aggregate[Account, Meet, Met] = Aggregate(
        name="Person",
        state=Account,
        initial=lambda _: Account(),
        decide=lambda _, command: [Met(name=command.name)],
        evolve=lambda state, _: state,
    )
    dispatcher = CommandDispatcher()
    dispatcher.register(Meet, Repository(store, aggregate))
    met = {"commandType": "Meet", "aggregateId": "ann", "commandId": "1", "commandData": {"name": "Ann"}}
    before = await dispatcher.answer(met)
    await cipher.forget("ann")
    refused = await dispatcher.answer({**met, "commandId": "2"})
    assert refused["error"]["code"] == "PERSON_FORGOTTEN"
    assert "Ann" not in refused["error"]["message"]
    with pytest.raises(PersonForgottenError) as error:
        await dispatcher.dispatch({**met, "commandId": "2"})
    assert error.value.subject == "ann"
    # What was carried out before that is told as ever.
    assert await dispatcher.answer(met) == {**before, "replayed": True}


# ---------------------------------------------------------------------- what is wrong with requests


@pytest.mark.parametrize(
    ("request_", "code", "field", "message"),
    [
        (7, "INVALID_REQUEST", None, "command: give a JSON object, not int"),
        (
            {},
            "INVALID_REQUEST",
            "commandType",
            "command: field 'commandType' is missing; give one of Close, CreateAccount, Pay, Split",
        ),
        (_create(commandType=None), "INVALID_REQUEST", "commandType", "is missing"),
        (_create(commandType=["Pay"]), "INVALID_REQUEST", "commandType", "commandType = ['Pay']: give a name"),
        (
            _create(commandType="CreatAccount"),
            "UNKNOWN_COMMAND",
            "commandType",
            "command: commandType = 'CreatAccount' is not known; did you mean 'CreateAccount'?",
        ),
        (
            _create(commandType="Zap"),
            "UNKNOWN_COMMAND",
            "commandType",
            "is not known; known: Close, CreateAccount, Pay, Split",
        ),
        (
            _create(commandId=None),
            "INVALID_REQUEST",
            "commandId",
            "CreateAccount: field 'commandId' is missing; give each command an id of its own, and the same one "
            "when you send it again: only so it is carried out once",
        ),
        (_create(commandId=""), "INVALID_REQUEST", "commandId", "commandId = '': give it some text"),
        (_create(commandId=5), "INVALID_REQUEST", "commandId", "commandId = 5: Input should be a valid string"),
        (_create(commandId="a" * 901), "INVALID_REQUEST", "commandId", "has 901 bytes of UTF-8; at most 900 fit"),
        (_create(commandId="a\x85"), "INVALID_REQUEST", "commandId", "has control characters"),
        (_create(commandId="a\ufffe"), "INVALID_REQUEST", "commandId", "or noncharacters"),
        (_create(commandId="a\U0010ffff"), "INVALID_REQUEST", "commandId", "or noncharacters"),
        (_create(correlationId="\ufdd0"), "INVALID_REQUEST", "correlationId", "or noncharacters"),
        (_create(aggregateId="a\nb"), "INVALID_REQUEST", "aggregateId", "has control characters"),
        (_create(aggregateId="a\U0001fffe"), "INVALID_REQUEST", "aggregateId", "or noncharacters"),
        (_create(aggregateId="command#x"), "INVALID_REQUEST", "aggregateId", "begins the keys of commands"),
        (
            _create(commandData=None),
            "INVALID_REQUEST",
            "commandData",
            "CreateAccount: field 'commandData' is missing; give an object, {} for none",
        ),
        (_create(commandData=[1]), "INVALID_REQUEST", "commandData", "commandData: give an object, not list"),
        (_create(expectedSequence=True), "INVALID_REQUEST", "expectedSequence", "Input should be a valid integer"),
        (_create(expectedSequence=-1), "INVALID_REQUEST", "expectedSequence", "greater than or equal to 0"),
        (
            _create(expectedSequence=10**16 - 1),
            "INVALID_REQUEST",
            "expectedSequence",
            "less than 9999999999999999",
        ),
        (_create(correlationId=""), "INVALID_REQUEST", "correlationId", "at least 1 character"),
        (_create(correlationId="a\nb"), "INVALID_REQUEST", "correlationId", "has control characters"),
        (_create(causationId="\x00"), "INVALID_REQUEST", "causationId", "has control characters"),
        (
            _create(comandData={}),
            "INVALID_REQUEST",
            "comandData",
            "CreateAccount: unknown field 'comandData'; did you mean 'commandData'?",
        ),
        (
            _create(commandData={"customerId": "c-1", "curency": "EUR"}),
            "INVALID_REQUEST",
            "commandData.curency",
            "CreateAccount: unknown field 'commandData.curency'; did you mean 'currency'?",
        ),
        (
            _create(commandData={"customer_id": "c-1"}),
            "INVALID_REQUEST",
            None,
            "CreateAccount: unknown field 'commandData.customer_id'; did you mean 'customerId'?; field "
            "'commandData.customerId' is missing; give it a value",
        ),
        (
            _create(commandData={"customerId": ""}),
            "INVALID_REQUEST",
            "commandData.customerId",
            "commandData.customerId: String should have at least 1 character",
        ),
        (
            _create(commandType="Close", commandData={"a": 1}),
            "INVALID_REQUEST",
            "commandData.a",
            "known fields: none",
        ),
        (
            _create(commandData={"customerId": "c-1", "currency": {"$personal": {}}}),
            "INVALID_REQUEST",
            None,
            "commandData: a member named '$personal' is how encrypted data looks",
        ),
        (_pay(float("nan")), "INVALID_REQUEST", "commandData.amount", "amount: is nothing that JSON has"),
        (_pay(Decimal(1)), "INVALID_REQUEST", "commandData.amount", "amount: is nothing that JSON has"),
        (_pay("much"), "INVALID_REQUEST", "commandData.amount", "Input should be a valid decimal"),
        (_create(aggregateId="a\udc00"), "INVALID_REQUEST", "aggregateId", "has half a character"),
    ],
)
async def test_bad_commands_are_told_what_to_do(request_: Any, code: str, field: str | None, message: str) -> None:
    store = MemoryEventStore(registry=registry)
    error = await _refused(_dispatcher(store), request_)
    assert (error["code"], error["field"]) == (code, field)
    assert message in error["message"]
    assert await _history(store) == []


async def test_all_problems_are_told_together() -> None:
    request = {
        "commandType": "Pay",
        "commandId": 3,
        "commandData": {"amount": -1, "kind": "gift", "lines": [{"text": "a"}, {"texd": "b"}], "note": "x"},
        "expectedSequence": "1",
    }
    error = await _refused(_dispatcher(MemoryEventStore(registry=registry)), request)
    assert error["message"].split("; ") == [
        "Pay: field 'aggregateId' is missing",
        "give it a value",
        "commandId = 3: Input should be a valid string",
        "expectedSequence = '1': Input should be a valid integer",
        "unknown field 'commandData.note'",
        "known fields: amount, kind, lines",
        "commandData.amount: Input should be greater than 0",
        "commandData.kind: Input should be 'deposit' or 'withdrawal'",
        "field 'commandData.lines.1.text' is missing",
        "give it a value",
        "unknown field 'commandData.lines.1.texd'",
        "leave it out",
    ]


async def test_no_message_repeats_the_data_of_a_command() -> None:
    dispatcher = _dispatcher(MemoryEventStore(registry=registry))
    error = await _refused(
        dispatcher, _create(commandData={"customerId": ["s3cret"], "pin": {"s3cret": "s3cret"}})
    )
    assert "commandData.customerId: " in error["message"]
    assert "commandData.pin: " in error["message"]
    assert "s3cret" not in json.dumps(error)
    error = await _refused(dispatcher, _create(commandData={"customerId": "s3cret\ud800"}))
    assert error["field"] == "commandData.customerId"
    assert "s3cret" not in json.dumps(error)


class Named(BaseModel):
    first: str = Field(default="", validation_alias=AliasChoices("first", "firstName"))
    last: str = Field(default="", alias="lastName")
    model_config = ConfigDict(populate_by_name=True)


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")


@pytest.mark.parametrize(
    ("name", "data", "is_fine"),
    [
        ("Named", {"first": "A", "lastName": "B"}, True),
        ("Named", {"firstName": "A", "last": "B"}, True),
        ("Named", {"Last": "B"}, False),
        ("Loose", {"anything": 1}, True),
    ],
)
async def test_which_fields_a_command_takes(name: str, data: Json, is_fine: bool) -> None:
    dispatcher = CommandDispatcher()
    repository = Repository(MemoryEventStore(registry=registry), accounts)
    dispatcher.register(Named, repository)
    dispatcher.register(Loose, repository)
    answer = await dispatcher.answer(_create(commandType=name, commandData=data))
    assert answer["ok"] is is_fine, answer


async def test_without_command_ids_where_that_is_allowed() -> None:
    store = MemoryEventStore(registry=registry)
    dispatcher = _dispatcher(store, command_id_required=False)
    request = _pay(1)
    del request["commandId"]
    answers = [await dispatcher.dispatch(request) for _ in range(2)]
    assert [answer["commandId"] for answer in answers] == [None, None]
    assert await _history(store) == ["TransactionProcessed"] * 2
    [first, _] = [event async for event in store.read("account-1")]
    assert "correlationid" not in first.encoded.attributes


async def test_a_request_is_not_changed() -> None:
    request = _create()
    await _dispatcher(MemoryEventStore(registry=registry)).dispatch(request)
    assert request == _create()


def test_what_cannot_be_a_command() -> None:
    dispatcher = _dispatcher(MemoryEventStore(registry=registry))
    repository = Repository(MemoryEventStore(registry=registry), accounts)
    with pytest.raises(ConfigurationError, match="'Pay' is Pay already; give another type"):
        dispatcher.register(Pay, repository)
    with pytest.raises(ConfigurationError, match="is no pydantic model"):
        dispatcher.register(dict, repository)  # type: ignore[arg-type]
    assert dispatcher.command_types == ("Close", "CreateAccount", "Pay", "Split")


# ---------------------------------------------------------------------- what may go well later


class _Busy(MemoryEventStore):
    """Somebody else is always there first."""

    async def append(self, aggregate_id: str, events: Any, **options: Any) -> Any:
        await super().append(aggregate_id, [AccountClosed()], expected_sequence=options["expected_sequence"])
        return await super().append(aggregate_id, events, **options)


async def test_a_conflict_that_may_pass_is_raised() -> None:
    dispatcher = _dispatcher(_Busy(registry=registry))
    with pytest.raises(ConcurrencyError):
        await dispatcher.answer(_pay(1))


@pytest.mark.parametrize("operation", ["Query", "TransactWriteItems"])
async def test_storage_errors_are_raised_and_the_command_is_sent_again(
    aws: Settings, dynamo: DynamoClient, oms_fault_proxy: FaultProxy, operation: str
) -> None:
    through = {**aws, "endpoint_url": oms_fault_proxy.endpoint_url}
    async with dynamodb_event_store(through, dynamo) as store:
        dispatcher = _dispatcher(store)
        oms_fault_proxy.script(Denied(), operation=operation)
        with pytest.raises(StorageDeniedError):
            await dispatcher.answer(_create())
        assert (await dispatcher.answer(_create()))["ok"]
        assert await _history(store) == ["AccountCreated"]


async def test_a_lost_answer_is_no_second_effect(
    aws: Settings, dynamo: DynamoClient, oms_fault_proxy: FaultProxy
) -> None:
    through = {**aws, "endpoint_url": oms_fault_proxy.endpoint_url}
    async with dynamodb_event_store(through, dynamo) as store:
        oms_fault_proxy.script(LoseAnswer(), operation="TransactWriteItems")
        answer = await _dispatcher(store).dispatch(_create())
        assert answer["sequence"] == 1
        assert (await _dispatcher(store).dispatch(_create()))["replayed"]
        assert await _history(store) == ["AccountCreated"]


async def test_a_dispatcher_as_a_function() -> None:
    store = MemoryEventStore(registry=registry)
    opened: list[str] = []

    @asynccontextmanager
    async def open_dispatcher() -> AsyncIterator[CommandDispatcher]:
        opened.append("opened")
        yield _dispatcher(store)
        opened.append("closed")

    handler = create_request_handler(open_dispatcher)
    assert opened == []

    def invoke() -> list[Json]:
        answers = [handler(_create(), None), handler(_create(), None), handler({"commandType": "Zap"}, None)]
        handler.close()
        handler.close()
        return answers

    first, second, third = await asyncio.to_thread(invoke)
    assert (first["ok"], first["replayed"]) == (True, False)
    assert (second["ok"], second["replayed"]) == (True, True)
    assert third["error"]["code"] == "UNKNOWN_COMMAND"
    assert opened == ["opened", "closed"]


async def test_a_function_that_could_not_be_opened_opens_at_the_next_call() -> None:
    tries: list[int] = []

    @asynccontextmanager
    async def open_dispatcher() -> AsyncIterator[CommandDispatcher]:
        tries.append(1)
        if len(tries) == 1:
            raise StorageUnavailableError("no connection")
        yield _dispatcher(MemoryEventStore(registry=registry))

    handler = create_request_handler(open_dispatcher)

    def invoke() -> Json:
        with pytest.raises(StorageError):
            handler(_create(), None)
        answer = handler(_create(), None)
        handler.close()
        return answer

    assert (await asyncio.to_thread(invoke))["ok"]
