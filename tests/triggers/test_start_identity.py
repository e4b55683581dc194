"""Which starts are the same: given and derived ids, starts without a time, and starts that come again."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from oms_events.errors import StartRefusedError
from oms_events.idempotency.memory import MemoryIdempotencyStore
from oms_events.testing.clock import ManualClock
from oms_events.triggers.problems import Code
from oms_events.triggers.responses import Status
from oms_events.triggers.sending.letters import read_letter
from oms_events.triggers.sending.publishing import EventSender
from oms_events.triggers.start import Start
from tests.triggers.pipelines import Scene, event, limited, manual, new_objects, schedule
from tests.triggers.strategies import payload

FLOW = "transform-run-17"


def done(symbol: str, **more: Any) -> dict[str, Any]:
    """That a partition is done, with the id of the run that did several."""
    detail = {"trigger_reingestion": True, "partition": f"ds=2026-09-09/symbol={symbol}", "correlation_id": FLOW}
    return {**payload("processing_complete"), "id": f"event-{symbol}", "detail": {**detail, **more}}


def closed(market: str) -> dict[str, Any]:
    detail = {"market": market, "correlation_id": FLOW}
    return {**payload("market_close"), "id": f"event-{market}", "detail": detail}


@pytest.mark.parametrize(
    "starts",
    [
        [done("AAPL"), done("MSFT"), done("GOOGL")],
        # What the request does not have, but the handler gets.
        [closed("NYSE"), closed("NASDAQ")],
        [
            {"trigger_type": "event", "symbols": [symbol], "correlation_id": FLOW, "note": note}
            for symbol, note in (("AAPL", 1), ("AAPL", 2), ("MSFT", 1))
        ],
    ],
)
async def test_different_events_with_one_given_id_all_run_and_each_once(starts: list[dict[str, Any]]) -> None:
    scene = Scene()
    first = [await scene.handle(start) for start in starts]
    assert [one.status for one in first] == [Status.SUCCESS] * len(starts)
    assert {one.correlation_id for one in first} == {FLOW}
    assert len({start.key for start in scene.handler.starts}) == len(starts)
    for raw in (*starts, *map(json.dumps, starts)):
        assert (await scene.handle(raw)).status is Status.DUPLICATE
    assert len(scene.handler.starts) == len(starts)


async def test_the_second_one_of_an_id_is_known_again_also_when_the_first_one_fails() -> None:
    scene = Scene()
    scene.handler.gate = asyncio.Event()
    running = asyncio.create_task(scene.handle(done("AAPL")))
    await scene.handler.entered.wait()
    gate, scene.handler.gate = scene.handler.gate, None
    assert (await scene.handle(done("MSFT"))).status is Status.SUCCESS
    scene.handler.error = RuntimeError()
    gate.set()
    assert (await running).status is Status.FAILED
    scene.handler.error = None
    # The first one's key is free now.
    assert (await scene.handle(done("MSFT"))).status is Status.DUPLICATE
    assert (await scene.handle(done("AAPL"))).status is Status.SUCCESS


async def test_the_second_one_of_an_id_keeps_its_key_in_the_delay_queue() -> None:
    scene = Scene(limited(event=1))
    assert (await scene.handle(done("AAPL"))).ok
    assert (await scene.handle(done("MSFT"))).status is Status.DELAYED
    await scene.clock.advance(61)
    batch = await scene.delay.receive_batch()
    assert batch is not None
    assert (await scene.pipeline.run(batch)).failed_messages == []
    keys = [start.key for start in scene.handler.starts]
    assert keys == [f"market:prices:2026-09-09:{FLOW}", f"market:prices:2026-09-09:{FLOW}:event-MSFT"]
    assert (await scene.handle(done("MSFT"))).status is Status.DUPLICATE


async def test_the_chunks_of_one_start_each_start_something_elsewhere() -> None:
    class Outbox:
        events: list[Any] = []  # noqa: RUF012

        async def add(self, event: Any) -> None:
            self.events.append(event)

    first = Scene(handler=EventSender(Outbox()))
    assert (await first.handle(manual(symbols=[f"S{at}" for at in range(12)]))).result["chunks"] == 3
    second = Scene()
    for chunk in Outbox.events:
        assert (await second.handle(chunk)).status is Status.SUCCESS
        assert (await second.handle(chunk)).status is Status.DUPLICATE
    assert sum(len(start.request.symbols) for start in second.handler.starts) == 12


async def test_two_forms_of_one_start_are_the_same() -> None:
    for one, other in (("scheduled_default", "scheduled_transformed"), ("cloudevent", "eventbridge_wrapped")):
        for forms in ((one, other), (other, one)):
            scene = Scene()
            assert (await scene.handle(payload(forms[0]))).status is Status.SUCCESS
            assert (await scene.handle(payload(forms[1]))).status is Status.DUPLICATE
    bucket, name, sequencer = "b", "market/prices/a.json", "0055"
    record = {
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "eventTime": "2026-09-09T00:00:00Z",
        "s3": {"bucket": {"name": bucket}, "object": {"key": name, "sequencer": sequencer}},
    }
    on_eventbridge = {
        "source": "aws.s3",
        "detail-type": "Object Created",
        "id": "e",
        "time": "2026-09-09T00:00:00Z",
        "detail": {"bucket": {"name": bucket}, "object": {"key": name, "sequencer": sequencer}},
    }
    scene = Scene()
    assert (await scene.handle({"Records": [record]})).status is Status.SUCCESS
    assert (await scene.handle(on_eventbridge)).status is Status.DUPLICATE


async def test_what_has_an_id_and_no_time_is_the_same_after_midnight() -> None:
    clock = ManualClock(start=datetime(2026, 9, 9, 23, 59, tzinfo=UTC))
    scene = Scene(clock=clock)
    cloudevent = {name: value for name, value in payload("cloudevent").items() if name != "time"}
    objects = {"trigger_type": "s3", "bucket": "b", "key": "market/prices/x.json", "sequencer": "0055"}
    starts = [cloudevent, {**event(), "time": None}, objects]
    assert [(await scene.handle(raw)).status for raw in starts] == [Status.SUCCESS] * 3
    # Handlers have a day all the same.
    assert {start.ds for start in scene.handler.starts} == {"2026-09-09"}
    assert {start.key.split(":")[2] for start in scene.handler.starts} == {"-"}
    await clock.advance(120)
    assert [(await scene.handle(raw)).status for raw in starts] == [Status.DUPLICATE] * 3
    # With a time the day is that of the time.
    assert (await scene.handle(schedule())).ok
    assert scene.handler.starts[-1].key.startswith("market:prices:2026-09-09:")


async def test_a_delivery_has_an_id_for_what_has_none() -> None:
    clock = ManualClock(start=datetime(2026, 9, 9, 23, 59, tzinfo=UTC))
    scene = Scene(clock=clock)
    constant = {"trigger_type": "schedule", "symbols": ["AAPL"]}
    first = await scene.pipeline.run(constant, delivery_id="request-1")
    assert first.response.correlation_id == "request-1"
    await clock.advance(120)
    again = await scene.pipeline.run(constant, delivery_id="request-1")
    assert again.response.status is Status.DUPLICATE
    assert (await scene.pipeline.run(constant, delivery_id="request-2")).response.status is Status.SUCCESS
    assert (await scene.pipeline.run(schedule(), delivery_id="request-2")).response.correlation_id != "request-2"
    assert (await scene.pipeline.run(constant, delivery_id="\n")).response.correlation_id == "made-0"


async def test_a_key_that_is_not_this_starts_is_not_taken_from_an_envelope() -> None:
    keys = []

    async def handler(start: Start) -> None:
        keys.append(start.key)

    scene = Scene(handler=handler, idempotency=MemoryIdempotencyStore())
    held = {"version": 1, "raw": event(), "correlation_id": "event-1", "trigger_time": "2026-09-09T22:00:00Z"}
    end = ":event-1"
    for key in (
        f"market:news:2026-09-09{end}",
        "market:prices:2026-09-09:other",
        f"market:prices:\n{end}",
        f"market:prices:{'x' * 5000}{end}",
    ):
        await scene.handle({"delayed_start": {**held, "key": key}})
    await scene.handle({"delayed_start": {**held, "key": "market:prices:-:event-1"}})
    assert keys == ["market:prices:2026-09-09:event-1", "market:prices:-:event-1"]


async def test_what_lambda_gave_up_is_the_same_start_when_it_is_redriven() -> None:
    def given_up(raw: Any, **more: str) -> Any:
        attributes = {"RequestID": "request-1", "ErrorCode": "200", **more}
        return read_letter("m", json.dumps(raw), attributes={}, message_attributes=attributes).input()

    def redriven(raw: Any, **more: str) -> Any:
        return scene.pipeline.run(given_up(raw, **more), delivery_id="request-2")

    scene = Scene()
    for raw in (
        {"symbols": ["AAPL"]},
        {"symbols": ["AAPL"], "trigger_time": "2026-09-09T16:00:00Z"},
        event(),
        new_objects("market/prices/a.json", "market/prices/b.json"),
    ):
        first = (await scene.pipeline.run(raw, delivery_id="request-1")).response
        assert first.ok
        count = len(scene.handler.starts)
        handled = await redriven(raw)
        assert {one.status for one in handled.response.results or [handled.response]} == {Status.DUPLICATE}
        assert (handled.response.correlation_id, handled.has_caller) == (first.correlation_id, False)
        assert len(scene.handler.starts) == count
        # Also when it was given up again.
        assert (await scene.pipeline.run(given_up(given_up(raw)), delivery_id="request-3")).response.ok
        assert len(scene.handler.starts) == count
    # Its letter is that start as well.
    scene.handler.error = StartRefusedError("NO", "no")
    assert not (await redriven({"symbols": ["MSFT"]}, RequestID="request-4")).response.ok
    scene.handler.error = None
    assert (await scene.handle(scene.dead_letters.letters[-1].input())).correlation_id == "request-4"
    again = await scene.pipeline.run({"symbols": ["MSFT"]}, delivery_id="request-4")
    assert again.response.status is Status.DUPLICATE
    # An id that can be none is not taken, and a broken envelope is a problem.
    broken = {"delayed_start": {"version": 1, "raw": {"symbols": ["A"]}, "delivery_id": "\n"}}
    assert (await scene.pipeline.run(broken, delivery_id="request-5")).response.correlation_id == "request-5"
    broken["delayed_start"]["delivery_id"] = None
    (problem,) = (await scene.handle(broken)).problems
    assert (problem.code, problem.field) == (Code.WRONG_TYPE, "delayed_start.delivery_id")


async def test_a_manual_call_whose_id_has_another_start_is_a_dead_letter_where_nobody_waits() -> None:
    scene = Scene()
    scene.handler.error = StartRefusedError("NO", "no")
    await scene.handle(manual(symbols=["AAPL"]))
    scene.handler.error = None
    assert (await scene.handle(manual(symbols=["MSFT"]))).ok
    # Its caller sees the answer; who redrives it on a function does not.
    assert not (await scene.handle(manual(symbols=["AAPL"]))).dead_letter
    (stored,) = scene.dead_letters.letters
    response = await scene.handle(stored.input())
    assert (response.status_code, response.retryable, response.dead_letter) == (409, False, True)
    letter = scene.dead_letters.letters[-1]
    assert (letter.reason, letter.input(), letter.key) == (Code.PAYLOAD_MISMATCH, stored.input(), stored.key)
