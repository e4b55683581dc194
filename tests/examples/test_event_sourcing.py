"""The financial example: its rules, its handlers, and its check, which finds what it should find."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from oms_events.errors import CommandRejectedError
from oms_events.eventstore.aggregates.repository import Repository
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.projections.read_models import MemoryReadModels
from oms_events.eventstore.requests.commands import CommandDispatcher
from oms_events.eventstore.requests.queries import QueryDispatcher
from oms_events.provisioning.presets.event_sourcing import DETAIL_TYPES, EVENT_SOURCE
from oms_events.provisioning.presets.event_sourcing_samples import COMMAND, QUERY

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "event_sourcing"
# Some seconds; more than that when the machine is busy.
BOUND = 60.0

LOCAL = """\
1-create-account: ['AccountCreated'], sequence 1, replayed: False
2-deposit: ['TransactionProcessed'], sequence 2, replayed: False
3-withdraw: ['TransactionProcessed'], sequence 3, replayed: False
3-withdraw: ['TransactionProcessed'], sequence 3, replayed: True
4-withdraw-too-much: INSUFFICIENT_FUNDS: the balance is 200.10, less than 1000.00
the outbox is empty: True
the bus has delivered: ['AccountCreated', 'TransactionProcessed', 'TransactionProcessed']
summary: {'balance': '200.10', 'transactions': 2, 'sequence': 3}
state after event 2 was {'status': 'open', 'balance': '250.00'}
history: [(1, 'AccountCreated'), (2, 'TransactionProcessed'), (3, 'TransactionProcessed')]
amounts in the last hour: ['250.00', '49.90']
error: getAccountSummary: field 'accountId' is missing; give it a value; unknown field 'acountId'; \
did you mean 'accountId'?
"""

MODULES = ("domain", "projections", "check")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapping[str, ModuleType]]:
    """The example's modules, which are not a package: a function's code lies at the top."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        sys.modules.pop(name)


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BOUND,
        check=False,
    )


def _payload(name: str) -> Any:
    return json.loads((FOLDER / "payloads" / f"{name}.json").read_text(encoding="utf-8"))


# ---------------------------------------------------------------------- as a whole


@pytest.mark.usefixtures("oms_aws_emulator")
def test_in_one_process_it_does_what_the_tutorial_shows() -> None:
    done = _run(str(FOLDER / "local.py"))
    assert (done.returncode, done.stdout) == (0, LOCAL)
    tutorial = (ROOT / "docs" / "tutorial" / "first-event-store.md").read_text(encoding="utf-8")
    assert f"```text\n{LOCAL}```" in tutorial


@pytest.mark.usefixtures("oms_aws_emulator")
def test_its_check_finds_it_right() -> None:
    done = _run(str(FOLDER / "check.py"))
    assert done.returncode == 0, done.stdout
    for line in (
        "ok     1-create-account: ['AccountCreated']",
        "ok     1-create-account once more: replayed, nothing new",
        "ok     4-withdraw-too-much: INSUFFICIENT_FUNDS",
        "ok     4 deposits at the same time are all taken",
        "ok     account-123 has 5 events, without a gap",
        "ok     the read model has account-123 as its events make it",
        "ok     account-123-busy has 5 events, without a gap",
        "ok     the event bus delivers what happened to both",
        "ok     getEventsByType answers the transactions, page by page",
        "29 checks passed, 0 failed",
    ):
        assert line in done.stdout


class _InMemory:
    """The example without tables; events reach the read model right after each command."""

    def __init__(self, example: Mapping[str, ModuleType]) -> None:
        domain, projections = example["domain"], example["projections"]
        self.store = MemoryEventStore()
        self.read_models = MemoryReadModels()
        self.projector = Projector([projections.ACCOUNT_SUMMARY], self.store, self.read_models)
        accounts = Repository(self.store, domain.ACCOUNT)
        self.commands = CommandDispatcher()
        for command in (domain.CreateAccount, domain.ProcessTransaction, domain.CloseAccount):
            self.commands.register(command, accounts)
        self.queries = QueryDispatcher(self.store, read_models=self.read_models)
        self.queries.row("getAccountSummary", projections.ACCOUNT_SUMMARY, key="accountId")
        self.queries.repository(accounts)

    async def command(self, request: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self.commands.answer(request)
        await self.projector.catch_up(request["aggregateId"])
        return answer

    async def query(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return await self.queries.answer(request)


async def _checked(example: Mapping[str, ModuleType], capsys: pytest.CaptureFixture[str]) -> Sequence[str]:
    """What the check finds wrong."""
    system, check = _InMemory(example), example["check"].Check()
    await example["check"].check_system(system, system.store, system.read_models, "account-1", check)
    wrong = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WRONG")]
    assert check.failed == len(wrong)
    assert check.passed + check.failed == 28
    return wrong


async def test_the_check_finds_nothing_wrong_in_memory(
    example: Mapping[str, ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    assert await _checked(example, capsys) == []


async def test_the_check_finds_a_wrong_read_model(
    example: Mapping[str, ModuleType], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example["check"], "PATIENCE", 0.0)
    monkeypatch.setattr(example["projections"], "signed", lambda event: event.amount)
    assert await _checked(example, capsys) == [
        "WRONG  the read model has account-1 as its events make it",
        "WRONG  getAccountSummary answers that row",
    ]


async def test_the_check_finds_a_command_that_is_carried_out_twice(
    example: Mapping[str, ModuleType], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forgetful(self: MemoryEventStore, aggregate_id: str, command_id: str) -> None:
        return None

    append = MemoryEventStore.append

    async def without_marker(self: MemoryEventStore, *arguments: Any, **options: Any) -> Any:
        return await append(self, *arguments, **{**options, "command_id": None})

    monkeypatch.setattr(MemoryEventStore, "marker", forgetful)
    monkeypatch.setattr(MemoryEventStore, "append", without_marker)
    wrong = await _checked(example, capsys)
    assert "WRONG  2-deposit once more: replayed, nothing new" in wrong
    assert "WRONG  getAggregateEvents answers the history" not in wrong


# ---------------------------------------------------------------------- its parts


def test_the_presets_samples_are_the_examples_payloads(example: Mapping[str, ModuleType]) -> None:
    assert json.loads(COMMAND) == _payload("1-create-account")
    assert json.loads(QUERY) == _payload("query-account-summary")
    assert example["domain"].SOURCE == EVENT_SOURCE
    events = ("AccountCreated", "TransactionProcessed", "AccountClosed")
    assert set(events) == set(DETAIL_TYPES)
    assert all(hasattr(example["domain"], name) for name in events)


def test_functions_import_no_development_stack() -> None:
    code = (
        "import sys, command_handler, projection_handler, query_handler, relay_handler\n"
        "unwanted = ('devstack', 'provisioning', 'testing', 'cli', 'settings')\n"
        "print([name for name in unwanted if f'oms_events.{name}' in sys.modules])\n"
        "print([name for name in ('nats', 'click', 'rich', 'cfnlint') if name in sys.modules])\n"
        "functions = (command_handler, projection_handler, query_handler, relay_handler)\n"
        "print(all(callable(function.handler) for function in functions))"
    )
    paths = filter(None, (str(FOLDER), os.environ.get("PYTHONPATH")))
    done = _run("-c", code, PYTHONPATH=os.pathsep.join(paths))
    assert (done.returncode, done.stdout) == (0, "[]\n[]\nTrue\n")


@pytest.mark.parametrize(
    ("status", "balance", "command", "data", "expected"),
    [
        ("none", 0, "CreateAccount", {}, "AccountCreated"),
        ("open", 0, "CreateAccount", {}, "ACCOUNT_EXISTS"),
        ("closed", 0, "CreateAccount", {}, "ACCOUNT_EXISTS"),
        ("none", 0, "ProcessTransaction", {"transactionType": "deposit", "amount": "1"}, "ACCOUNT_UNKNOWN"),
        ("closed", 0, "ProcessTransaction", {"transactionType": "deposit", "amount": "1"}, "ACCOUNT_CLOSED"),
        ("open", 0, "ProcessTransaction", {"transactionType": "deposit", "amount": "1"}, "TransactionProcessed"),
        (
            "open",
            5,
            "ProcessTransaction",
            {"transactionType": "withdrawal", "amount": "5"},
            "TransactionProcessed",
        ),
        (
            "open",
            5,
            "ProcessTransaction",
            {"transactionType": "withdrawal", "amount": "5.01"},
            "INSUFFICIENT_FUNDS",
        ),
        ("none", 0, "CloseAccount", {"reason": "moved"}, "ACCOUNT_UNKNOWN"),
        ("closed", 0, "CloseAccount", {"reason": "moved"}, "ACCOUNT_CLOSED"),
        ("open", 1, "CloseAccount", {"reason": "moved"}, "BALANCE_NOT_ZERO"),
        ("open", 0, "CloseAccount", {"reason": "moved"}, "AccountClosed"),
    ],
)
def test_the_rules_of_accounts(
    example: Mapping[str, ModuleType], status: str, balance: int, command: str, data: Any, expected: str
) -> None:
    domain = example["domain"]
    if command == "CreateAccount":
        data = {"customerId": "c-1", "accountType": "savings", "currency": "EUR"}
    parsed = getattr(domain, command).model_validate(data)
    account = domain.Account(status=status, balance=Decimal(balance))
    if not expected.isupper():
        assert [type(event).__name__ for event in domain.decide(account, parsed)] == [expected]
        return
    with pytest.raises(CommandRejectedError) as raised:
        domain.decide(account, parsed)
    assert raised.value.code == expected


@pytest.mark.parametrize("amount", ["0", "-1", "0.001", "1e30", "NaN"])
async def test_amounts_are_money(example: Mapping[str, ModuleType], amount: str) -> None:
    system = _InMemory(example)
    await system.command(_payload("1-create-account"))
    request = _payload("2-deposit")
    request["commandData"]["amount"] = amount
    answer = await system.command(request)
    assert answer["error"]["code"] == "INVALID_REQUEST"
    assert answer["error"]["field"] == "commandData.amount"


async def test_every_payload_is_a_request_that_is_understood(example: Mapping[str, ModuleType]) -> None:
    system = _InMemory(example)
    expected: Mapping[str, Any] = example["check"].COMMANDS
    names = sorted(path.stem for path in (FOLDER / "payloads").glob("*.json"))
    assert {name for name in names if not name.startswith("query-")} == set(expected)
    for name in names:
        answer = await (system.query if name.startswith("query-") else system.command)(_payload(name))
        assert answer["ok"] or answer["error"]["code"] == expected[name], name
