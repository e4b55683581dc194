"""The guards around starts: quotas, the delay queue, breakers, exclusion, idempotency, dead letters."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any, NoReturn

import pytest

from oms_events.errors import QueueError, StartRefusedError
from oms_events.idempotency import DynamoDBIdempotencyStore, IdempotencyConfig
from oms_events.idempotency.memory import MemoryIdempotencyStore
from oms_events.idempotency.records import RunRecord, RunState
from oms_events.resilience.backoff import RetryConfig
from oms_events.resilience.breaker import BreakerState
from oms_events.testing.clock import ManualClock
from oms_events.triggers.config import BreakerOptions, TriggerConfig
from oms_events.triggers.guards.breaker import MemoryBreakers, Permit
from oms_events.triggers.guards.breaker_dynamodb import DynamoDBBreakers
from oms_events.triggers.guards.config import GuardTableConfig
from oms_events.triggers.guards.exclusion import Lease, MemoryLeases
from oms_events.triggers.guards.exclusion_dynamodb import DynamoDBLeases
from oms_events.triggers.guards.rate import MemoryRateLimiter
from oms_events.triggers.guards.rate_dynamodb import DynamoDBRateLimiter
from oms_events.triggers.problems import Code
from oms_events.triggers.request import TriggerRequest
from oms_events.triggers.responses import Status, TriggerResponse
from oms_events.triggers.rules import RuleViolation
from oms_events.triggers.sending.dead_letters import MemoryDeadLetters
from oms_events.triggers.sending.delay import MemoryDelayQueue
from oms_events.triggers.sending.letters import DeadLetter
from tests.triggers.pipelines import (
    CONFIG,
    Recorder,
    Scene,
    again,
    event,
    limited,
    manual,
    new_objects,
    schedule,
)


def told(response: TriggerResponse) -> tuple[int, str, list[str], bool]:
    return (
        response.status_code,
        response.status.value,
        [problem.code for problem in response.problems],
        response.retryable,
    )


async def test_manual_calls_over_the_quota_are_told_when_to_come_again() -> None:
    scene = Scene(limited(manual=2))
    calls = [manual(correlation_id=f"call-{at}") for at in range(3)]
    assert (await scene.handle(calls[0])).ok
    await scene.clock.advance(10)
    assert (await scene.handle(calls[1])).ok
    response = await scene.handle(calls[2])
    assert told(response) == (429, "limited", [Code.RATE_LIMITED], True)
    assert response.retry_after == 50
    # What has run is answered without a quota, and what was refused left no record.
    assert (await scene.handle(calls[0])).status is Status.DUPLICATE
    await scene.clock.advance(50)
    assert (await scene.handle(calls[2])).status is Status.SUCCESS


async def test_schedules_have_no_quota_and_events_and_objects_share_one() -> None:
    scene = Scene(CONFIG.model_copy(update={"quotas": limited(event=1).quotas}), delay=None)
    for day in range(1, 20):
        assert (await scene.handle(schedule(f"2026-09-{day:02}T22:00:00Z"))).ok
    assert (await scene.handle(event())).ok
    response = await scene.handle(new_objects("market/prices/a.json"))
    assert told(response) == (429, "limited", [Code.RATE_LIMITED], True)


async def test_events_over_the_quota_run_later_from_the_delay_queue_in_order() -> None:
    scene = Scene(limited(event=2))
    first = [await scene.handle(event(f"event-{at}")) for at in range(5)]
    assert [one.status_code for one in first] == [200, 200, 202, 202, 202]
    assert told(first[4]) == (202, "delayed", [], False)
    assert len(scene.records) == 2
    assert len(scene.delay.documents) == 3

    async def run_one() -> tuple[list[str], bool]:
        batch = await scene.delay.receive_batch(limit=10)
        if batch is None:
            return [], False
        handled = await scene.pipeline.run(batch)
        failed = handled.failed_messages
        assert failed is not None
        await scene.delay.settle(batch, failed)
        return [str(one.correlation_id) for one in handled.response.results], bool(failed)

    # Too early: all are failed, the first because of its quota and the others because of the first.
    ids, has_failed = await run_one()
    assert has_failed
    assert ids[0] == "event-2"
    assert len(scene.handler.starts) == 2
    assert await scene.delay.receive_batch() is None, "held until the quota has room"
    await scene.clock.advance(60)
    assert await run_one() == (["event-2", "event-3", "event-4"], True)
    await scene.clock.advance(60)
    assert await run_one() == (["event-4"], False)
    assert [start.correlation_id for start in scene.handler.starts] == [f"event-{at}" for at in range(5)]
    assert not scene.delay.documents
    # The day, and so the key, is that of the first arrival.
    assert len({start.ds for start in scene.handler.starts}) == 1
    assert (await scene.handle(event("event-3"))).status is Status.DUPLICATE


async def test_after_a_failed_message_of_a_group_later_ones_wait_and_other_groups_do_not() -> None:
    scene = Scene()

    def message(at: int, group: str, **detail: Any) -> dict[str, Any]:
        return {
            "messageId": f"message-{at}",
            "receiptHandle": f"receipt-{at}",
            "eventSource": "aws:sqs",
            "attributes": {"MessageGroupId": group} if group else {},
            "body": json.dumps(event(f"event-{at}", **detail)),
        }

    class Fussy(Recorder):
        async def __call__(self, start: Any) -> Any:
            self.error = RuntimeError() if start.request.symbols == ("BAD",) else None
            return await super().__call__(start)

    scene = Scene(handler=(handler := Fussy()))
    batch = [
        message(0, "a", symbols=["BAD"]),
        message(1, "b"),
        message(2, "a"),
        message(3, "b", symbols=["no symbol"]),
        message(4, "b"),
        message(5, "", symbols=["BAD"]),
        message(6, ""),
        {**message(7, "c"), "body": "no json"},
    ]
    handled = await scene.pipeline.run({"Records": batch})
    assert handled.failed_messages == ["message-0", "message-2", "message-5"]
    assert [start.correlation_id for start in handler.starts] == [f"event-{at}" for at in (0, 1, 4, 5, 6)]
    assert [one.status_code for one in handled.response.results] == [500, 200, 500, 400, 200, 500, 200, 400]


async def test_what_the_delay_queue_does_not_take_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    class Full(MemoryDelayQueue):
        async def put(self, message: object, *, group: str, key: str) -> None:
            raise QueueError("no room")

    scene = Scene(limited(event=1), delay=Full())
    await scene.handle(event("event-1"))
    assert told(await scene.handle(event("event-2"))) == (503, "failed", [Code.STORAGE_UNAVAILABLE], True)
    assert "no room" in caplog.text


async def test_a_message_that_cannot_be_held_comes_again_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(limited(event=1))
    await scene.handle(event("event-1"))
    record = {"messageId": "m", "eventSource": "aws:sqs", "body": json.dumps(event("event-2"))}
    handled = await scene.pipeline.run({"Records": [record]})
    assert handled.failed_messages == ["m"]
    assert "was not held" in caplog.text


async def test_five_failures_stop_starts_of_their_table_until_a_trial_goes_well() -> None:
    scene = Scene()
    scene.handler.error = RuntimeError()
    for at in range(5):
        assert (await scene.handle(manual(correlation_id=f"call-{at}"))).status is Status.FAILED
    assert len(scene.handler.starts) == 5
    stopped = await scene.handle(manual(correlation_id="call-6"))
    assert told(stopped) == (503, "stopped", [Code.BREAKER_OPEN], True)
    assert stopped.retry_after == 300
    assert not scene.dead_letters.letters, "its caller knows"
    # Nobody waits for an event: it is kept, and nobody else tries it again.
    assert told(await scene.handle(event())) == (503, "stopped", [Code.BREAKER_OPEN], False)
    (letter,) = scene.dead_letters.letters
    assert (letter.reason, letter.raw, letter.correlation_id) == (Code.BREAKER_OPEN, event(), "event-1")
    assert len(scene.handler.starts) == 5
    assert (await scene.handle(manual(correlation_id="call-7", table_name="news"))).status is Status.FAILED

    scene.handler.error = None
    await scene.clock.advance(300)
    scene.handler.gate = asyncio.Event()
    scene.handler.entered.clear()
    trial = asyncio.create_task(scene.handle(manual(correlation_id="call-8")))
    await scene.handler.entered.wait()
    assert (await scene.handle(manual(correlation_id="call-9"))).status is Status.STOPPED
    scene.handler.gate.set()
    assert (await trial).status is Status.SUCCESS
    assert (await scene.handle(manual(correlation_id="call-9"))).status is Status.SUCCESS


async def test_an_open_breaker_without_dead_letters_is_tried_again() -> None:
    scene = Scene(TriggerConfig(breaker=BreakerOptions(failure_threshold=1)), dead_letters=None)
    scene.handler.error = RuntimeError()
    await scene.handle(event("event-1"))
    assert told(await scene.handle(event("event-2"))) == (503, "stopped", [Code.BREAKER_OPEN], True)


async def test_only_failures_of_the_handler_count_for_the_breaker() -> None:
    async def load(request: TriggerRequest) -> list[str]:
        raise OSError

    config = TriggerConfig(breaker=BreakerOptions(failure_threshold=1))
    refusing = Scene(config)
    refusing.handler.error = StartRefusedError("NO", "no")
    scenes = (refusing, Scene(config, symbols=load), Scene(config, rules=[lambda request: 1 / 0]))
    for scene in scenes:
        await scene.handle({"period": "1d", "correlation_id": "a"})
        assert not await scene.breakers.views()


async def test_schedules_do_not_overlap() -> None:
    scene = Scene()
    scene.handler.gate = asyncio.Event()
    running = asyncio.create_task(scene.handle(schedule("2026-09-09T22:00:00Z")))
    await scene.handler.entered.wait()
    skipped = await scene.handle(schedule("2026-09-10T22:00:00Z"))
    assert told(skipped) == (409, "busy", [Code.ALREADY_RUNNING], False)
    assert (await scene.handle(schedule("2026-09-09T22:00:00Z"))).problems[0].code == Code.IN_PROGRESS
    # Another type is not exclusive, and another table has a key of its own.
    scene.handler.gate.set()
    assert (await scene.handle(manual())).ok
    assert (await running).ok
    assert (await scene.handle(schedule("2026-09-11T22:00:00Z"))).ok
    first, call, last = scene.handler.starts
    assert (first.fence, call.fence, last.fence) == (1, None, 2)


async def test_a_schedule_that_comes_again_out_of_an_envelope_waits_for_the_one_that_runs() -> None:
    scene = Scene()
    scene.handler.gate = asyncio.Event()
    running = asyncio.create_task(scene.handle(schedule("2026-09-09T22:00:00Z")))
    await scene.handler.entered.wait()
    handled = await scene.pipeline.run(again(schedule("2026-09-10T22:00:00Z")))
    assert told(handled.response) == (409, "busy", [Code.ALREADY_RUNNING], True)
    assert not handled.has_caller
    scene.handler.gate.set()
    await running


async def test_a_manual_call_in_an_envelope_meets_an_open_breaker_and_is_kept() -> None:
    scene = Scene(TriggerConfig(breaker=BreakerOptions(failure_threshold=1)))
    scene.handler.error = RuntimeError()
    await scene.handle(manual())
    response = await scene.handle(again(manual(correlation_id="call-2")))
    assert told(response) == (503, "stopped", [Code.BREAKER_OPEN], False)
    assert response.dead_letter
    (letter,) = scene.dead_letters.letters
    assert (letter.trigger_time, letter.key) == ("2026-01-01T01:00:00Z", "market:prices:2026-01-01:call-2")


async def test_those_that_wait_go_before_those_that_have_just_come() -> None:
    scene = Scene(limited(event=1), delay=(delay := MemoryDelayQueue(clock=(clock := ManualClock()))), clock=clock)
    assert (await scene.handle(event("A"))).ok
    assert (await scene.handle(event("B"))).status is Status.DELAYED
    await clock.advance(59)
    assert (await scene.handle(event("C"))).status is Status.DELAYED
    await clock.advance(2)
    while batch := await delay.receive_batch():
        handled = await scene.pipeline.run(batch)
        await delay.settle(batch, handled.failed_messages or ())
        await clock.advance(61)
    assert [start.correlation_id for start in scene.handler.starts] == ["A", "B", "C"]
    # Nobody waits any more: a new one goes at once.
    assert (await scene.handle(event("D"))).ok


async def test_after_a_burst_starts_below_the_quota_go_at_once_again() -> None:
    clock = ManualClock()
    scene = Scene(limited(event=10), delay=(delay := MemoryDelayQueue(delay=60, clock=clock)), clock=clock)
    delayed = []
    for step in range(120):
        # Fifteen at once, and then six a minute, for ten minutes.
        for at in range(15 if step == 0 else 1 - step % 2):
            response = await scene.handle(event(f"event-{step}-{at}"))
            delayed += [step] * (response.status is Status.DELAYED)
        while batch := await delay.receive_batch():
            handled = await scene.pipeline.run(batch)
            await delay.settle(batch, handled.failed_messages or ())
        await clock.advance(5)
    assert delayed.count(0) == 5
    assert max(delayed) < 60
    assert len(scene.handler.starts) == 15 + 59


async def test_a_dry_run_out_of_a_queue_keeps_nobody_back() -> None:
    marks = []

    class Limiter(MemoryRateLimiter):
        async def mark_waiting(self, name: str, seconds: float) -> None:
            marks.append(seconds)

    clock = ManualClock()
    delay = MemoryDelayQueue(clock=clock)
    scene = Scene(limited(event=1), rate=Limiter(clock=clock), delay=delay, clock=clock)
    assert (await scene.handle(event("A"))).ok
    for dry_run in (True, False):
        await delay.put(again(event("B", dry_run=dry_run)), group=f"{dry_run}", key=f"{dry_run}")
        batch = await delay.receive_batch()
        assert (await scene.pipeline.run(batch)).failed_messages
        assert len(marks) == (0 if dry_run else 1)


async def test_a_quota_that_many_come_upon_is_not_kept_for_longer_and_longer() -> None:
    marks = []

    class Limiter(MemoryRateLimiter):
        async def mark_waiting(self, name: str, seconds: float) -> None:
            marks.append(seconds)
            await super().mark_waiting(name, seconds)

    clock = ManualClock()
    scene = Scene(limited(event=1), rate=Limiter(clock=clock), clock=clock)
    for at in range(10):
        await scene.handle(event(f"event-{at}"))
        await clock.advance(1)
    assert marks == [60 - at for at in range(1, 10)]


async def test_a_busy_key_delays_events_and_answers_manual_calls() -> None:
    scene = Scene(CONFIG.model_copy(update={"exclusive": frozenset(("manual", "event"))}))
    scene.handler.gate = asyncio.Event()
    running = asyncio.create_task(scene.handle(event("event-1")))
    await scene.handler.entered.wait()
    busy = await scene.handle(manual())
    assert told(busy) == (409, "busy", [Code.ALREADY_RUNNING], True)
    assert busy.retry_after == CONFIG.lease_time
    assert (await scene.handle(event("event-2"))).status_code == 202
    scene.handler.gate.set()
    assert (await running).ok
    assert len(scene.delay.documents) == 1


async def test_a_lost_lease_stops_the_run() -> None:
    scene = Scene()
    scene.handler.gate = asyncio.Event()
    running = asyncio.create_task(scene.handle(schedule()))
    await scene.handler.entered.wait()
    held = await scene.leases.take("market:prices", seconds=1)
    assert isinstance(held, float)
    # Another process takes the key, as one may when the clocks of hosts differ.
    scene.leases._held["market:prices"] = ("other", 2**62)
    await scene.clock.advance(CONFIG.lease_time)
    assert told(await running) == (500, "failed", [Code.FAILED], True)
    assert not len(scene.records)
    assert not await scene.breakers.views()


async def test_a_lease_that_is_lost_while_the_run_is_recorded_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Losing(MemoryIdempotencyStore):
        """While the result is recorded the lease ends, as when the handler blocked the loop for too long."""

        async def write(self, record: RunRecord, *, now: int) -> RunRecord | None:
            if record.state is RunState.COMPLETED:
                scene.leases._held["market:prices"] = ("other", 2**62)
                await scene.clock.advance(CONFIG.lease_time)
            return await super().write(record, now=now)

    scene = Scene(idempotency=Losing())
    # Half-open: its trial has gone well too.
    for _ in range(5):
        permit = await scene.breakers.admit("market", "prices")
        assert isinstance(permit, Permit)
        await scene.breakers.failed(permit)
    await scene.clock.advance(300)
    response = await scene.handle(schedule())
    assert told(response) == (200, "success", [], False)
    assert "has run, but its guards could not be given back" in caplog.text
    assert not await scene.breakers.views()
    assert (await scene.handle(schedule())).status is Status.DUPLICATE


async def test_code_that_exits_has_failed_and_an_interrupt_leaves_no_guard_taken() -> None:
    def leave(*_: object) -> NoReturn:
        raise SystemExit(3)

    async def load(request: TriggerRequest) -> list[str]:
        leave()

    for scene in (Scene(rules=[leave]), Scene(symbols=load), Scene()):
        scene.handler.error = SystemExit(3)
        response = await scene.handle({"period": "1d", "correlation_id": "a"})
        assert (response.status, response.retryable) == (Status.FAILED, True)
        assert await scene.is_free()
    assert scene.breakers._record("market", "prices").failures

    interrupted = Scene()
    interrupted.handler.error = KeyboardInterrupt()

    async def caught() -> str:
        # In the task itself: what leaves a task ends the event loop.
        try:
            await interrupted.handle(schedule())
        except KeyboardInterrupt:
            return "went through"
        return "was swallowed"

    assert await caught() == "went through"
    assert await interrupted.is_free()


async def test_the_same_start_at_work_is_no_second_one() -> None:
    scene = Scene()
    scene.handler.gate = asyncio.Event()
    running = asyncio.create_task(scene.handle(event()))
    await scene.handler.entered.wait()
    response = await scene.handle(event())
    assert told(response) == (409, "busy", [Code.IN_PROGRESS], True)
    assert response.retry_after == CONFIG.in_progress_for
    scene.handler.gate.set()
    assert (await running).status is Status.SUCCESS
    assert (await scene.handle(event())).result == {"chunks": 1}
    assert len(scene.handler.starts) == 1


async def test_an_id_that_is_used_for_something_else_is_refused() -> None:
    scene = Scene()
    await scene.handle(manual(symbols=["AAPL", "MSFT"]))
    assert (await scene.handle(manual(symbols=["MSFT", "AAPL"]))).status is Status.DUPLICATE
    for other in ({"symbols": ["AAPL"]}, {"note": "again"}, {"bucket": "b", "key": "x/one.json"}):
        response = await scene.handle(manual(**{"symbols": ["AAPL", "MSFT"], **other}))
        assert told(response) == (409, "rejected", [Code.PAYLOAD_MISMATCH], False)
    at_one = {"bucket": "b", "key": "x/one.json", "trigger_time": "2026-01-01T01:00:00Z"}
    assert (await scene.handle(manual(correlation_id="call-2", **at_one))).ok
    again = {**at_one, "trigger_time": "2026-01-01T02:00:00Z"}
    assert (await scene.handle(manual(correlation_id="call-2", **again))).status is Status.DUPLICATE
    assert (
        await scene.handle(manual(correlation_id="call-2", **{**at_one, "key": "x/two.json"}))
    ).status_code == 409
    # An event without one is known by its own, however it is wrapped.
    await scene.handle(event(symbols=["AAPL"]))
    assert (await scene.handle(event(symbols=["MSFT"]))).status is Status.DUPLICATE


async def test_loaded_symbols_may_change_between_deliveries() -> None:
    loaded = [["AAPL"], ["MSFT"]]

    async def load(request: TriggerRequest) -> list[str]:
        return loaded.pop(0)

    scene = Scene(symbols=load)
    call = {"correlation_id": "call-1", "period": "1d"}
    assert (await scene.handle(call)).status is Status.SUCCESS
    assert (await scene.handle(call)).status is Status.DUPLICATE
    assert len(loaded) == 1


async def test_a_dry_run_takes_a_quota_looks_at_the_breaker_and_holds_nothing() -> None:
    scene = Scene(limited(manual=1, event=1).model_copy(update={"exclusive": frozenset(("manual",))}))
    await scene.leases.take("market:prices", seconds=60)
    assert (await scene.handle(manual(dry_run=True))).status is Status.DRY_RUN
    assert not len(scene.records)
    assert (await scene.handle(manual(dry_run=True))).status is Status.LIMITED
    for at in range(5):
        permit = await scene.breakers.admit("market", "prices")
        assert isinstance(permit, Permit), at
        await scene.breakers.failed(permit)
    await scene.clock.advance(60)
    assert (await scene.handle(manual(dry_run=True))).status is Status.STOPPED
    assert (await scene.handle(event("event-1", dry_run=True))).status is Status.STOPPED
    assert told(await scene.handle(event("event-2", dry_run=True))) == (429, "limited", [Code.RATE_LIMITED], True)
    assert not scene.delay.documents
    assert not scene.dead_letters.letters
    await scene.clock.advance(300)
    assert (await scene.handle(manual(dry_run=True))).status is Status.DRY_RUN
    (view,) = await scene.breakers.views()
    assert view.state is BreakerState.HALF_OPEN
    assert not view.trial_running
    assert not scene.handler.starts


@pytest.mark.parametrize("guard", ["idempotency", "rate", "breaker", "leases"])
async def test_without_the_storage_of_a_guard_nothing_runs(guard: str) -> None:
    # Both at its opening and at its first call.
    await check_that_nothing_runs(guard, verify_table=True)
    await check_that_nothing_runs(guard, verify_table=False)


async def check_that_nothing_runs(guard: str, **fields: Any) -> None:
    access: dict[str, Any] = {
        **fields,
        "endpoint_url": "http://127.0.0.1:9",
        "aws_region": "eu-central-1",
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
        "table_name": "not-there",
        "retry": RetryConfig(max_attempts=1),
    }
    guards: dict[str, Any] = {
        "idempotency": lambda: DynamoDBIdempotencyStore(IdempotencyConfig(**access)),
        "rate": lambda: DynamoDBRateLimiter(GuardTableConfig(**access)),
        "breaker": lambda: DynamoDBBreakers(GuardTableConfig(**access)),
        "leases": lambda: DynamoDBLeases(GuardTableConfig(**access)),
    }
    scene = Scene(**{guard: guards[guard]()})
    response = await scene.handle(schedule() if guard == "leases" else event())
    await scene.pipeline.close()
    assert told(response) == (503, "failed", [Code.STORAGE_UNAVAILABLE], True)
    assert not scene.handler.starts
    assert guard == "idempotency" or not len(scene.records)


async def test_a_dead_letter_that_is_not_taken_is_in_the_log_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Full(MemoryDeadLetters):
        async def put(self, letter: DeadLetter) -> None:
            raise QueueError("no room")

    scene = Scene(dead_letters=Full(), rules=[lambda request: RuleViolation("NO_MONDAYS", "wait")])
    response = await scene.handle(event("event-1", reason="quarterly"))
    assert told(response) == (500, "failed", [Code.FAILED], True)
    (line,) = [record for record in caplog.records if "it was:" in record.getMessage()]
    assert line.levelno == logging.ERROR
    assert json.loads(line.getMessage().partition("it was: ")[2]) == event("event-1", reason="quarterly")


class SlowStore(MemoryIdempotencyStore):
    async def write(self, record: RunRecord, *, now: int) -> RunRecord | None:
        await asyncio.sleep(0)
        return await super().write(record, now=now)

    async def remove(self, key: str, token: str) -> None:
        await asyncio.sleep(0)
        await super().remove(key, token)


class SlowBreakers(MemoryBreakers):
    async def admit(self, domain: str, table_name: str) -> Permit | float:
        await asyncio.sleep(0)
        return await super().admit(domain, table_name)

    async def succeeded(self, permit: Permit) -> None:
        await asyncio.sleep(0)
        await super().succeeded(permit)

    async def released(self, permit: Permit) -> None:
        await asyncio.sleep(0)
        await super().released(permit)


class SlowLeases(MemoryLeases):
    async def take(self, key: str, *, seconds: float) -> Lease | float:
        await asyncio.sleep(0)
        return await super().take(key, seconds=seconds)


async def test_cancelled_at_any_point_no_guard_is_left_taken_and_what_has_run_is_recorded() -> None:
    async def load(request: TriggerRequest) -> list[str]:
        await asyncio.sleep(0)
        return ["AAPL"]

    async def check(request: TriggerRequest) -> None:
        await asyncio.sleep(0)

    class Slow(Recorder):
        ended = 0

        async def __call__(self, start: Any) -> Any:
            await super().__call__(start)
            await asyncio.sleep(0)
            self.ended += 1

    seen = set()
    for turns in range(200):
        clock = ManualClock()
        scene = Scene(
            handler=(handler := Slow()),
            symbols=load,
            rules=[check],
            clock=clock,
            idempotency=SlowStore(),
            breaker=SlowBreakers(clock=clock),
            leases=SlowLeases(clock=clock),
        )
        # Half-open: this start is the breaker's trial.
        for _ in range(5):
            permit = await scene.breakers.admit("market", "prices")
            assert isinstance(permit, Permit)
            await scene.breakers.failed(permit)
        await clock.advance(300)
        task = asyncio.create_task(scene.handle(schedule()))
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            break
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        seen.add((bool(handler.starts), bool(handler.ended)))
        assert len(scene.records) == handler.ended
        scene.records = MemoryIdempotencyStore()
        assert await scene.is_free()
    assert (await task).status is Status.SUCCESS
    assert seen == {(False, False), (True, False), (True, True)}
    assert not [one for one in asyncio.all_tasks() if "lease" in one.get_name() or "trigger" in one.get_name()]
