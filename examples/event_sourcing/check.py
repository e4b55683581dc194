"""Sends the payloads to the example, and checks what is stored and what the read model says:

    python examples/event_sourcing/check.py                     # in this process, on the embedded stack
    python examples/event_sourcing/check.py --functions dev     # the functions `command-handler-dev` and so on

Functions and tables are found as AWS tools find them (region, credentials, AWS_ENDPOINT_URL). Their names end as
the preset's do: `<environment>` or `<environment>-<resource_suffix>`. The exit code is 0 when everything is right.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import aioboto3
from domain import ACCOUNT, SOURCE, AccountClosed, Event, TransactionProcessed, signed
from event_queue import EventQueue
from projections import ACCOUNT_SUMMARY, AccountSummary

from oms_events.eventstore import (
    DynamoDBEventStore,
    DynamoDBReadModels,
    EventStore,
    EventStoreConfig,
    ProjectionTables,
    ReadModels,
    RecordedEvent,
    Repository,
)

PAYLOADS: Final = Path(__file__).parent / "payloads"
COMMANDS: Final = {
    "1-create-account": ["AccountCreated"],
    "2-deposit": ["TransactionProcessed"],
    "3-withdraw": ["TransactionProcessed"],
    "4-withdraw-too-much": "INSUFFICIENT_FUNDS",
    "5-close-with-balance": "BALANCE_NOT_ZERO",
    "6-withdraw-the-rest": ["TransactionProcessed"],
    "7-close-account": ["AccountClosed"],
}
"""What each command leads to: events, or a refusal."""
DEPOSITS: Final = 4
"""At the same time, to another account. Each call at the same time is a function that starts."""
PATIENCE: Final = 60.0
"""Seconds that a read model, or the index by type, may take."""

Json = dict[str, Any]


class System(Protocol):
    """What takes commands and queries."""

    async def command(self, request: Mapping[str, Any]) -> Json: ...

    async def query(self, request: Mapping[str, Any]) -> Json: ...


class Functions:
    """The deployed Lambda functions."""

    def __init__(self, client: Any, ending: str) -> None:
        self._client = client
        self._ending = ending

    async def command(self, request: Mapping[str, Any]) -> Json:
        return await self._invoke("command-handler", request)

    async def query(self, request: Mapping[str, Any]) -> Json:
        return await self._invoke("query-handler", request)

    async def _invoke(self, function: str, request: Mapping[str, Any]) -> Json:
        name = f"{function}-{self._ending}"
        # A function that fails did not refuse: with the same commandId the request may be sent again.
        for _ in range(5):
            answer = await self._client.invoke(FunctionName=name, Payload=json.dumps(request).encode())
            document: Json = json.loads(await answer["Payload"].read())
            if "FunctionError" not in answer:
                return document
        raise RuntimeError(f"{name} fails: {document.get('errorType')}: {document.get('errorMessage')}")


class Check:
    """Compares, prints, counts."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def __call__(self, what: str, found: object, expected: object) -> None:
        if found == expected:
            self.passed += 1
            print(f"ok     {what}")
        else:
            self.failed += 1
            print(f"WRONG  {what}\n       found     {found}\n       expected  {expected}")


async def check_system(
    system: System,
    store: EventStore,
    read_models: ReadModels,
    account: str,
    check: Check,
    *,
    queue: EventQueue | None = None,
) -> None:
    """Everything, for an account that is not there yet; `queue` is where the bus delivers, if it gets events."""
    busy = f"{account}-busy"
    await send_commands(system, account, check)
    await send_deposits(system, busy, check)
    happened: dict[str, tuple[str, str]] = {}
    for name in (account, busy):
        history = [event async for event in store.read(name)]
        check_history(name, history, check)
        row = expected_row(history)
        await eventually(
            f"the read model has {name} as its events make it",
            partial(read_models.row, ACCOUNT_SUMMARY, name),
            row.model_dump(mode="json", by_alias=True),
            check,
        )
        state = await Repository(store, ACCOUNT).load(name)
        check(f"{name} as the commands see it has the same balance", state.balance, row.balance)
        happened |= {event.id: (SOURCE, event.type) for event in history}
    if queue is not None:
        check("the event bus delivers what happened to both", await queue.receive(happened), happened)
    await ask(system, account, [event async for event in store.read(account)], check)


async def send_commands(system: System, account: str, check: Check) -> None:
    for name, expected in COMMANDS.items():
        request = payload(name, account)
        answer = await system.command(request)
        check(f"{name}: {expected}", outcome(answer), expected)
        if answer["ok"]:
            again = await system.command(request)
            same = {**answer, "replayed": True}
            check(f"{name} once more: replayed, nothing new", again, same)


async def send_deposits(system: System, account: str, check: Check) -> None:
    await system.command(payload("1-create-account", account))
    deposits = [{**payload("2-deposit", account), "commandId": f"deposit-{number}"} for number in range(DEPOSITS)]
    answers = await asyncio.gather(*map(system.command, deposits))
    found = sorted(answer["events"][0]["sequence"] if answer["ok"] else 0 for answer in answers)
    check(f"{DEPOSITS} deposits at the same time are all taken", found, list(range(2, DEPOSITS + 2)))


def check_history(account: str, history: list[RecordedEvent], check: Check) -> None:
    sequences = [event.sequence for event in history]
    check(f"{account} has {len(history)} events, without a gap", sequences, list(range(1, len(history) + 1)))
    check(f"{account}: their ids are all different", len({event.id for event in history}), len(history))
    check(f"{account}: they tell which command led to them", all(caused(event) for event in history), True)


def caused(event: RecordedEvent) -> bool:
    return bool(event.event.get_extension("causationid"))


def expected_row(history: list[RecordedEvent]) -> AccountSummary:
    """The row that these events make, reckoned without the projection."""
    events: list[Event] = [event.domain_event for event in history]  # type: ignore[misc]
    transactions = [event for event in events if isinstance(event, TransactionProcessed)]
    created: Any = events[0]
    return AccountSummary(
        customer_id=created.customer_id,
        account_type=created.account_type,
        currency=created.currency,
        status="closed" if isinstance(events[-1], AccountClosed) else "open",
        balance=sum(map(signed, transactions), Decimal(0)),
        transactions=len(transactions),
        opened_at=history[0].time,
        changed_at=history[-1].time,
        sequence=len(history),
    )


async def ask(system: System, account: str, history: list[RecordedEvent], check: Check) -> None:
    row = expected_row(history).model_dump(mode="json", by_alias=True)
    answer = await system.query(payload("query-account-summary", account))
    check("getAccountSummary answers that row", (answer["ok"], answer.get("row")), (True, row))
    answer = await system.query(payload("query-state-at-2", account))
    state = {"status": "open", "balance": "250.00"}
    check("reconstructState answers the past", (answer.get("sequence"), answer.get("state")), (2, state))
    answer = await system.query(payload("query-account-events", account))
    found = [event["eventId"] for event in answer.get("events", ())]
    check("getAggregateEvents answers the history", found, [event.id for event in history])
    transactions = [event.id for event in history if event.type == "TransactionProcessed"]

    async def by_type() -> list[str]:
        """Of this account; there may be others in the table."""
        request, found = payload("query-transactions", account), []
        while True:
            answer = await system.query(request)
            found += [event["eventId"] for event in answer["events"] if event["aggregateId"] == account]
            if answer["nextToken"] is None:
                return found
            request["nextToken"] = answer["nextToken"]

    await eventually("getEventsByType answers the transactions, page by page", by_type, transactions, check)
    answer = await system.query({"queryType": "getAccountSummary", "accountId": "account-nobody"})
    check("an account that nobody has is not found", outcome(answer), "NOT_FOUND")


async def eventually(what: str, look: Callable[[], Awaitable[Any]], expected: object, check: Check) -> None:
    """Looks until it is as expected: read models and indexes follow the events."""
    deadline = time.monotonic() + PATIENCE
    found = await look()
    while found != expected and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        found = await look()
    check(what, found, expected)


def outcome(answer: Json) -> object:
    if answer["ok"]:
        return [event["type"] for event in answer["events"]] if "events" in answer else "ok"
    return answer["error"]["code"]


def payload(name: str, account: str) -> Json:
    text = (PAYLOADS / f"{name}.json").read_text(encoding="utf-8")
    document: Json = json.loads(text.replace("account-123", account))
    return document


@asynccontextmanager
async def open_functions(ending: str) -> AsyncIterator[tuple[System, EventQueue | None]]:
    os.environ.update(
        EVENT_STORE_TABLE=f"event-store-{ending}",
        READ_MODEL_TABLE=f"read-model-{ending}",
        CHECKPOINT_TABLE=f"checkpoints-{ending}",
    )
    session = aioboto3.Session()
    async with session.client("lambda") as functions, session.client("sqs") as sqs:
        answer = await functions.get_function_configuration(FunctionName=f"command-handler-{ending}")
        queue = None
        if "OMS_OUTBOX_TABLE" in answer["Environment"]["Variables"]:
            url = (await sqs.get_queue_url(QueueName=f"financial-events-{ending}"))["QueueUrl"]
            queue = EventQueue(sqs, url)
        else:
            print("there is no outbox: nothing goes to the event bus")
        yield Functions(functions, ending), queue


@asynccontextmanager
async def open_local() -> AsyncIterator[tuple[System, EventQueue | None]]:
    from local import open_system

    async with open_system() as system:
        yield system, system.queue


async def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Checks the example.")
    parser.add_argument("--functions", metavar="ENDING", help="check deployed functions: dev, or dev-suffix")
    parser.add_argument("--account", help="an account that is not there yet")
    options = parser.parse_args(arguments)
    fresh = f"account-{uuid.uuid4().hex[:8]}" if options.functions else "account-123"
    check = Check()
    opened = open_functions(options.functions) if options.functions else open_local()
    async with opened as (system, queue):
        tables = ProjectionTables(
            read_model_table=os.environ["READ_MODEL_TABLE"], checkpoint_table=os.environ["CHECKPOINT_TABLE"]
        )
        async with (
            DynamoDBEventStore(EventStoreConfig(table_name=os.environ["EVENT_STORE_TABLE"])) as store,
            DynamoDBReadModels(tables) as read_models,
        ):
            account = options.account or fresh
            await check_system(system, store, read_models, account, check, queue=queue)
    print(f"{check.passed} checks passed, {check.failed} failed")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
