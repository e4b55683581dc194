"""The contracts of the triggers' queues as tests: subclass them beside your own implementations' tests."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from oms_events.errors import QueueError, TriggerError
from oms_events.events import build_event
from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.sending.dead_letters import QueuedLetters
from oms_events.triggers.sending.delay import QueuedStarts
from oms_events.triggers.sending.letters import DeadLetter, LetterKind, StoredLetter
from oms_events.triggers.sending.queues import MessageQueue, OutgoingMessage
from oms_events.triggers.sending.redrive import DeadLetterAdmin, LetterOutcome
from oms_events.triggers.start import Queued

SMALL = 20_000
"""Bytes that the queues of the dead letters take here as a message."""

_HOSTILE = "\x00\x1f\ufffe\U0001f4a9\ud800 한글 \"\\ ' \n"
_TIME = datetime(2026, 9, 9, 16, 30, 0, 250_000, tzinfo=UTC)


class MessageQueueContract:
    """Subclass as `class TestMine(MessageQueueContract)` and give it the fixtures `standard` and `fifo`: empty
    queues without a delay."""

    pytestmark = pytest.mark.asyncio

    async def test_a_message_is_hidden_given_back_and_deleted(self, standard: MessageQueue) -> None:
        (sent,) = await standard.send([OutgoingMessage("ä \U0001f4a9 {}")])
        (message,) = await standard.receive()
        assert (message.message_id, message.body, message.receive_count) == (sent, "ä \U0001f4a9 {}", 1)
        assert await standard.receive() == []
        await standard.hide([message.receipt_handle], 0)
        (again,) = await standard.receive()
        assert (again.message_id, again.receive_count) == (sent, 2)
        await standard.delete(again.receipt_handle)
        assert await standard.receive() == []
        with pytest.raises(QueueError) as caught:
            await standard.delete(again.receipt_handle)
        assert not caught.value.retryable
        await standard.hide([again.receipt_handle], 0)

    async def test_many_are_sent_in_order_of_their_ids(self, standard: MessageQueue) -> None:
        bodies = [f"message {number}" for number in range(25)]
        ids = await standard.send([OutgoingMessage(body) for body in bodies], batch_size=4)
        received = []
        while page := await standard.receive(limit=7):
            assert len(page) <= 7
            received += page
        assert sorted((message.message_id, message.body) for message in received) == sorted(
            zip(ids, bodies, strict=True)
        )
        assert await standard.send([]) == []

    @pytest.mark.parametrize("body", ["", "x" * 1_048_577, "\x00", "\ufffe", "\ud800"])
    async def test_what_can_never_be_sent_keeps_all_from_being_sent(
        self, standard: MessageQueue, body: str
    ) -> None:
        with pytest.raises(QueueError, match="nothing was sent: message 1 of 3") as caught:
            await standard.send([OutgoingMessage("fine"), OutgoingMessage(body), OutgoingMessage("fine")])
        assert (caught.value.failed, caught.value.retryable, caught.value.unknown) == ((0, 1, 2), False, False)
        assert await standard.receive() == []

    async def test_a_fifo_queue_keeps_the_order_of_each_group(self, fifo: MessageQueue) -> None:
        assert fifo.is_fifo
        await fifo.send(
            [
                OutgoingMessage(f"{group}{number}", group, f"{group}{number}")
                for number in range(3)
                for group in "ab"
            ]
        )
        (first,) = await fifo.receive(limit=1)
        assert (first.body, first.group) == ("a0", "a")
        # While it is hidden, all of its group is.
        assert [message.body for message in await fifo.receive()] == ["b0", "b1", "b2"]
        await fifo.hide([first.receipt_handle], 0)
        again = await fifo.receive()
        assert [message.body for message in again] == ["a0", "a1", "a2"]
        await fifo.delete(again[0].receipt_handle)
        assert await fifo.receive() == []

    async def test_a_fifo_queue_stores_a_deduplication_id_once(self, fifo: MessageQueue) -> None:
        message = OutgoingMessage("a", "group", "id")
        ids = [*await fifo.send([message]), *await fifo.send([message, OutgoingMessage("b", "group", "other")])]
        assert ids[0] == ids[1] != ids[2]
        received = await fifo.receive()
        assert [one.body for one in received] == ["a", "b"]
        await fifo.delete(received[0].receipt_handle)
        # The id is known when the message is gone, too.
        assert await fifo.send([message]) == ids[:1]

    async def test_a_fifo_queue_wants_a_group(self, fifo: MessageQueue) -> None:
        with pytest.raises(QueueError, match="no group or no deduplication id"):
            await fifo.send([OutgoingMessage("a", group="a")])


class DelayQueueContract:
    """Subclass as `class TestMine(DelayQueueContract)` and give it a fixture `delay`: an empty queue without a
    delay."""

    pytestmark = pytest.mark.asyncio

    async def test_starts_come_back_as_lambda_hands_them_over(self, delay: QueuedStarts) -> None:
        message = {"delayed_start": {"version": 1, "raw": {"text": _HOSTILE}}}
        await delay.put(message, group="market:prices", key="market:prices:2026-09-09:1")
        batch = await delay.receive_batch()
        assert batch is not None
        (record,) = batch["Records"]
        assert json.loads(record["body"]) == message
        assert record["eventSource"] == "aws:sqs"
        assert record["attributes"]["MessageGroupId"] == "market:prices"
        assert record["attributes"]["ApproximateReceiveCount"] == "1"
        assert await delay.receive_batch() is None
        await delay.settle(batch)
        assert await delay.receive_batch() is None

    async def test_the_same_message_is_there_once_and_a_later_one_of_its_key_again(
        self, delay: QueuedStarts
    ) -> None:
        for delayed_at in (1, 1, 2):
            await delay.put({"delayed_at": delayed_at}, group="g", key="k")
        assert await _bodies(delay) == [{"delayed_at": 1}, {"delayed_at": 2}]

    async def test_a_held_start_holds_its_group_and_no_other(self, delay: QueuedStarts) -> None:
        for number in range(2):
            for group in ("a", "b"):
                await delay.put({"start": f"{group}{number}"}, group=group, key=f"{group}{number}")
        batch = await delay.receive_batch()
        assert batch is not None
        (record,) = batch["Records"]
        await delay.hold(_queued(record), 600.5)
        await delay.settle(batch, [record["messageId"]])
        assert await _bodies(delay) == [{"start": "b0"}, {"start": "b1"}]
        await delay.hold(_queued(record), 0)
        assert await _bodies(delay) == [{"start": "a0"}, {"start": "a1"}]

    async def test_a_start_is_held_for_half_a_day_at_most(self, delay: QueuedStarts) -> None:
        await delay.put({}, group="g", key="k")
        batch = await delay.receive_batch()
        assert batch is not None
        (record,) = batch["Records"]
        # More would be refused, and the message come back at once.
        await delay.hold(_queued(record), 86_400.0)
        assert await delay.receive_batch() is None

    async def test_what_is_gone_cannot_be_held_and_harms_nobody(self, delay: QueuedStarts) -> None:
        await delay.put({}, group="g", key="k")
        batch = await delay.receive_batch()
        assert batch is not None
        await delay.settle(batch)
        await delay.hold(_queued(batch["Records"][0]), 1)
        with pytest.raises(QueueError, match="without a receipt handle"):
            await delay.hold(Queued("m"), 1)

    async def test_a_message_of_another_queue_is_left_alone(self, delay: QueuedStarts) -> None:
        await delay.put({}, group="g", key="k")
        batch = await delay.receive_batch()
        assert batch is not None
        foreign = replace(_queued(batch["Records"][0]), queue_arn="arn:aws:sqs:us-east-1:1:another")
        # It would be there at once.
        await delay.hold(foreign, 0)
        assert await delay.receive_batch() is None

    async def test_what_is_no_json_is_refused(self, delay: QueuedStarts) -> None:
        for wrong in (object(), float("nan"), {1, 2}):
            with pytest.raises(QueueError, match="nothing was queued: no JSON") as caught:
                await delay.put({"wrong": wrong}, group="g", key="k")
            assert not caught.value.retryable
        assert await delay.receive_batch() is None


async def _bodies(delay: QueuedStarts) -> list[Any]:
    """What can be received, one by one, and is deleted."""
    bodies = []
    while batch := await delay.receive_batch():
        bodies += [json.loads(record["body"]) for record in batch["Records"]]
        await delay.settle(batch)
    return bodies


def _queued(record: Mapping[str, Any]) -> Queued:
    return Queued(record["messageId"], record["receiptHandle"], queue_arn=record["eventSourceARN"])


# ---------------------------------------------------------------------- dead letters


class Taker:
    """A target that remembers what it took; it refuses the letters with these correlation ids."""

    takes = frozenset(LetterKind)

    def __init__(self, *refused: str | None) -> None:
        self.taken: list[StoredLetter] = []
        self._refused = refused

    async def take(self, letter: StoredLetter) -> None:
        if letter.correlation_id in self._refused:
            raise TriggerError("not now")
        self.taken.append(letter)


def letter(correlation_id: str, raw: object = None) -> DeadLetter:
    """A letter of an event."""
    return DeadLetter(
        reason=Code.BREAKER_OPEN,
        problems=[Problem(Code.BREAKER_OPEN, "wait", "domain", "market")],
        raw={"id": correlation_id} if raw is None else raw,
        correlation_id=correlation_id,
        trigger_type="event",
        trigger_time="2026-09-09T16:00:00.000Z",
        key=f"market:prices:2026-09-09:{correlation_id}",
        time=_TIME,
    )


class DeadLettersContract:
    """Subclass as `class TestMine(DeadLettersContract)` and give it the fixtures `dead` and `admin`: of one empty
    standard queue that takes messages of `SMALL` bytes."""

    pytestmark = pytest.mark.asyncio

    async def test_a_letter_is_read_as_it_was_put(self, dead: QueuedLetters, admin: DeadLetterAdmin) -> None:
        await dead.put(letter("a"))
        (read,) = await admin.letters()
        assert (read.kind, read.reason, read.correlation_id) == (LetterKind.START, "BREAKER_OPEN", "a")
        assert (read.trigger_type, read.time) == ("event", "2026-09-09T16:30:00.250000Z")
        assert read.problems == [{"code": "BREAKER_OPEN", "field": "domain", "value": "market", "remedy": "wait"}]
        assert (read.raw, read.is_whole) == ({"id": "a"}, True)
        assert json.loads(json.dumps(read.document()))["raw"] == {"id": "a"}

    @pytest.mark.parametrize(
        ("raw", "read"),
        [
            ({"text": _HOSTILE, "list": [1, 2.5, True, None]}, {"text": _HOSTILE, "list": [1, 2.5, True, None]}),
            ("no JSON {", "no JSON {"),
            (b'{"a": 1}', '{"a": 1}'),
            ([], []),
            (0, 0),
            ({"large": "x" * (2 * SMALL)}, {"large": "x" * (2 * SMALL)}),
        ],
        ids=["hostile", "text", "bytes", "list", "number", "large"],
    )
    async def test_the_raw_input_is_kept(
        self, dead: QueuedLetters, admin: DeadLetterAdmin, raw: object, read: object
    ) -> None:
        await dead.put(letter("a", raw))
        (stored,) = await admin.letters()
        assert stored.is_whole
        assert stored.raw == read

    async def test_a_cloud_event_is_kept_as_its_json(self, dead: QueuedLetters, admin: DeadLetterAdmin) -> None:
        await dead.put(letter("a", build_event("t", "s", {"a": 1}, id="1")))
        (stored,) = await admin.letters()
        assert (stored.raw["id"], stored.raw["specversion"], stored.raw["data"]) == ("1", "1.0", {"a": 1})

    async def test_of_what_the_queue_cannot_take_the_beginning_is_kept_and_an_error_logged(
        self, dead: QueuedLetters, admin: DeadLetterAdmin, caplog: pytest.LogCaptureFixture
    ) -> None:
        noise = random.Random(1).randbytes(SMALL).hex()  # noqa: S311
        with caplog.at_level(logging.ERROR, "oms_events"):
            await dead.put(letter("big", {"noise": noise}))
        assert "the dead letter of big (BREAKER_OPEN) keeps only the beginning of its input" in caplog.text
        (stored,) = await admin.letters()
        assert not stored.is_whole
        assert stored.raw is None
        assert stored.head is not None
        assert stored.head.startswith(f'{{"raw": {{"noise": "{noise[:1000]}')
        (handled,) = await admin.redrive(Taker())
        assert handled.outcome is LetterOutcome.KEPT
        assert "not kept whole" in str(handled.problem)

    @pytest.mark.parametrize("raw", [object(), {"nan": float("nan")}, b"\xff"], ids=["object", "nan", "bytes"])
    async def test_what_is_no_json_is_kept_for_who_looks_at_it(
        self, dead: QueuedLetters, admin: DeadLetterAdmin, raw: object
    ) -> None:
        await dead.put(letter("a", raw))
        (stored,) = await admin.letters()
        assert not stored.is_whole
        assert stored.head

    async def test_looking_loses_nothing(self, dead: QueuedLetters, admin: DeadLetterAdmin) -> None:
        for number in range(23):
            await dead.put(letter(str(number)))
        for _ in range(2):
            found = await admin.letters()
            assert sorted(int(str(one.correlation_id)) for one in found) == list(range(23))
        assert len(await admin.letters(limit=7)) == 7
        shown = await admin.show(found[20].message_id)
        assert shown is not None
        assert shown.correlation_id == found[20].correlation_id
        assert shown.receive_count >= 3
        assert await admin.show("nobody") is None
        assert len(await admin.letters()) == 23

    async def test_all_are_redriven_and_those_that_are_refused_stay(
        self, dead: QueuedLetters, admin: DeadLetterAdmin
    ) -> None:
        for number in range(12):
            await dead.put(letter(str(number)))
        taker = Taker("3", "11")
        handled = await admin.redrive(taker)
        outcomes = [one.outcome for one in handled]
        assert (outcomes.count(LetterOutcome.TAKEN), outcomes.count(LetterOutcome.KEPT)) == (10, 2)
        assert {one.problem for one in handled if one.outcome is LetterOutcome.KEPT} == {"not now"}
        assert sorted(int(str(one.raw["id"])) for one in taker.taken) == [0, 1, 2, *range(4, 11)]
        left = await admin.letters()
        assert sorted(str(one.correlation_id) for one in left) == ["11", "3"]
        assert [one.outcome for one in await admin.redrive(Taker())] == [LetterOutcome.TAKEN] * 2
        assert await admin.letters() == []

    async def test_those_that_are_named_are_redriven_or_deleted_and_no_others(
        self, dead: QueuedLetters, admin: DeadLetterAdmin
    ) -> None:
        for name in "abcd":
            await dead.put(letter(name))
        ids = {str(one.correlation_id): one.message_id for one in await admin.letters()}
        taker = Taker()
        handled = await admin.redrive(taker, [ids["b"], "nobody"])
        assert [(one.message_id, one.outcome) for one in handled] == [
            (ids["b"], LetterOutcome.TAKEN),
            ("nobody", LetterOutcome.MISSING),
        ]
        assert [one.correlation_id for one in taker.taken] == ["b"]
        (deleted,) = await admin.delete([ids["c"]])
        assert deleted.outcome is LetterOutcome.DELETED
        assert sorted(str(one.correlation_id) for one in await admin.letters()) == ["a", "d"]
        assert [one.outcome for one in await admin.redrive(taker, limit=1)] == [LetterOutcome.TAKEN]
        assert len(await admin.letters()) == 1
