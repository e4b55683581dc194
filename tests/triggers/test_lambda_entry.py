"""A pipeline as a Lambda function: its entry point, called as Lambda calls it."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

import pytest

from oms_events.errors import StartRefusedError, TriggerFailedError
from oms_events.triggers.config import BreakerOptions, TriggerConfig
from oms_events.triggers.lambda_entry import LambdaHandler
from oms_events.triggers.responses import Status, TriggerResponse
from oms_events.triggers.sending.delay import MemoryDelayQueue
from oms_events.triggers.start import Start
from tests.triggers.pipelines import Scene, again, event, limited, manual, new_objects, schedule

# Functions here have as little as a third of a second.
pytestmark = pytest.mark.serial


@dataclass
class Context:
    """What the handler uses of Lambda's context."""

    seconds: float = 30.0

    def get_remaining_time_in_millis(self) -> int:
        return int(self.seconds * 1000)


def invoke(scene: Scene, raw: object, seconds: float = 30.0) -> dict[str, Any]:
    return scene.pipeline.lambda_handler(raw, Context(seconds))


def message(at: int, body: object, group: str = "") -> dict[str, Any]:
    return {
        "messageId": f"message-{at}",
        "receiptHandle": "receipt",
        "eventSource": "aws:sqs",
        "attributes": {"MessageGroupId": group} if group else {},
        "body": json.dumps(body),
    }


def test_a_manual_call_is_always_answered() -> None:
    scene = Scene(limited(manual=1))
    answer = invoke(scene, manual())
    assert answer["statusCode"] == 200
    assert json.loads(answer["body"])["result"] == {"chunks": 1}
    assert invoke(scene, manual(correlation_id="call-2"))["statusCode"] == 429
    assert invoke(scene, manual(table_name="9"))["statusCode"] == 400
    assert invoke(scene, "no object")["statusCode"] == 400
    scene.pipeline.lambda_handler.close()


@pytest.mark.parametrize("raw", [schedule(), event(), new_objects("market/prices/a.json")])
def test_what_may_go_well_later_raises_and_the_environment_stays_usable(raw: dict[str, Any]) -> None:
    scene = Scene()
    scene.handler.error = RuntimeError()
    with pytest.raises(TriggerFailedError, match="500") as failed:
        invoke(scene, raw)
    assert isinstance(failed.value.response, TriggerResponse)
    assert failed.value.response.status is Status.FAILED
    scene.handler.error = None
    assert invoke(scene, raw)["statusCode"] == 200
    assert json.loads(invoke(scene, raw)["body"])["status"] == "duplicate"
    scene.handler.error = StartRefusedError("NO", "no")
    assert invoke(scene, {**event("event-2")})["statusCode"] == 422
    scene.pipeline.lambda_handler.close()


def test_of_several_starts_only_the_failed_one_runs_again() -> None:
    calls: list[str] = []

    async def handler(start: Start) -> None:
        calls.append(start.correlation_id)
        if len(calls) == 2:
            raise RuntimeError

    scene = Scene(handler=handler)
    objects = new_objects("market/prices/a.json", "market/prices/b.json", "market/prices/c.json")
    with pytest.raises(TriggerFailedError):
        invoke(scene, objects)
    assert invoke(scene, objects)["statusCode"] == 200
    assert len(calls) == 4
    assert calls[1] == calls[3]
    scene.pipeline.lambda_handler.close()


def test_a_batch_of_messages_names_those_that_come_again() -> None:
    scene = Scene(limited(event=2))
    batch = {"Records": [message(at, event(f"event-{at}"), "market:prices") for at in range(4)]}
    assert invoke(scene, batch) == {
        "batchItemFailures": [{"itemIdentifier": "message-2"}, {"itemIdentifier": "message-3"}]
    }
    # A manual call in a queue has nobody who waits for the answer.
    scene.handler.error = RuntimeError()
    assert invoke(scene, {"Records": [message(9, manual())]}) == {
        "batchItemFailures": [{"itemIdentifier": "message-9"}]
    }
    scene.pipeline.lambda_handler.close()


def test_no_message_of_a_batch_is_lost_without_a_word() -> None:
    scene = Scene(TriggerConfig(max_input_bytes=1_000))
    good = [message(at, event(f"event-{at}"), "market:prices") for at in range(4)]
    assert invoke(scene, {"Records": [*good, good[0]]}) == {"batchItemFailures": []}
    assert len(scene.handler.starts) == 4
    broken, nameless = {**good[0], "messageId": "broken", "body": None}, {"eventSource": "aws:sqs"}
    # Lambda takes an empty id as all of them.
    assert invoke(scene, {"Records": [good[1], broken, nameless]}) == {
        "batchItemFailures": [{"itemIdentifier": "broken"}, {"itemIdentifier": ""}]
    }
    assert invoke(scene, {"Records": [nameless] * 10_001}) == {"batchItemFailures": [{"itemIdentifier": ""}]}
    scene.pipeline.lambda_handler.close()


def test_a_manual_call_that_came_wrapped_has_nobody_who_is_answered() -> None:
    scene = Scene()
    scene.handler.error = RuntimeError()
    by_topic: dict[str, Any] = {
        "Records": [{"EventSource": "aws:sns", "Sns": {"Message": json.dumps(manual()), "MessageId": "n"}}]
    }
    for raw in (by_topic, again(manual())):
        with pytest.raises(TriggerFailedError):
            invoke(scene, raw)
    assert invoke(scene, manual())["statusCode"] == 500
    by_topic["Records"][0]["Sns"]["Message"] = "no json"
    assert not asyncio.run(Scene().pipeline.run(by_topic)).has_caller
    scene.pipeline.lambda_handler.close()


def test_an_invocation_that_is_tried_again_is_the_same_start() -> None:
    scene = Scene()
    constant = {"trigger_type": "schedule", "symbols": ["AAPL"]}
    context = Context()
    context.aws_request_id = "request-1"  # type: ignore[attr-defined]
    said = [json.loads(scene.pipeline.lambda_handler(constant, context)["body"]) for _ in range(2)]
    assert [(one["status"], one["correlation_id"]) for one in said] == [
        ("success", "request-1"),
        ("duplicate", "request-1"),
    ]
    scene.pipeline.lambda_handler.close()


def test_messages_that_cannot_be_held_in_time_come_again_by_themselves(caplog: pytest.LogCaptureFixture) -> None:
    class Slow(MemoryDelayQueue):
        async def hold(self, queued: object, seconds: float) -> None:
            await asyncio.sleep(30)

    scene = Scene(limited(event=1), delay=Slow())
    batch = {"Records": [message(at, event(f"event-{at}")) for at in range(3)]}
    before = time.monotonic()
    failures = invoke(scene, batch, seconds=0.3)["batchItemFailures"]
    assert time.monotonic() - before < 0.3
    assert [one["itemIdentifier"] for one in failures] == ["message-1", "message-2"]
    assert "2 messages were not held" in caplog.text
    scene.pipeline.lambda_handler.close()


def test_a_handler_that_takes_too_long_is_stopped_in_time_and_counts_as_failed() -> None:
    async def sleep(start: Start) -> None:
        await asyncio.sleep(30)

    scene = Scene(TriggerConfig(breaker=BreakerOptions(failure_threshold=1)), handler=sleep)
    before = time.monotonic()
    with pytest.raises(TriggerFailedError, match="TimeoutError"):
        invoke(scene, event(), seconds=0.5)
    assert time.monotonic() - before < 5
    assert not len(scene.records)
    (view,) = asyncio.run(scene.breakers.views())
    assert view.failures == 1
    scene.pipeline.lambda_handler.close()


def test_what_hangs_in_a_guard_is_given_up_in_time() -> None:
    async def hang(request: object) -> list[str]:
        await asyncio.sleep(30)
        return []

    scene = Scene(symbols=hang)
    with pytest.raises(TriggerFailedError, match="failed here with TimeoutError"):
        invoke(scene, {**event(), "detail": {"reason": "x"}}, seconds=0.5)
    assert asyncio.run(scene.is_free())
    scene.pipeline.lambda_handler.close()


async def hang_for_ever(*_: object, **__: object) -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize("hanging", [("leases", "release"), ("breakers", "failed"), ("records", "remove"), None])
def test_guards_that_hang_as_they_are_given_back_are_given_up_in_time(
    hanging: tuple[str, str] | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = TriggerConfig(exclusive=frozenset(("event",)))
    scene = Scene(config, handler=hang_for_ever)
    every = [("leases", "release"), ("breakers", "failed"), ("breakers", "released"), ("records", "remove")]
    for part, method in every if hanging is None else [hanging]:
        monkeypatch.setattr(getattr(scene, part), method, hang_for_ever)
    before = time.monotonic()
    with pytest.raises(TriggerFailedError):
        invoke(scene, event(), seconds=1.0)
    assert time.monotonic() - before < 3
    if hanging == ("breakers", "failed"):
        assert "the breaker was not told" in caplog.text
        assert "left half done" not in caplog.text
    # What does not hang is given back all the same.
    assert bool(scene.leases._held) is (hanging in (("leases", "release"), None))
    assert bool(len(scene.records)) is (hanging in (("records", "remove"), None))
    scene.pipeline.lambda_handler.close()


def test_the_messages_for_which_no_time_is_left_come_again() -> None:
    async def sleep(start: Start) -> None:
        await asyncio.sleep(30)

    scene = Scene(handler=sleep)
    batch = {"Records": [message(at, event(f"event-{at}")) for at in range(3)]}
    answer = invoke(scene, batch, seconds=0.3)
    assert [one["itemIdentifier"] for one in answer["batchItemFailures"]] == [
        "message-0",
        "message-1",
        "message-2",
    ]
    assert not len(scene.records)
    scene.pipeline.lambda_handler.close()


def test_parts_are_opened_once_for_all_invocations_and_again_after_closing() -> None:
    loops = []

    class Part:
        async def open(self) -> None:
            loops.append(asyncio.get_running_loop())

        async def close(self) -> None:
            loops.append(asyncio.get_running_loop())

        async def __call__(self, start: Start) -> None: ...

    scene = Scene(handler=Part())
    invoke(scene, manual())
    invoke(scene, manual(correlation_id="call-2"))
    assert len(loops) == 1
    scene.pipeline.lambda_handler.close()
    scene.pipeline.lambda_handler.close()
    assert loops[0] is loops[1]
    assert loops[0].is_closed()
    assert invoke(scene, manual())["statusCode"] == 200
    assert len(loops) == 3
    scene.pipeline.lambda_handler.close()


def test_without_a_context_there_is_a_minute() -> None:
    scene = Scene()
    handler = LambdaHandler(scene.pipeline)
    assert handler(manual())["statusCode"] == 200
    handler.close()
