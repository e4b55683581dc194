from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Collection, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, create_model

from oms_events._aws.dynamodb import DynamoClient
from oms_events.errors import ConfigurationError, NotFoundError, RequestError, StorageUnavailableError
from oms_events.eventstore.aggregates.aggregate import Aggregate
from oms_events.eventstore.aggregates.repository import Repository
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.personal.encryption import PersonalDataCipher
from oms_events.eventstore.personal.keys import MemorySubjectKeys, SubjectKey
from oms_events.eventstore.personal.marks import Personal
from oms_events.eventstore.projections.projection import Projection
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.projections.read_models import MemoryReadModels
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.requests.page_tokens import write_token
from oms_events.eventstore.requests.queries import QueryDispatcher
from oms_events.eventstore.requests.requests import RequestModel
from oms_events.eventstore.store import EventStore
from oms_events.outbox.outbox import MemoryOutbox
from oms_events.testing.clock import ManualClock
from tests.eventstore.accounts import AccountClosed, AccountCreated, TransactionProcessed, deposit, registry
from tests.eventstore.support import dynamodb_event_store
from tests.outbox.support import Settings

START = datetime(2026, 1, 1, tzinfo=UTC)
Json = dict[str, Any]


class Total(BaseModel):
    owner: str = ""
    total: int = 0
    deposits: int = 0


def _after(state: Total, event: BaseModel) -> Total:
    match event:
        case AccountCreated():
            return state.model_copy(update={"owner": event.customer_id})
        case TransactionProcessed():
            return state.model_copy(
                update={"total": state.total + int(event.amount), "deposits": state.deposits + 1}
            )
    return state


accounts = Aggregate(
    name="Account",
    state=Total,
    initial=lambda _: Total(),
    decide=lambda _, command: [command],
    evolve=_after,
)
carts = Aggregate(
    name="Cart",
    state=Total,
    initial=lambda _: Total(),
    decide=lambda _, command: [command],
    evolve=lambda state, _: state.model_copy(update={"deposits": state.deposits + 100}),
)

totals = Projection("Totals", Total, registry=registry)


@totals.on(AccountCreated, TransactionProcessed)
def _project(row: Total | None, event: BaseModel, _: Any) -> Total:
    return _after(row or Total(), event)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture(params=["memory", "dynamodb"])
async def store(
    request: pytest.FixtureRequest, clock: ManualClock, aws: Settings, dynamo: DynamoClient
) -> AsyncIterator[EventStore]:
    if request.param == "memory":
        yield MemoryEventStore(registry=registry, clock=clock)
    else:
        async with dynamodb_event_store(aws, dynamo, clock=clock) as store:
            yield store


@pytest.fixture
def memory(clock: ManualClock) -> MemoryEventStore:
    return MemoryEventStore(registry=registry, clock=clock)


def _dispatcher(store: EventStore, clock: ManualClock, **options: Any) -> QueryDispatcher:
    dispatcher = QueryDispatcher(store, clock=clock, **options)
    dispatcher.repository(Repository(store, accounts))
    return dispatcher


async def _all_pages(dispatcher: QueryDispatcher, request: Json) -> list[Json]:
    """The answers of all pages, asked for with the same request."""
    answers = [await dispatcher.dispatch(request)]
    while (token := answers[-1]["nextToken"]) is not None:
        answers.append(await dispatcher.dispatch({**request, "nextToken": token}))
        assert len(answers) < 200
    return answers


async def _refused(dispatcher: QueryDispatcher, request: Any) -> Json:
    """The error of a query's answer, which is the one that `dispatch` raises."""
    answer = await dispatcher.answer(request)
    assert answer.keys() == {"ok", "error"}, answer
    assert answer["ok"] is False
    with pytest.raises(RequestError) as raised:
        await dispatcher.dispatch(request)
    error: Json = answer["error"]
    assert error == {"code": raised.value.code, "message": str(raised.value), "field": raised.value.field}
    return error


# ---------------------------------------------------------------------- the events of an aggregate


async def test_events_of_an_aggregate(store: EventStore, clock: ManualClock) -> None:
    created = AccountCreated(customer_id="c-1", currency="EUR")
    [first] = await store.append(
        "account-1", [created], expected_sequence=0, correlation_id="request-1", causation_id="command-1"
    )
    await clock.advance(1.5)
    [second] = await store.append("account-1", [deposit("12.50")], expected_sequence=1)
    answer = await _dispatcher(store, clock).answer(
        {"queryType": "getAggregateEvents", "aggregateId": "account-1"}
    )
    assert answer == {
        "ok": True,
        "queryType": "getAggregateEvents",
        "aggregateId": "account-1",
        "events": [
            {
                "eventType": "AccountCreated",
                "aggregateId": "account-1",
                "sequence": 1,
                "eventId": first.id,
                "time": "2026-01-01T00:00:00Z",
                "version": 1,
                "data": {"customer_id": "c-1", "currency": "EUR"},
                "correlationId": "request-1",
                "causationId": "command-1",
            },
            {
                "eventType": "TransactionProcessed",
                "aggregateId": "account-1",
                "sequence": 2,
                "eventId": second.id,
                "time": "2026-01-01T00:00:01.500000Z",
                "version": 2,
                "data": {"amount": "12.50", "kind": "deposit"},
                "correlationId": None,
                "causationId": None,
            },
        ],
        "nextToken": None,
    }
    assert json.loads(json.dumps(answer)) == answer


notes = EventRegistry()


@notes.event
class Noted(BaseModel):
    note: Annotated[str, Personal()]
    number: int = 0


async def test_what_nobody_has_a_key_for_is_not_shown(clock: ManualClock) -> None:
    outbox = MemoryOutbox()
    cipher = PersonalDataCipher(MemorySubjectKeys())
    writer = MemoryEventStore(registry=notes, clock=clock, cipher=cipher, outbox=outbox)
    await writer.append("a", [Noted(note="Ann")], expected_sequence=0)
    dispatcher = QueryDispatcher(MemoryEventStore(registry=notes, clock=clock, outbox=outbox), clock=clock)
    answer = await dispatcher.dispatch({"queryType": "getAggregateEvents", "aggregateId": "a"})
    [event] = answer["events"]
    assert event["data"] == {"note": "[encrypted]", "number": 0}
    assert "unreadable" not in event


class _Losing(MemorySubjectKeys):
    """Keys that one person's is lost from."""

    lost = ""

    async def get(self, subjects: Collection[str]) -> Mapping[str, SubjectKey]:
        return {name: key for name, key in (await super().get(subjects)).items() if name != self.lost}


async def test_one_event_that_cannot_be_revealed_does_not_stand_in_the_way_of_others(clock: ManualClock) -> None:
    keys = _Losing()
    store = MemoryEventStore(registry=notes, clock=clock, cipher=PersonalDataCipher(keys, key_ttl=0))
    for name in ("a", "b", "c"):
        await store.append(name, [Noted(note=f"{name} 1"), Noted(note=f"{name} 2")], expected_sequence=0)
        await clock.advance(1)
    keys.lost = "b"
    dispatcher = QueryDispatcher(store, clock=clock)
    seen: list[Json] = []
    token = None
    while True:
        query = {"queryType": "getEventsByType", "eventType": "Noted", "limit": 4, "nextToken": token}
        answer = await dispatcher.dispatch(query)
        seen += answer["events"]
        if (token := answer["nextToken"]) is None:
            break
    found = {(event["aggregateId"], event["sequence"]): event for event in seen}
    assert [found[name, number]["data"]["note"] for name in "abc" for number in (1, 2)] == [
        "a 1", "a 2", "[encrypted]", "[encrypted]", "c 1", "c 2",
    ]  # fmt: skip
    assert {place for place, event in found.items() if "unreadable" in event} == {("b", 1), ("b", 2)}
    assert "its key is not there" in found["b", 1]["unreadable"]
    answer = await dispatcher.dispatch({"queryType": "getAggregateEvents", "aggregateId": "b"})
    assert ["unreadable" in event for event in answer["events"]] == [True, True]
    assert json.loads(json.dumps(answer)) == answer


async def test_data_that_is_no_json_does_not_stand_in_the_way_of_others(clock: ManualClock) -> None:
    cipher = PersonalDataCipher(MemorySubjectKeys())
    store = MemoryEventStore(registry=notes, clock=clock, cipher=cipher)
    await store.append("a", [Noted(note="one"), Noted(note="two")], expected_sequence=0)
    page = await store.table.read("a", after=0)
    page.items[0]["Data"]["S"] = "{"  # type: ignore[index]
    answer = await QueryDispatcher(store).dispatch({"queryType": "getAggregateEvents", "aggregateId": "a"})
    first, second = answer["events"]
    assert first["data"] is None
    assert "no JSON" in first["unreadable"]
    assert second["data"]["note"] == "two"


async def test_the_longest_type_can_be_asked_for(clock: ManualClock) -> None:
    longest = "x" * 1024
    types = EventRegistry()
    event = types.event(type=longest)(create_model("Long", number=(int, 1)))
    store = MemoryEventStore(registry=types, clock=clock)
    await store.append("a", [event()], expected_sequence=0)
    dispatcher = QueryDispatcher(store, clock=clock)
    answer = await dispatcher.dispatch({"queryType": "getEventsByType", "eventType": longest})
    assert [event["eventType"] for event in answer["events"]] == [longest]
    with pytest.raises(RequestError, match="has 1025 bytes of UTF-8; at most 1024 fit"):
        await dispatcher.dispatch({"queryType": "getEventsByType", "eventType": longest + "x"})


@pytest.mark.parametrize(("limit", "pages"), [(1, 7), (2, 4), (3, 3), (6, 2), (7, 1), (8, 1), (1000, 1)])
async def test_pages_of_an_aggregate_are_whole(
    store: EventStore, clock: ManualClock, limit: int, pages: int
) -> None:
    await store.append("account-1", [deposit(n) for n in range(1, 8)], expected_sequence=0)
    await store.append("account-10", [deposit(99)], expected_sequence=0)
    request = {"queryType": "getAggregateEvents", "aggregateId": "account-1", "limit": limit}
    answers = await _all_pages(_dispatcher(store, clock), request)
    assert [event["sequence"] for answer in answers for event in answer["events"]] == [1, 2, 3, 4, 5, 6, 7]
    assert len(answers) == pages
    assert all(len(answer["events"]) == limit for answer in answers[:-1])


async def test_events_after_a_sequence(memory: MemoryEventStore, clock: ManualClock) -> None:
    await memory.append("account-1", [deposit(n) for n in range(1, 6)], expected_sequence=0)
    dispatcher = _dispatcher(memory, clock)
    request = {"queryType": "getAggregateEvents", "aggregateId": "account-1", "afterSequence": 2, "limit": 2}
    answers = await _all_pages(dispatcher, request)
    assert [[event["sequence"] for event in answer["events"]] for answer in answers] == [[3, 4], [5]]
    last = await dispatcher.dispatch({**request, "afterSequence": 5})
    assert last["events"] == []
    assert last["nextToken"] is None


@pytest.mark.parametrize("after", [0, 3])
async def test_an_aggregate_without_events_is_not_found(
    memory: MemoryEventStore, clock: ManualClock, after: int
) -> None:
    request = {"queryType": "getAggregateEvents", "aggregateId": "account-9", "afterSequence": after}
    error = await _refused(_dispatcher(memory, clock), request)
    assert error == {
        "code": "NOT_FOUND",
        "message": "aggregate 'account-9' has no events; check its id",
        "field": "aggregateId",
    }


# ---------------------------------------------------------------------- the events of a type


async def _write_many(store: EventStore, clock: ManualClock) -> list[str]:
    """Deposits of several aggregates, three aggregates at each moment; the events' ids in the order of time."""
    ids = []
    for moment in range(4):
        events = []
        for name in ("account-1", "account-2", "account-3"):
            # Two of one append have one time too.
            events += await store.append(name, [deposit(), deposit()], expected_sequence=2 * moment)
        events.sort(key=lambda event: (event.aggregate_id, event.sequence))
        ids += [event.id for event in events]
        await clock.advance(60)
    return ids


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("limit", [1, 4, 5, 6, 24, 100])
async def test_pages_of_a_type_are_whole_with_equal_times_at_their_borders(
    memory: MemoryEventStore, clock: ManualClock, limit: int, newest_first: bool
) -> None:
    ids = await _write_many(memory, clock)
    await memory.append("account-1", [AccountClosed()], expected_sequence=8)
    request = {
        "queryType": "getEventsByType",
        "eventType": "TransactionProcessed",
        "limit": limit,
        "newestFirst": newest_first,
    }
    answers = await _all_pages(_dispatcher(memory, clock), request)
    found = [event["eventId"] for answer in answers for event in answer["events"]]
    assert found == (ids[::-1] if newest_first else ids)
    assert all(len(answer["events"]) == limit for answer in answers[:-1])


@pytest.mark.parametrize("newest_first", [False, True])
async def test_pages_of_a_type_on_dynamodb(
    aws: Settings, dynamo: DynamoClient, clock: ManualClock, newest_first: bool
) -> None:
    async with dynamodb_event_store(aws, dynamo, clock=clock) as store:
        ids = await _write_many(store, clock)
        request = {
            "queryType": "getEventsByType",
            "eventType": "TransactionProcessed",
            "startTime": "2026-01-01T00:01:00Z",
            "endTime": "2026-01-01T00:03:00Z",
            "limit": 5,
            "newestFirst": newest_first,
        }
        answers = await _all_pages(_dispatcher(store, clock), request)
    found = [event["eventId"] for answer in answers for event in answer["events"]]
    assert found == (ids[6:18][::-1] if newest_first else ids[6:18])
    assert [len(answer["events"]) for answer in answers] == [5, 5, 2]


async def test_relative_times_stay_what_they_were_on_the_first_page(
    memory: MemoryEventStore, clock: ManualClock
) -> None:
    ids = await _write_many(memory, clock)
    dispatcher = _dispatcher(memory, clock)
    request = {
        "queryType": "getEventsByType",
        "eventType": "TransactionProcessed",
        "startTime": "3 minutes ago",
        "endTime": "now",
        "limit": 10,
    }
    first = await dispatcher.dispatch(request)
    await clock.advance(3600)
    await memory.append("account-1", [deposit()], expected_sequence=8)
    await clock.advance(1)
    second = await dispatcher.dispatch({**request, "nextToken": first["nextToken"]})
    found = [event["eventId"] for answer in (first, second) for event in answer["events"]]
    assert found == ids[6:]
    assert second["nextToken"] is None


async def test_a_type_without_events_at_that_time_has_an_empty_page(
    memory: MemoryEventStore, clock: ManualClock
) -> None:
    await memory.append("account-1", [deposit()], expected_sequence=0)
    request = {"queryType": "getEventsByType", "eventType": "TransactionProcessed", "endTime": "1 hour ago"}
    answer = await _dispatcher(memory, clock).dispatch(request)
    assert (answer["events"], answer["nextToken"]) == ([], None)


async def test_a_type_that_nobody_knows_is_not_found(memory: MemoryEventStore, clock: ManualClock) -> None:
    await memory.append("account-1", [deposit()], expected_sequence=0)
    request = {"queryType": "getEventsByType", "eventType": "TransactionProcesed"}
    error = await _refused(_dispatcher(memory, clock), request)
    assert error["code"] == "NOT_FOUND"
    assert error["field"] == "eventType"
    assert "did you mean 'TransactionProcessed'?" in error["message"]


# ---------------------------------------------------------------------- pages and their tokens


async def test_a_page_ends_before_the_answer_is_too_large(memory: MemoryEventStore, clock: ManualClock) -> None:
    # Written as JSON an umlaut takes six bytes, where DynamoDB has two.
    events = [AccountClosed(reason="ä" * 1000) for _ in range(12)]
    await memory.append("account-1", events, expected_sequence=0)
    dispatcher = _dispatcher(memory, clock, max_answer_bytes=20_000)
    for request in (
        {"queryType": "getAggregateEvents", "aggregateId": "account-1"},
        {"queryType": "getEventsByType", "eventType": "AccountClosed"},
    ):
        answers = await _all_pages(dispatcher, request)
        assert [len(answer["events"]) for answer in answers] == [3, 3, 3, 3]
        assert [event["sequence"] for answer in answers for event in answer["events"]] == list(range(1, 13))
        for answer in answers:
            assert len(json.dumps(answer["events"])) <= 20_000


async def test_a_page_has_at_least_one_event(memory: MemoryEventStore, clock: ManualClock) -> None:
    await memory.append("account-1", [AccountClosed(reason="a" * 1000)] * 2, expected_sequence=0)
    dispatcher = _dispatcher(memory, clock, max_answer_bytes=500)
    answers = await _all_pages(dispatcher, {"queryType": "getAggregateEvents", "aggregateId": "account-1"})
    assert [len(answer["events"]) for answer in answers] == [1, 1]


async def test_a_page_reads_little_more_than_it_answers(
    memory: MemoryEventStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start in range(0, 300, 60):
        await memory.append("account-1", [deposit()] * 60, expected_sequence=start)
    read = 0

    def counted(call: Any) -> Any:
        async def counting(*arguments: Any, **options: Any) -> Any:
            nonlocal read
            page = await call(*arguments, **options)
            read += len(page.items)
            return page

        return counting

    for name in ("read", "read_shard"):
        monkeypatch.setattr(memory.table, name, counted(getattr(memory.table, name)))
    dispatcher = _dispatcher(memory, clock)
    for request in (
        {"queryType": "getAggregateEvents", "aggregateId": "account-1", "limit": 8},
        {"queryType": "getEventsByType", "eventType": "TransactionProcessed", "limit": 8},
    ):
        read = 0
        assert len((await dispatcher.dispatch(request))["events"]) == 8
        assert 9 <= read <= 12


async def test_tokens_are_of_their_own_query_only(memory: MemoryEventStore, clock: ManualClock) -> None:
    for name in ("account-1", "account-2"):
        await memory.append(name, [deposit()] * 3, expected_sequence=0)
    dispatcher = _dispatcher(memory, clock)
    by_aggregate = {"queryType": "getAggregateEvents", "aggregateId": "account-1", "limit": 1}
    by_type = {"queryType": "getEventsByType", "eventType": "TransactionProcessed", "limit": 1}
    token = (await dispatcher.dispatch(by_aggregate))["nextToken"]
    # The size of the page may change on the way.
    answer = await dispatcher.dispatch({**by_aggregate, "nextToken": token, "limit": 2})
    assert [event["sequence"] for event in answer["events"]] == [2, 3]
    type_token = (await dispatcher.dispatch(by_type))["nextToken"]
    for request in (
        {**by_aggregate, "aggregateId": "account-2", "nextToken": token},
        {**by_aggregate, "afterSequence": 1, "nextToken": token},
        {**by_aggregate, "nextToken": type_token},
        {**by_type, "nextToken": token},
        {**by_type, "newestFirst": True, "nextToken": type_token},
        {**by_type, "startTime": "1 hour ago", "nextToken": type_token},
    ):
        error = await _refused(dispatcher, request)
        assert (error["code"], error["field"]) == ("INVALID_TOKEN", "nextToken")
        assert "belongs to another query" in error["message"]


async def test_damaged_tokens_are_refused(memory: MemoryEventStore, clock: ManualClock) -> None:
    await memory.append("account-1", [deposit()] * 3, expected_sequence=0)
    dispatcher = _dispatcher(memory, clock)
    request = {"queryType": "getAggregateEvents", "aggregateId": "account-1", "limit": 1}
    token: str = (await dispatcher.dispatch(request))["nextToken"]
    assert token.isascii()
    assert set("+/=").isdisjoint(token)
    damaged = [token[:-4], token[4:], token + "AAAA", "", "x", "ä", "§" * 8, "A" * 10_000]
    damaged += [token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :] for at in range(len(token) - 1)]
    for text in damaged:
        error = await _refused(dispatcher, {**request, "nextToken": text})
        assert error["code"] == "INVALID_TOKEN", text
        assert "is no token of a query's answer, or a damaged one" in error["message"]


class _Forged(RequestModel):
    after: Any


@pytest.mark.parametrize("after", [None, "2", -1, 1.5, {"N": "1"}])
async def test_forged_tokens_do_no_harm(memory: MemoryEventStore, clock: ManualClock, after: object) -> None:
    await memory.append("account-1", [deposit()] * 3, expected_sequence=0)
    said = {"query": "AggregateEventsQuery", "aggregate_id": "account-1", "after_sequence": 0}
    request = {"queryType": "getAggregateEvents", "aggregateId": "account-1"}
    dispatcher = _dispatcher(memory, clock)
    good = await dispatcher.dispatch({**request, "nextToken": write_token(said, _Forged(after=2))})
    assert [event["sequence"] for event in good["events"]] == [3]
    error = await _refused(dispatcher, {**request, "nextToken": write_token(said, _Forged(after=after))})
    assert error["code"] == "INVALID_TOKEN"


def test_tokens_hold_no_more_than_positions(memory: MemoryEventStore) -> None:
    token = write_token({"aggregate_id": "account-1"}, _Forged(after=2))
    body = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))[6:]
    [digest, position] = json.loads(body)
    assert position == {"after": 2}
    assert len(digest) == 16


# ---------------------------------------------------------------------- states


@pytest.mark.parametrize(
    ("up_to", "sequence", "total"), [(None, 4, 60), (1, 1, 0), (2, 2, 10), (3, 3, 30), (4, 4, 60), (99, 4, 60)]
)
async def test_reconstructs_a_state_up_to_an_event_inclusively(
    store: EventStore, clock: ManualClock, up_to: int | None, sequence: int, total: int
) -> None:
    events = [AccountCreated(customer_id="c-1"), deposit(10), deposit(20), deposit(30)]
    await store.append("account-1", events, expected_sequence=0)
    request: Json = {"queryType": "reconstructState", "aggregateId": "account-1"}
    if up_to is not None:
        request["upToSequence"] = up_to
    assert await _dispatcher(store, clock).answer(request) == {
        "ok": True,
        "queryType": "reconstructState",
        "aggregateId": "account-1",
        "aggregateType": "Account",
        "sequence": sequence,
        "state": {"owner": "c-1", "total": total, "deposits": sequence - 1},
    }


async def test_states_of_several_kinds_of_aggregates(memory: MemoryEventStore, clock: ManualClock) -> None:
    await memory.append("one", [deposit(10)], expected_sequence=0)
    dispatcher = _dispatcher(memory, clock)
    dispatcher.repository(Repository(memory, carts))
    request = {"queryType": "reconstructState", "aggregateId": "one"}
    error = await _refused(dispatcher, request)
    assert error["field"] == "aggregateType"
    assert "give one of Account, Cart" in error["message"]
    error = await _refused(dispatcher, {**request, "aggregateType": "Carts"})
    assert "aggregateType = 'Carts' is not known; did you mean 'Cart'?" in error["message"]
    answer = await dispatcher.dispatch({**request, "aggregateType": "Cart"})
    assert (answer["aggregateType"], answer["state"]["deposits"]) == ("Cart", 100)
    answer = await dispatcher.dispatch({**request, "aggregateType": "Account"})
    assert answer["state"]["deposits"] == 1


async def test_a_default_kind_of_aggregate(memory: MemoryEventStore, clock: ManualClock) -> None:
    await memory.append("one", [deposit(10)], expected_sequence=0)
    dispatcher = QueryDispatcher(memory, clock=clock)
    dispatcher.repository(Repository(memory, carts), default=True)
    dispatcher.repository(Repository(memory, accounts))
    answer = await dispatcher.dispatch({"queryType": "reconstructState", "aggregateId": "one"})
    assert answer["aggregateType"] == "Cart"


async def test_a_state_without_events_is_not_found(memory: MemoryEventStore, clock: ManualClock) -> None:
    request = {"queryType": "reconstructState", "aggregateId": "account-9"}
    error = await _refused(_dispatcher(memory, clock), request)
    assert (error["code"], error["field"]) == ("NOT_FOUND", "aggregateId")


# ---------------------------------------------------------------------- rows


async def test_rows_of_a_projection(memory: MemoryEventStore, clock: ManualClock) -> None:
    read_models = MemoryReadModels(clock=clock)
    events = await memory.append("account-1", [AccountCreated(customer_id="c-1"), deposit(7)], expected_sequence=0)
    dispatcher = _dispatcher(memory, clock, read_models=read_models)
    dispatcher.row("getTotal", totals, key="accountId")
    request = {"queryType": "getTotal", "accountId": "account-1"}
    error = await _refused(dispatcher, request)
    assert (error["code"], error["field"]) == ("NOT_FOUND", "accountId")
    assert "there is no Totals for accountId = 'account-1'" in error["message"]
    async with Projector([totals], memory, read_models) as projector:
        assert await projector.handle(events) == [None, None]
    assert await dispatcher.answer(request) == {
        "ok": True,
        "queryType": "getTotal",
        "accountId": "account-1",
        "row": {"owner": "c-1", "total": 7, "deposits": 1},
    }
    error = await _refused(dispatcher, {"queryType": "getTotal", "acountId": "account-1"})
    assert error["message"] == (
        "getTotal: field 'accountId' is missing; give it a value; unknown field 'acountId'; "
        "did you mean 'accountId'?"
    )
    assert error["field"] is None


# ---------------------------------------------------------------------- what is wrong with requests


@pytest.mark.parametrize(
    ("request_", "code", "field", "message"),
    [
        (None, "INVALID_REQUEST", None, "query: give a JSON object, not NoneType"),
        ([], "INVALID_REQUEST", None, "query: give a JSON object, not list"),
        ('{"queryType": "getAggregateEvents"}', "INVALID_REQUEST", None, "query: give a JSON object, not str"),
        (
            {"queryType": "getAggregateEvents", "at": START},
            "INVALID_REQUEST",
            "at",
            "query: at: is nothing that JSON",
        ),
        (
            {"aggregateId": "account-1"},
            "INVALID_REQUEST",
            "queryType",
            "query: field 'queryType' is missing; give one of getAggregateEvents, getEventsByType, "
            "reconstructState",
        ),
        (
            {"queryType": 3},
            "INVALID_REQUEST",
            "queryType",
            "query: queryType = 3: give a name, in quotes",
        ),
        (
            {"queryType": "getAggregateEvent"},
            "UNKNOWN_QUERY",
            "queryType",
            "query: queryType = 'getAggregateEvent' is not known; did you mean 'getAggregateEvents'?",
        ),
        (
            {"queryType": "drop" * 100},
            "UNKNOWN_QUERY",
            "queryType",
            "dropdro... is not known; known: getAggregateEvents, getEventsByType, reconstructState",
        ),
        (
            {"queryType": "getAggregateEvents"},
            "INVALID_REQUEST",
            "aggregateId",
            "getAggregateEvents: field 'aggregateId' is missing; give it a value",
        ),
        (
            {"queryType": "getAggregateEvents", "aggregateId": 12},
            "INVALID_REQUEST",
            "aggregateId",
            "getAggregateEvents: aggregateId = 12: Input should be a valid string",
        ),
        (
            {"queryType": "getAggregateEvents", "aggregateId": ""},
            "INVALID_REQUEST",
            "aggregateId",
            "getAggregateEvents: aggregateId = '': give it some text",
        ),
        (
            {"queryType": "getAggregateEvents", "aggregateId": "ä" * 451},
            "INVALID_REQUEST",
            "aggregateId",
            "ää...: has 902 bytes of UTF-8; at most 900 fit in a key",
        ),
        (
            {"queryType": "getAggregateEvents", "aggregateId": "command#9#account-1#1"},
            "INVALID_REQUEST",
            "aggregateId",
            "'command#' begins the keys of commands; no aggregate has such an id",
        ),
        (
            {"queryType": "getAggregateEvents", "aggregateId": "a\ud800"},
            "INVALID_REQUEST",
            "aggregateId",
            "has half a character",
        ),
        (
            {"queryType": "getAggregateEvents", "aggregateId": "a", "limit": 0},
            "INVALID_REQUEST",
            "limit",
            "getAggregateEvents: limit = 0: Input should be greater than or equal to 1",
        ),
        (
            {"queryType": "getAggregateEvents", "aggregateId": "a", "limit": 1001},
            "INVALID_REQUEST",
            "limit",
            "getAggregateEvents: limit = 1001: Input should be less than or equal to 1000",
        ),
        (
            {"queryType": "getAggregateEvents", "aggregateId": "a", "limit": "10"},
            "INVALID_REQUEST",
            "limit",
            "getAggregateEvents: limit = '10': Input should be a valid integer",
        ),
        (
            {"queryType": "getAggregateEvents", "aggregateId": "a", "limit": True},
            "INVALID_REQUEST",
            "limit",
            "getAggregateEvents: limit = True: Input should be a valid integer",
        ),
        (
            {"queryType": "getAggregateEvents", "aggregateId": "a", "afterSequence": -1},
            "INVALID_REQUEST",
            "afterSequence",
            "getAggregateEvents: afterSequence = -1: Input should be greater than or equal to 0",
        ),
        (
            {"queryType": "getAggregateEvents", "aggregateId": 1, "limit": 0, "aftrSequence": 2},
            "INVALID_REQUEST",
            None,
            "getAggregateEvents: aggregateId = 1: Input should be a valid string; limit = 0: Input should be "
            "greater than or equal to 1; unknown field 'aftrSequence'; did you mean 'afterSequence'?",
        ),
        (
            {"queryType": "reconstructState", "aggregateId": "a", "upToSequence": 0},
            "INVALID_REQUEST",
            "upToSequence",
            "reconstructState: upToSequence = 0: Input should be greater than or equal to 1",
        ),
        (
            {"queryType": "reconstructState", "aggregateId": "a", "upToSequense": 3},
            "INVALID_REQUEST",
            "upToSequense",
            "unknown field 'upToSequense'; did you mean 'upToSequence'?",
        ),
        (
            {"queryType": "getEventsByType", "eventType": "A", "startTime": "yesterday"},
            "INVALID_REQUEST",
            "startTime",
            "getEventsByType: startTime: 'yesterday' is no time; write 2026-01-31T12:00:00Z",
        ),
        (
            {"queryType": "getEventsByType", "eventType": "A", "endTime": "2026-01-01T12:00:00"},
            "INVALID_REQUEST",
            "endTime",
            "getEventsByType: endTime: '2026-01-01T12:00:00' has no zone; add Z for UTC",
        ),
        (
            {"queryType": "getEventsByType", "eventType": "A", "startTime": "now", "endTime": "1 hour ago"},
            "INVALID_REQUEST",
            "endTime",
            "getEventsByType: startTime and endTime: the start (2026-01-01T00:00:00+00:00) is not before the end",
        ),
        (
            {"queryType": "getEventsByType", "eventType": "A", "startTime": 1767225600},
            "INVALID_REQUEST",
            "startTime",
            "getEventsByType: startTime = 1767225600: Input should be a valid string",
        ),
    ],
)
async def test_bad_queries_are_told_what_to_do(
    memory: MemoryEventStore, clock: ManualClock, request_: Any, code: str, field: str | None, message: str
) -> None:
    error = await _refused(_dispatcher(memory, clock), request_)
    assert (error["code"], error["field"]) == (code, field)
    assert message in error["message"]


async def test_a_request_is_not_changed(memory: MemoryEventStore, clock: ManualClock) -> None:
    await memory.append("account-1", [deposit()], expected_sequence=0)
    request = {"queryType": "getAggregateEvents", "aggregateId": "account-1"}
    await _dispatcher(memory, clock).dispatch(request)
    assert request == {"queryType": "getAggregateEvents", "aggregateId": "account-1"}


# ---------------------------------------------------------------------- queries of one's own


class _Search(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    password: str = ""


async def test_queries_of_ones_own(memory: MemoryEventStore, clock: ManualClock) -> None:
    async def search(query: _Search) -> Mapping[str, Any]:
        if query.name == "nobody":
            raise NotFoundError("nobody is there", field="name")
        return {"found": [query.name], "size": "x" * (2000 if query.name == "long" else 1)}

    dispatcher = _dispatcher(memory, clock, max_answer_bytes=1000)
    dispatcher.register("search", _Search, search)
    answer = await dispatcher.dispatch({"queryType": "search", "name": "Ada"})
    assert answer == {"queryType": "search", "found": ["Ada"], "size": "x"}
    assert (await _refused(dispatcher, {"queryType": "search", "name": "nobody"}))["code"] == "NOT_FOUND"
    error = await _refused(dispatcher, {"queryType": "search", "name": "long"})
    assert error["code"] == "TOO_LARGE"
    assert "over the 1000 that fit" in error["message"]
    error = await _refused(dispatcher, {"queryType": "search", "name": "Ada", "password": 12345, "nam": "x"})
    assert "password: Input should be a valid string" in error["message"]
    assert "unknown field 'nam'; did you mean 'name'?" in error["message"]
    assert "12345" not in error["message"]


async def test_what_may_go_well_later_is_raised(memory: MemoryEventStore, clock: ManualClock) -> None:
    async def throttled(query: _Search) -> Mapping[str, Any]:
        raise StorageUnavailableError("throttled")

    async def broken(query: _Search) -> Mapping[str, Any]:
        raise KeyError("a bug")

    dispatcher = _dispatcher(memory, clock)
    dispatcher.register("throttled", _Search, throttled)
    dispatcher.register("broken", _Search, broken)
    with pytest.raises(StorageUnavailableError):
        await dispatcher.answer({"queryType": "throttled", "name": ""})
    with pytest.raises(KeyError):
        await dispatcher.answer({"queryType": "broken", "name": ""})


async def _nothing(query: _Search) -> Mapping[str, Any]:
    return {}


def test_what_cannot_be_a_query(memory: MemoryEventStore, clock: ManualClock) -> None:
    dispatcher = _dispatcher(memory, clock)
    with pytest.raises(ConfigurationError, match="give the dispatcher its read_models"):
        dispatcher.row("getTotal", totals, key="accountId")
    with pytest.raises(ConfigurationError, match="it has a repository here already"):
        dispatcher.repository(Repository(memory, accounts))
    for name in ("getEventsByType", "reconstructState", ""):
        with pytest.raises(ConfigurationError):
            dispatcher.register(name, _Search, _nothing)
    with pytest.raises(ConfigurationError, match="is no pydantic model"):
        dispatcher.register("search", dict, _nothing)  # type: ignore[type-var]
    with_rows = QueryDispatcher(memory, read_models=MemoryReadModels())
    with pytest.raises(ConfigurationError, match="name the field with the row's key"):
        with_rows.row("getTotal", totals, key="queryType")
    with pytest.raises(ConfigurationError, match="is there already; choose another name"):
        with_rows.register("reconstructState", _Search, _nothing)
    assert with_rows.query_types == ("getAggregateEvents", "getEventsByType")
    with_rows.repository(Repository(memory, accounts), default=True)
    with pytest.raises(ConfigurationError, match="'Account' is the default already"):
        with_rows.repository(Repository(memory, carts), default=True)


async def test_without_a_repository_states_are_not_asked_for(memory: MemoryEventStore) -> None:
    error = await _refused(QueryDispatcher(memory), {"queryType": "reconstructState", "aggregateId": "a"})
    assert error["code"] == "UNKNOWN_QUERY"
