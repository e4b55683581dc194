"""Dead letters as operators handle them: from which queue, to which target, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from oms_events._aws.config import AwsConfig
from oms_events.devstack import Denied, FaultProxy
from oms_events.errors import QueueError
from oms_events.idempotency import MemoryIdempotencyStore
from oms_events.testing import ManualClock
from oms_events.testing.trigger_queues_contract import Taker, letter
from oms_events.triggers.pipeline import TriggerPipeline
from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.responses import Status, TriggerResponse
from oms_events.triggers.rules import RuleViolation
from oms_events.triggers.sending.chunk_sender import ChunkSender
from oms_events.triggers.sending.dead_letters import MemoryDeadLetters, QueuedLetters
from oms_events.triggers.sending.delay import SqsDelayQueue
from oms_events.triggers.sending.letters import LetterKind, StoredLetter
from oms_events.triggers.sending.memory_queue import MemoryQueue
from oms_events.triggers.sending.queues import OutgoingMessage
from oms_events.triggers.sending.redrive import (
    DeadLetterAdmin,
    FunctionTarget,
    LetterMovedError,
    LetterOutcome,
    PipelineTarget,
    QueueTarget,
)
from oms_events.triggers.sending.sqs import SqsQueue
from oms_events.triggers.start import Start
from tests.outbox.support import Settings, session_of
from tests.triggers.sending.conftest import MakeQueue, make_start

RULE = {"ERROR_CODE": "NO_PERMISSIONS", "RULE_ARN": "arn:aws:events:us-east-1:1:rule/r"}


async def test_a_start_that_was_received_too_often_goes_back_to_the_delay_queue_in_order(
    make_queue: MakeQueue, sqs: Any
) -> None:
    dead = await make_queue(fifo=True)
    asked = {"QueueUrl": dead.queue_url, "AttributeNames": ["QueueArn"]}
    arn = (await sqs.get_queue_attributes(**asked))["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1})
    config = await make_queue(fifo=True, attributes={"RedrivePolicy": policy})
    async with (
        SqsDelayQueue(config, client=sqs) as delay,
        SqsQueue(config, client=sqs) as queue,
        DeadLetterAdmin(dead, client=sqs, wait=0) as admin,
    ):
        messages = [
            {"delayed_start": {"version": 1, "raw": {"n": number}, "correlation_id": str(number)}}
            for number in range(3)
        ]
        for number, message in enumerate(messages):
            await delay.put(message, group="market:prices", key=str(number))
        batch = await delay.receive_batch(limit=10)
        assert batch is not None
        await queue.hide([record["receiptHandle"] for record in batch["Records"]], 0)
        assert await delay.receive_batch() is None
        found = await admin.letters()
        assert [(one.kind, one.correlation_id, one.group) for one in found] == [
            (LetterKind.DELAYED, str(number), "market:prices") for number in range(3)
        ]
        assert found[0].details["DeadLetterQueueSourceArn"].endswith(config.queue_name)
        # The second is refused: the third must not overtake it.
        handled = await admin.redrive(Taker("1"))
        assert [one.outcome for one in handled] == [LetterOutcome.TAKEN, LetterOutcome.KEPT, LetterOutcome.KEPT]
        assert handled[2].problem == "an earlier letter of its group was kept"
        # It was on this queue less than five minutes ago.
        handled = await admin.redrive(QueueTarget(queue))
        assert [one.outcome for one in handled] == [LetterOutcome.TAKEN] * 2
        again = await queue.receive()
        assert [json.loads(message.body) for message in again] == messages[1:]
        assert await admin.letters() == []


async def test_a_chunk_goes_back_to_its_queue_and_nowhere_else() -> None:
    chunks, dead = MemoryQueue("chunks"), MemoryQueue("chunks-dlq")
    async with ChunkSender(dead) as sender:
        await sender(make_start(symbols=2, chunk_size=1))
    admin = DeadLetterAdmin(dead)
    (handled, _) = await admin.redrive(FunctionTarget("f", AwsConfig(aws_region="us-east-1")))
    assert handled.outcome is LetterOutcome.KEPT
    assert handled.problem == (
        "a letter of kind chunk cannot be sent there: it takes delayed, event, invocation, start"
    )
    before = dead.documents
    handled_all = await admin.redrive(QueueTarget(chunks))
    assert [one.outcome for one in handled_all] == [LetterOutcome.TAKEN] * 2
    assert (chunks.documents, dead.documents) == (before, [])


async def test_the_same_start_may_be_redriven_twice_within_five_minutes() -> None:
    delay, dead = MemoryQueue("delay.fifo", fifo=True), MemoryQueue("delay-dlq.fifo", fifo=True)
    body = '{"delayed_start": {"version": 1, "raw": {}}}'
    for round_ in ("first", "second"):
        dead.put(OutgoingMessage(body, "market:prices", round_))
        (handled,) = await DeadLetterAdmin(dead).redrive(QueueTarget(delay))
        assert handled.outcome is LetterOutcome.TAKEN
        (message,) = await delay.receive()
        await delay.delete(message.receipt_handle)


# ---------------------------------------------------------------------- a function


@pytest.fixture
async def function(aws: Settings) -> AsyncIterator[str]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("handler.py", "def handle(event, context):\n    return event\n")
    name = f"redriven-{uuid4().hex[:12]}"
    async with session_of(aws).client("lambda", endpoint_url=aws["endpoint_url"]) as client:
        await client.create_function(
            FunctionName=name,
            Runtime="python3.12",
            Role="arn:aws:iam::000000000000:role/function",
            Handler="handler.handle",
            Code={"ZipFile": packed.getvalue()},
        )
        yield name
        await client.delete_function(FunctionName=name)


async def test_starts_go_to_the_function_with_their_input(
    function: str, aws: Settings, oms_fault_proxy: FaultProxy
) -> None:
    dead = MemoryQueue("dlq")
    letters = QueuedLetters(dead)
    await letters.put(letter("ours", {"text": "\U0001f4a9", "symbols": ["AAPL"]}))
    dead.put(OutgoingMessage('{"source": "ops.manual"}'), message_attributes=RULE)
    dead.put(OutgoingMessage('{"symbols": []}'), message_attributes={"RequestID": "r"})
    dead.put(OutgoingMessage('{"unknown": 1}'))
    config = AwsConfig(**{**aws, "endpoint_url": oms_fault_proxy.endpoint_url})
    async with FunctionTarget(function, config) as target:
        handled = await DeadLetterAdmin(dead).redrive(target)
    assert [one.outcome for one in handled] == [*[LetterOutcome.TAKEN] * 3, LetterOutcome.KEPT]
    sent = [json.loads(call.body) for call in oms_fault_proxy.calls]
    # Ours as the delay queue has them: the same start, and one that Lambda delivers again when it fails.
    ours = sent[0]["delayed_start"]
    assert ours == {
        "version": 1,
        "raw": {"text": "\U0001f4a9", "symbols": ["AAPL"]},
        "trigger_type": "event",
        "correlation_id": "ours",
        "trigger_time": "2026-09-09T16:00:00.000Z",
        "key": "market:prices:2026-09-09:ours",
        "delayed_at": "2026-09-09T16:30:00.250000Z",
        "reason": "BREAKER_OPEN",
    }
    assert sent[1] == {"source": "ops.manual"}
    given_up = sent[2]["delayed_start"]
    assert (given_up["raw"], given_up["delivery_id"], given_up["reason"]) == ({"symbols": []}, "r", "LAMBDA")
    assert all(call.status == 202 for call in oms_fault_proxy.calls)
    assert dead.documents == [{"unknown": 1}]


async def test_what_lambda_does_not_take_is_kept(aws: Settings, oms_fault_proxy: FaultProxy) -> None:
    letters = MemoryDeadLetters()
    await letters.put(letter("a"))
    admin = DeadLetterAdmin(letters.queue)
    config = AwsConfig(**{**aws, "endpoint_url": oms_fault_proxy.endpoint_url})
    async with FunctionTarget("nobody", config) as target:
        (handled,) = await admin.redrive(target)
        assert handled.outcome is LetterOutcome.KEPT
        assert "ResourceNotFoundException" in str(handled.problem)
        oms_fault_proxy.always(Denied(status=403))
        (handled,) = await admin.redrive(target)
        assert "allow Invoke to these credentials" in str(handled.problem)
    assert len(letters.letters) == 1


async def test_a_pipeline_takes_what_goes_well() -> None:
    letters = MemoryDeadLetters()
    answers = {
        "ok": TriggerResponse(status_code=200, status=Status.SUCCESS),
        "delayed": TriggerResponse(status_code=202, status=Status.DELAYED),
        "open": TriggerResponse(
            status_code=503, status=Status.STOPPED, problems=[Problem(Code.BREAKER_OPEN, "wait")]
        ),
    }
    for name in answers:
        await letters.put(letter(name, {"name": name}))
    letters.queue.put(OutgoingMessage('"ok"'))

    async def handle(raw: Any) -> TriggerResponse:
        return answers[raw["delayed_start"]["raw"]["name"] if isinstance(raw, dict) else raw]

    handled = await DeadLetterAdmin(letters.queue).redrive(PipelineTarget(handle))
    assert [(one.outcome, one.problem) for one in handled] == [
        (LetterOutcome.TAKEN, None),
        (LetterOutcome.TAKEN, None),
        (LetterOutcome.KEPT, "answered 503 stopped: BREAKER_OPEN: wait"),
        (LetterOutcome.TAKEN, None),
    ]
    assert [one.correlation_id for one in letters.letters] == ["open"]


async def test_a_manual_call_is_the_same_start_when_it_is_redriven() -> None:
    refuse = [True]
    letters, runs = MemoryDeadLetters(), []

    async def handle(start: Start) -> None:
        runs.append(start.key)

    pipeline = TriggerPipeline(
        handle,
        rules=[lambda _: RuleViolation("NOT_NOW", "wait") if refuse[0] else None],
        idempotency=MemoryIdempotencyStore(),
        dead_letters=letters,
    )
    # No id of its own: the pipeline makes one.
    response = await pipeline.handle({"symbols": ["AAPL"]})
    (stored,) = letters.letters
    assert stored.correlation_id == response.correlation_id
    refuse[0] = False
    for _ in range(2):
        assert (await pipeline.handle(stored.input())).correlation_id == response.correlation_id
    assert runs == [stored.key]


async def test_a_start_that_is_refused_again_is_one_letter() -> None:
    letters = MemoryDeadLetters()
    pipeline = TriggerPipeline(
        handle_nothing, rules=[lambda _: RuleViolation("NOT_NOW", "wait")], dead_letters=letters
    )
    for number in range(3):
        await pipeline.handle({"symbols": ["AAPL"], "correlation_id": str(number)})
    for _ in range(2):
        before = {one.message_id for one in letters.letters}
        handled = await DeadLetterAdmin(letters.queue).redrive(PipelineTarget(pipeline.handle))
        assert [one.outcome for one in handled] == [LetterOutcome.MOVED] * 3
        assert handled[0].problem == "answered 422 refused: NOT_NOW: wait"
        assert before.isdisjoint(one.message_id for one in letters.letters)
        assert sorted(str(one.correlation_id) for one in letters.letters) == ["0", "1", "2"]
    # Where nothing keeps it, the old one stays.
    keeping_none = TriggerPipeline(handle_nothing, rules=[lambda _: RuleViolation("NOT_NOW", "wait")])
    handled = await DeadLetterAdmin(letters.queue).redrive(PipelineTarget(keeping_none.handle))
    assert [one.outcome for one in handled] == [LetterOutcome.KEPT] * 3


async def test_a_redriven_manual_call_that_may_go_well_later_is_for_lambda_to_deliver_again() -> None:
    letters = MemoryDeadLetters()
    await letters.put(replace(letter("m", {"symbols": ["AAPL"]}), trigger_type="manual"))

    async def fail(start: Start) -> None:
        raise OSError("upstream is down")

    handled = await TriggerPipeline(fail).run(letters.letters[0].input())
    assert (handled.response.status_code, handled.response.retryable, handled.has_caller) == (500, True, False)


async def handle_nothing(start: Start) -> None:
    """A handler that is never reached."""


# ---------------------------------------------------------------------- what goes wrong


async def test_what_is_sent_on_and_cannot_be_deleted_is_told(
    make_queue: MakeQueue, oms_fault_proxy: FaultProxy
) -> None:
    config = await make_queue(endpoint_url=oms_fault_proxy.endpoint_url)
    async with SqsQueue(config) as queue:
        await QueuedLetters(queue).put(letter("a"))
        admin = DeadLetterAdmin(queue, wait=0)
        oms_fault_proxy.always(Denied(), operation="DeleteMessageBatch")
        taker = Taker()
        (handled,) = await admin.redrive(taker)
        assert (handled.outcome, len(taker.taken)) == (LetterOutcome.TAKEN_AND_KEPT, 1)
        assert "allow sqs:DeleteMessage" in str(handled.problem)

        class Moving(Taker):
            async def take(self, letter: StoredLetter) -> None:
                raise LetterMovedError("answered 422 refused")

        # Two of it are there: better than none.
        (handled,) = await admin.redrive(Moving())
        assert handled.outcome is LetterOutcome.KEPT
        assert str(handled.problem).startswith("answered 422 refused; it is another dead letter now, and this one")
        (handled,) = await admin.delete([handled.message_id])
        assert handled.outcome is LetterOutcome.KEPT
        oms_fault_proxy.clear()
        # It is not hidden any more.
        assert len(await admin.letters()) == 1
        oms_fault_proxy.forget_calls()
        await admin.redrive(taker, [handled.message_id])
        # What is gone is not given back.
        assert oms_fault_proxy.calls_of("ChangeMessageVisibilityBatch") == ()


async def test_letters_are_given_back_when_reading_fails_on_the_way(
    make_queue: MakeQueue, oms_fault_proxy: FaultProxy
) -> None:
    config = await make_queue(endpoint_url=oms_fault_proxy.endpoint_url)
    async with SqsQueue(config) as queue:
        for name in "ab":
            await QueuedLetters(queue).put(letter(name))
        admin = DeadLetterAdmin(queue, wait=0)
        oms_fault_proxy.script(Denied(), operation="ChangeMessageVisibilityBatch")
        with pytest.raises(QueueError, match="allow sqs:ChangeMessageVisibility"):
            await admin.letters(limit=1)
    fresh = MemoryQueue()
    await QueuedLetters(fresh).put(letter("a"))

    class Failing(Taker):
        async def take(self, letter: StoredLetter) -> None:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await DeadLetterAdmin(fresh).redrive(Failing())
    assert len(await fresh.receive()) == 1


@pytest.mark.parametrize("skew", [-3600, 0, 3600])
async def test_letters_that_come_meanwhile_are_left_whatever_clocks_say(skew: int) -> None:
    clock, ours = ManualClock(), ManualClock()
    await ours.advance(7200 + skew)
    await clock.advance(7200)
    letters = MemoryDeadLetters(clock=clock)
    await letters.put(letter("0"))

    class GivesUpAtOnce(Taker):
        async def take(self, letter: StoredLetter) -> None:
            await super().take(letter)
            await letters.put(globals()["letter"](str(len(self.taken))))

    taker = GivesUpAtOnce()
    handled = await DeadLetterAdmin(letters.queue, clock=ours).redrive(taker)
    assert [one.outcome for one in handled] == [LetterOutcome.TAKEN]
    assert [one.correlation_id for one in letters.letters] == ["1"]


async def test_letters_whose_time_is_over_while_others_are_handled_are_handled_once() -> None:
    clock = ManualClock()
    letters = MemoryDeadLetters(clock=clock)
    for number in range(30):
        await letters.put(letter(str(number)))

    class Slow(Taker):
        async def take(self, letter: StoredLetter) -> None:
            await clock.advance(4)
            await super().take(letter)

    slow = Slow(*map(str, range(10)))
    handled = await DeadLetterAdmin(letters.queue, hidden_for=60, clock=clock).redrive(slow)
    assert len(slow.taken) == 20
    assert [one.outcome for one in handled].count(LetterOutcome.TAKEN) == 20


async def test_letters_that_are_kept_and_come_back_hide_none_of_the_others() -> None:
    clock = ManualClock()
    letters = MemoryDeadLetters(clock=clock)
    for number in range(60):
        await letters.put(letter(str(number)))

    class Slow(Taker):
        async def take(self, letter: StoredLetter) -> None:
            await clock.advance(20)
            await super().take(letter)

    # Those that are kept come back after 15 of them, and are more than two pages.
    slow = Slow(*map(str, range(40)))
    handled = await DeadLetterAdmin(letters.queue, hidden_for=300, clock=clock).redrive(slow)
    assert [one.outcome for one in handled] == [LetterOutcome.KEPT] * 40 + [LetterOutcome.TAKEN] * 20
    assert {one.problem for one in handled[:40]} == {"not now"}


async def test_what_was_seen_and_is_not_reached_is_kept_and_what_never_was_is_missing() -> None:
    letters = MemoryDeadLetters()
    for name in "ab":
        await letters.put(letter(name))
    first, second = (one.message_id for one in letters.letters)

    class Stealing(Taker):
        async def take(self, letter: StoredLetter) -> None:
            """Somebody else has the other one by now."""
            (stored,) = (one for one in letters.queue.messages if one.message_id == second)
            await letters.queue.delete(stored.receipt_handle)

    class OneByOne(MemoryQueue):
        async def receive(self, **asked: Any) -> Any:
            return await letters.queue.receive(**{**asked, "limit": 1})

        async def hide(self, *given: Any) -> None:
            await letters.queue.hide(*given)

        async def delete(self, receipt_handle: str) -> None:
            await letters.queue.delete(receipt_handle)

    admin = DeadLetterAdmin(OneByOne())
    kept = (second, LetterOutcome.KEPT, "it was not reached, or others have it for a while; call it again")
    handled = await admin.redrive(Stealing())
    assert [(one.message_id, one.outcome, one.problem) for one in handled] == [
        (first, LetterOutcome.TAKEN, None),
        kept,
    ]
    missing = [(second, LetterOutcome.MISSING, None)]
    for listed, told in ((True, [kept]), (False, missing)):
        for handled in (
            await admin.redrive(Taker(), [second], listed=listed),
            await admin.delete([second], listed=listed),
        ):
            assert [(one.message_id, one.outcome, one.problem) for one in handled] == told
