"""Every example runs by itself, in time, and says what it should; the demo leaves no process behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
DEMO = EXAMPLES / "test_multiplatform_router.py"
PACKAGE = EXAMPLES / "lambda_package.py"
"""Installs what the functions need: the nightly tests of the functions run it."""
# Some seconds; more than that when the machine is busy.
BOUND = 60.0

KEY_LINES = {
    "receiving.py": ["mails about ['order-1', 'order-2', 'order-3']", "Ada: {'orders': 3, 'spent': 60}"],
    "connections.py": [
        "AWS chain, role arn:aws:iam::111122223333:role/oms-publisher",
        "Receipt(id=None, stream='OMS', sequence=1, duplicate=False)",
        "event bus 'no-such-bus' in region us-east-1 cannot be used",
    ],
    "custom_rules.py": [
        "RE2 refuses it",
        "production-schema ['eventbridge']",
        "production-schema ['nats', 'eventbridge']",
        "oms-schema ['nats', 'eventbridge']",
        "urgent-orders ('eventbridge',)",
        "error: oms-system: none of its platforms (eventbridge) is configured",
        '"wildcard": "*.schema.*"',
    ],
    "event_sourcing_aggregate.py": [
        "account-1@2 100",
        "carried out before: True 100",
        "INSUFFICIENT_FUNDS the balance is 100",
        "after 20 at once: 80 at 22",
        "decided on 2 but it is at 22",
        "after event 2: 100",
        "latest snapshot at 20",
    ],
    "event_sourcing_projection.py": [
        "version 1: {'customer_id': 'c-1', 'balance': '10'}",
        "rebuilt 2 events of 1 aggregates, 0 are parked",
        "AccountSummary@2 is not complete: of 1 aggregates 1 are behind",
        "Switched(name='AccountSummary', before=1, now=2)",
        "version 2: {'customer_id': 'c-1', 'balance': '15', 'movements': 2}",
        "Retired(rows=1, checkpoints=1, parked=0)",
    ],
    "event_sourcing_replay.py": [
        "would go: {'OrderPlaced': 3} {'orders': 3} {'ledger': 3}",
        "delivered 6 of 6, complete: True",
        "once more with its checkpoint: 0 read, complete: True",
        "to search alone: 6; duplicates: 0",
        "OrderPlaced of replay new-search-index",
        "archive shop: COMPLETED, 100%",
    ],
    "event_sourcing_personal_data.py": [
        "account-1, read:   customer_id='customer-7' name='Ann Smith' born=datetime.date(1990, 2, 3)",
        "account-1, stored: {'$personal': {'s': 'customer-7', 'k': 1, 'c': '",
        "row: {'name': 'Ann Smith', 'country': 'DE'}",
        "account-1, read:   customer_id='customer-7' name='[forgotten]' born=datetime.date(1900, 1, 1)",
        "account-1, stored: {'$personal': {'s': 'customer-7', 'k': 1, 'c': '",
        "row: {'name': '[forgotten]', 'country': 'DE'}",
        "refused: name: the person 'customer-7' was forgotten",
        "account-1, read:   customer_id='customer-7' name='[forgotten]'",
        "account-2, read:   customer_id='customer-7' name='Ann Smith'",
        "account-2, stored: {'$personal': {'s': 'customer-7', 'k': 2, 'c': '",
        "account-3, read:   customer_id='customer-7' name='Ann Smith'",
        "account-3, read:   customer_id='customer-7' name='[forgotten]'",
    ],
    "event_sourcing_versions.py": [
        "book-1@1 stored as version 1 {'reader': 'ann', 'days': 14}",
        "book-1@1 read as BookLent(reader_id='ann', weeks=2, note='')",
        "book-1@2 stored as version 2 {'readerId': 'bob', 'weeks': 3, 'note': ''}",
        "old code: book-1@2: BookLent version 2 is newer than this code",
    ],
    "event_store_checks.py": [
        "3 events of 2 aggregates, whole: True",
        "OrderPlaced: 3",
        "customer-2 has 2 events",
        "customer-1@1 OrderPlaced {'total': 10}",
        "customer-2@2 OrderPlaced",
    ],
    "failover.py": [
        "nats: unknown after 1 attempts: no answer in time",
        "eventbridge: delivered after 1 attempts: None",
        "nats: skipped after 0 attempts: the breaker of nats is open",
        "open",
    ],
    "first_infrastructure.py": [
        "stack oms-events, new: True, resources to add: 38",
        "stack oms-events: CREATE_COMPLETE",
        "oms_schema_created_rule on oms-events",
        "delivered: True\nevents in the inbox: 1\ncom.foundry.oms.schema.created object_type/User",
        "RuleOmsSchemaCreatedRule changes Targets",
        "another deployment has something to do: False",
        "delivered: True\nevents in the inbox: 0",
        "destroyed",
    ],
    "first_router.py": [
        "rule oms-schema (all): nats delivered, eventbridge delivered; delivered: True",
        "JetStream, oms.branch.created: com.foundry.oms.branch.created feature/login",
        "EventBridge, Schema Created: object_type/User",
        "eventbridge delivered; delivered: True",
        "why: ",
        "rule oms-branches (failover): nats delivered; delivered: True",
    ],
    "idempotent_consumer.py": [
        "charging 5",
        "receipt 1 again",
        "was used before with another payload",
        "shipping by post",
        "Receipt(number=7) Receipt(number=7)",
        "mail sent replayed",
        "busy: invoice#3@/shop/web",
        "reserved after 2 tries",
    ],
    "infra_orders.py": [
        "shop: CREATE_COMPLETE, 7 resources",
        "queues: ['dead_letters', 'orders']",
        "the queue has shop.order.placed {'number': 'A-1'}",
        "change QueueOrders: MessageRetentionPeriod",
        "loses data: nothing",
        "once more, nothing to do: True",
        "refused: queue",
        "would be replaced by an empty one; the old one is kept, outside the stack",
        "7 resources would go; against it:",
        "not deleted:",
        "table shop-outbox has items",
        "DELETE_COMPLETE",
    ],
    "infra_specs.py": [
        "39 resources",
        "the file gives the same bytes: True",
        "- name = 'order placed': a rule's name is 1 to 64 letters",
        "- schedule = 'cron(0 3 * * *)'",
    ],
    "operate.py": [
        "platform eventbridge is disabled; router.enable('eventbridge') ends that",
        "ALERT: nats is out: connection refused",
        "1 of 2 platforms are healthy",
        'oms_events_published_total{outcome="delivered",platform="nats"} 101.0',
    ],
    "outbox_dead_letters.py": [
        "nats refused shop.order.placed of A-1: the event has",
        "eventbridge has 1",
        "1 of nats: ",
        "requeued 1, gone 0, failed 0",
        "nats has 1 eventbridge has 1",
    ],
    "outbox_fastapi.py": [
        '201 {"pk":"A-1","total":12}',
        '409 {"error":"this order is there already"}',
        "the outbox is empty: True",
        '"problems":[],"backlog":{"available":false}',
        "delivered: [{'pk': 'A-1', 'total': 12}]",
    ],
    "outbox_lambda.py": ["a sweep: {'batchItemFailures': [], 'delivered': 1}"],
    "outbox_large_events.py": [
        "refused: ",
        "the outbox is empty: True",
        "delivered without data: True",
        "got the data: True",
    ],
    "outbox_own_transaction.py": [
        "1 of 100 actions are the outbox's",
        "refused: ConditionalCheckFailed",
        "the outbox is empty: True",
        "delivered: [{'number': 'A-1'}]",
    ],
    "outbox_quickstart.py": [
        "order A-1 is placed, and its event is in the outbox",
        "order A-1 is there already: nothing was written, and no event",
        "the outbox is empty: True",
        "JetStream has shop.order.placed of A-1: {'total': 12}",
        "order A-2 is placed, and its event is in the outbox",
        "while NATS is down, the outbox is empty: False",
        "the outbox is empty: True",
        "JetStream has shop.order.placed of A-2: {'total': 30}",
    ],
    "outbox_service.py": ["stopped cleanly; delivered in order: True"],
    "outbox_transaction.py": [
        "refused: a condition did not hold, nothing was written: action 0 (Update, table 'orders')",
        "the outbox is empty: True",
        "delivered: ['shop.order.placed', 'shop.order.paid']",
    ],
    "outbox_worker.py": ["the worker has stopped; JetStream has 3 events"],
    "own_publisher.py": ["delivered {'kind': 'json-lines'", '"type":"shop.order.placed"'],
    "quickstart.py": ["nats delivered None", "eventbridge delivered None", "delivered: True by rule: oms-schema"],
    "read_events.py": ["create User main", "/shop/web A-1 shop.order.placed plain"],
    "settings_file.py": ["OMS_ENABLE_EVENTBRIDGE = 'maybe': write true or false", "nats=delivered"],
    "test_own_publisher.py": ["passed"],
    "test_your_outbox.py": ["passed"],
    "test_your_service.py": ["passed"],
    "trigger_cloudevents.py": [
        "flow-1: chunk 1 of 2: ['NVDA', 'AMD']\nflow-1: chunk 2 of 2: ['AVGO']",
        "no start: 400 rejected: WRONG_TYPE: data.added_symbols = 'NVDA'",
    ],
    "trigger_guards.py": [
        "Cleo: too many; try again in 2400 s\nCleo: started",
        "market prices: open, 2 failures\nwent well, and closes the breaker",
        "second: another runs, for 60 s or less\nthird: runs, fence 2",
        "12 symbols took 60 s",
    ],
    "trigger_pipeline.py": [
        "ingest AAPL for 1d",
        "{'status': 'duplicate', 'correlation_id': 'call-1', 'result': {'symbols': 1}}",
        "'code': 'WRONG_TYPE', 'field': 'symbols.0', 'value': 5930",
    ],
    "trigger_schedules.py": [
        "At 22:00 UTC every day",
        "Fri 22:00 UTC is Sat 07:00 in Asia/Seoul",
        "Sun 22:00 UTC is Sun 23:00 in Europe/Berlin",
        "At 08:30 UTC on the last Friday of every month",
        "Fri 08:30 UTC is Fri 04:30 in America/New_York",
        "Fri 08:30 UTC is Fri 03:30 in America/New_York",
        "write ? in one of them, and only one; Hours = '24': give 0-23",
    ],
    "trigger_sending.py": [
        "200 success\n202 delayed",
        "chunk 1 of 2: ['AAPL', 'MSFT', 'GOOGL', 'NVDA', 'TSLA']",
        "nothing waits any more",
        "chunk 1 of 1: ['IBM']",
        "422 refused UNKNOWN_MARKET: domain = 'crypto': subscribe to it first",
        "start UNKNOWN_MARKET manual ['BTC-USD']",
        "taken",
        "chunk 1 of 1: ['BTC-USD']",
    ],
    "trigger_settings.py": [
        "RATE_TABLE is not set",
        "ENVIRONMENT: environment = 'production'",
        "'code': 'INVALID_TABLE_NAME'",
        '"code": "INVALID_TABLE_NAME"',
    ],
    "trigger_starts.py": [
        "scheduled:\n  ingesting AAPL, MSFT for market.prices, 1mo\n  200 success {'symbols': 2}",
        "the same again:\n  200 duplicate {'symbols': 2}",
        "custom event:\n  ingesting NVDA",
        "your own event:\n  ingesting SAP.DE, SIE.DE for market.prices, 1y",
        "new object:\n  ingesting TSLA",
        "too many events:\n  202 delayed",
        "by hand:\n  ingesting AAPL for market.prices, 1d",
        "with a fallback:\n  ingesting AAPL for market.prices, 5d",
        "refused:\n  422 refused [\"UNKNOWN_TABLE: table_name = 'splits': create the table first\"]",
        "broken:\n  400 rejected ['NOT_JSON",
        "invalid:\n  400 rejected [\"INVALID_TABLE_NAME: table_name = 'prices-1'",
        "dry run:\n  200 dry_run",
        "'plan': {'would ingest': ['AAPL']}",
        "too many by hand:\n  429 limited [\"RATE_LIMITED: trigger_type = 'manual'",
    ],
}

# The demo and some examples install the emulator at its first use: that is not their time.
pytestmark = pytest.mark.usefixtures("oms_aws_emulator")


def _run(arguments: Sequence[str], timeout: float) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def _assert_in_order(lines: Sequence[str], output: str) -> None:
    position = 0
    for line in lines:
        found = output.find(line, position)
        assert found >= 0, f"not found, or not after the lines before: {line}\n{output}"
        position = found + len(line)


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*KEY_LINES, DEMO.name, PACKAGE.name}


@pytest.mark.parametrize("name", sorted(KEY_LINES))
def test_example_says_what_it_should(name: str) -> None:
    is_test = name.startswith("test_")
    as_test = ("-m", "pytest", "-q", "-p", "no:cacheprovider") if is_test else ()
    output = _run([*as_test, str(EXAMPLES / name)], BOUND)
    _assert_in_order(KEY_LINES[name], output)


def test_readme_prints_what_its_example_prints() -> None:
    output = _run([str(EXAMPLES / "quickstart.py")], BOUND)
    assert f"```text\n{output}```" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("moment", ["== Events of every family", "  the first processor is killed"])
def test_ctrl_c_ends_the_demo_and_all_its_processes(moment: str) -> None:
    with _started_demo() as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.startswith(moment):
                break
        family = _descendants(demo.pid)
        assert len(family) >= 2, "NATS server and emulator were not found"
        demo.send_signal(signal.SIGINT)
        rest = demo.stdout.read()
        assert demo.wait(timeout=BOUND) == 130, rest
        assert "every process of the stack has ended" in rest
        _wait_until_gone(family)


@contextlib.contextmanager
def _started_demo() -> Iterator[subprocess.Popen[str]]:
    demo = subprocess.Popen(
        [sys.executable, "-u", str(DEMO)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with demo:
        try:
            yield demo
        finally:
            if demo.poll() is None:
                demo.kill()


def _descendants(pid: int) -> set[int]:
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold anything; the state and the parent follow it.
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(stat.parent.name)] = int(parent)
    found: set[int] = set()
    new = {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new}
        found |= new
    return found


def _wait_until_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + 15.0
    while left := {pid for pid in pids if _lives(pid)}:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
