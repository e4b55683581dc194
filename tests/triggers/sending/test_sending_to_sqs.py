"""Chunks on their way to SQS: partial failures, lost answers, limits, and what the errors say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from oms_events.devstack import Denied, FaultProxy, Hang, LoseAnswer, PartialFailure, Reset, ServerError, Throttle
from oms_events.errors import ConfigurationError, QueueError
from oms_events.instrumentation.hooks import ChunksSent
from oms_events.resilience.backoff import RetryConfig
from oms_events.triggers.sending.chunk_sender import ChunkSender
from oms_events.triggers.sending.chunks import chunks_of
from oms_events.triggers.sending.memory_queue import MemoryQueue
from oms_events.triggers.sending.queues import OutgoingMessage
from oms_events.triggers.sending.sqs import QueueConfig, SqsQueue
from tests.outbox.support import session_of
from tests.triggers.sending.conftest import MakeQueue, make_start

SEND = "SendMessageBatch"


@pytest.fixture
async def config(make_queue: MakeQueue, oms_fault_proxy: FaultProxy) -> QueueConfig:
    """An empty queue behind the fault proxy."""
    return await make_queue(endpoint_url=oms_fault_proxy.endpoint_url)


@pytest.fixture
async def sender(config: QueueConfig) -> AsyncIterator[ChunkSender]:
    async with ChunkSender(config) as sender:
        yield sender


async def received(sqs: Any, config: QueueConfig) -> list[dict[str, Any]]:
    """All that is in the queue, by chunk."""
    documents: list[dict[str, Any]] = []
    asked = {"QueueUrl": config.queue_url, "MaxNumberOfMessages": 10}
    while messages := (await sqs.receive_message(**asked)).get("Messages"):
        documents += [json.loads(message["Body"]) for message in messages]
    return sorted(documents, key=lambda document: document["chunk_index"])


def test_a_queue_that_is_busy_goes_on_in_the_next_loop() -> None:
    class Client:
        """What is borrowed lives in any loop."""

        class meta:  # noqa: N801
            region_name = "eu-central-1"

        async def send_message_batch(self, **asked: Any) -> dict[str, Any]:
            await asyncio.sleep(0)
            return {"Successful": [{"Id": entry["Id"], "MessageId": "m"} for entry in asked["Entries"]]}

    url = "https://sqs.eu-central-1.amazonaws.com/111122223333/queue"
    queue = SqsQueue(QueueConfig(queue_url=url, connections=1), client=Client())

    async def send_many() -> int:
        return len(await asyncio.gather(*(queue.send([OutgoingMessage("x")]) for _ in range(3))))

    assert [asyncio.run(send_many()) for _ in range(2)] == [3, 3]


async def test_chunks_go_in_calls_of_ten(
    sender: ChunkSender, config: QueueConfig, sqs: Any, oms_fault_proxy: FaultProxy
) -> None:
    start = make_start(symbols=23, chunk_size=1)
    result = await sender(start)
    assert (result["chunks"], result["symbols"], len(set(result["messages"]))) == (23, 23, 23)
    assert [call.entries for call in oms_fault_proxy.calls_of(SEND)] == [10, 10, 3]
    assert await received(sqs, config) == [chunk.document for chunk in chunks_of(start)]


async def test_calls_are_as_large_as_the_start_says(sender: ChunkSender, oms_fault_proxy: FaultProxy) -> None:
    await sender(make_start(symbols=5, chunk_size=1, sqs_send_batch_size=2))
    assert [call.entries for call in oms_fault_proxy.calls_of(SEND)] == [2, 2, 1]


async def test_only_what_failed_is_sent_again(
    sender: ChunkSender, config: QueueConfig, sqs: Any, oms_fault_proxy: FaultProxy
) -> None:
    oms_fault_proxy.script(PartialFailure((1, 4)), PartialFailure((0,)), operation=SEND)
    start = make_start(symbols=6, chunk_size=1)
    result = await sender(start)
    assert [call.entries for call in oms_fault_proxy.calls_of(SEND)] == [6, 2, 1]
    assert len(set(result["messages"])) == 6
    assert await received(sqs, config) == [chunk.document for chunk in chunks_of(start)]


async def test_what_fails_each_time_is_told_by_its_place_and_what_follows_is_not_sent(
    config: QueueConfig, sqs: Any, oms_fault_proxy: FaultProxy
) -> None:
    oms_fault_proxy.always(PartialFailure((0,), code="InternalError", message="we are sorry"), operation=SEND)
    details: list[Any] = []
    async with ChunkSender(config, hooks=[details.append]) as sender:
        with pytest.raises(QueueError, match=r"11 of 12 messages were not sent: .*we are sorry") as caught:
            await sender(make_start(symbols=12, chunk_size=1, sqs_send_batch_size=2))
    assert caught.value.failed == (0, *range(2, 12))
    assert (caught.value.retryable, caught.value.unknown, caught.value.code) == (True, False, "InternalError")
    assert [call.entries for call in oms_fault_proxy.calls_of(SEND)] == [2, 1, 1]
    assert [document["chunk_index"] for document in await received(sqs, config)] == [1]
    assert details == [ChunksSent(1, 11)]


async def test_an_entry_that_the_queue_refuses_for_good_is_not_sent_again(
    make_queue: MakeQueue, oms_fault_proxy: FaultProxy
) -> None:
    # The queue takes less than the configuration says.
    config = await make_queue(attributes={"MaximumMessageSize": "1024"}, endpoint_url=oms_fault_proxy.endpoint_url)
    messages = [OutgoingMessage("fine"), OutgoingMessage("x" * 2000), OutgoingMessage("fine, too")]
    async with SqsQueue(config) as queue:
        with pytest.raises(QueueError, match=r"1 of 3 messages were not sent: .*shorter than 1024") as caught:
            await queue.send(messages)
        assert (caught.value.failed, caught.value.retryable) == ((1,), False)
        assert sorted(message.body for message in await queue.receive()) == ["fine", "fine, too"]
    assert len(oms_fault_proxy.calls_of(SEND)) == 1


async def test_faults_of_the_whole_call_are_tried_again(
    sender: ChunkSender, config: QueueConfig, sqs: Any, oms_fault_proxy: FaultProxy
) -> None:
    for fault in (Throttle(code="RequestThrottled"), ServerError(), Reset(), LoseAnswer()):
        oms_fault_proxy.script(fault, operation=SEND)
        start = make_start(symbols=2, chunk_size=1)
        await sender(start)
        chunks = [chunk.document for chunk in chunks_of(start)]
        # After a lost answer each is there twice, under the same chunk id.
        copies = 2 if isinstance(fault, LoseAnswer) else 1
        assert await received(sqs, config) == [chunk for chunk in chunks for _ in range(copies)]


async def test_what_never_gets_an_answer_is_unknown(
    sender: ChunkSender, config: QueueConfig, sqs: Any, oms_fault_proxy: FaultProxy
) -> None:
    oms_fault_proxy.always(LoseAnswer(), operation=SEND)
    with pytest.raises(QueueError, match="1 of 3 messages were not sent, and of 2 it is not known") as caught:
        await sender(make_start(symbols=3, chunk_size=1, sqs_send_batch_size=2))
    assert (caught.value.failed, caught.value.retryable, caught.value.unknown) == ((2,), True, True)
    assert len(await received(sqs, config)) == 6


async def test_a_refusal_after_a_lost_answer_leaves_it_unknown(
    sender: ChunkSender, oms_fault_proxy: FaultProxy
) -> None:
    oms_fault_proxy.script(LoseAnswer(), Denied(), operation=SEND)
    with pytest.raises(QueueError, match="may have been done") as caught:
        await sender(make_start(symbols=3))
    assert (caught.value.failed, caught.value.unknown, caught.value.retryable) == ((), True, False)
    assert caught.value.code == "AccessDeniedException"


async def test_a_call_has_no_more_bytes_than_sqs_takes(make_queue: MakeQueue, oms_fault_proxy: FaultProxy) -> None:
    config = await make_queue(endpoint_url=oms_fault_proxy.endpoint_url)
    bodies = ["\xe4" * 300_000, "b" * 448_576, "c", "d" * 1_048_576]
    async with SqsQueue(config) as queue:
        await queue.send([OutgoingMessage(body) for body in bodies])
    assert [call.entries for call in oms_fault_proxy.calls_of(SEND)] == [2, 1, 1]
    oms_fault_proxy.forget_calls()
    async with SqsQueue(config.model_copy(update={"max_batch_bytes": 2048})) as queue:
        await queue.send([OutgoingMessage("x" * 1000)] * 5)
        with pytest.raises(QueueError, match="has 2,049 bytes, and the queue takes 1 to 2,048"):
            await queue.send([OutgoingMessage("x" * 2049)])
    assert [call.entries for call in oms_fault_proxy.calls_of(SEND)] == [2, 2, 1]


async def test_in_a_fifo_queue_a_start_that_runs_again_sends_nothing_twice(
    make_queue: MakeQueue, sqs: Any
) -> None:
    config = await make_queue(fifo=True)
    start = make_start(symbols=3, chunk_size=1)
    async with ChunkSender(config, client=sqs) as sender:
        assert (await sender(start))["messages"] == (await sender(start))["messages"]
        # A later run of an exclusive key: who has its fence refuses the older one's chunks.
        for fence in (1, 2, 2):
            await sender(make_start(symbols=1, fence=fence))
    received = (await sqs.receive_message(QueueUrl=config.queue_url, MaxNumberOfMessages=10))["Messages"]
    chunks = [json.loads(message["Body"]) for message in received]
    assert [chunk["chunk_index"] for chunk in chunks] == [0, 1, 2, 0, 0]
    assert [chunk.get("fence") for chunk in chunks[3:]] == [1, 2]


async def test_a_missing_permission_or_queue_is_named(
    sender: ChunkSender, config: QueueConfig, oms_fault_proxy: FaultProxy
) -> None:
    oms_fault_proxy.always(Denied())
    with pytest.raises(QueueError, match="allow sqs:SendMessage on the queue to these credentials") as caught:
        await sender(make_start())
    assert (caught.value.retryable, len(oms_fault_proxy.calls)) == (False, 1)
    oms_fault_proxy.clear()
    missing = config.model_copy(update={"queue_url": f"{config.queue_url}-missing"})
    async with SqsQueue(missing) as queue:
        with pytest.raises(QueueError, match="no such queue: check queue_url and aws_region") as caught:
            await queue.receive()
    assert (caught.value.code, caught.value.retryable) == ("QueueDoesNotExist", False)


async def test_a_call_that_hangs_is_given_up(make_queue: MakeQueue, oms_fault_proxy: FaultProxy) -> None:
    quick = {"read_timeout": 0.1, "connect_timeout": 0.2, "retry": RetryConfig(max_attempts=1)}
    config = await make_queue(endpoint_url=oms_fault_proxy.endpoint_url)
    async with SqsQueue(config) as patient:
        # What botocore does once for all clients of a process is not to count.
        await patient.receive()
    async with SqsQueue(config.model_copy(update=quick)) as queue:
        oms_fault_proxy.always(Hang())
        with pytest.raises(QueueError, match="it is not known") as caught:
            await queue.send([OutgoingMessage("a")])
        assert (caught.value.unknown, caught.value.failed) == (True, ())
        with pytest.raises(QueueError, match="ReceiveMessage") as caught:
            await queue.receive()
        assert (caught.value.unknown, caught.value.retryable) == (False, True)


async def test_what_was_deleted_without_an_answer_is_deleted(
    config: QueueConfig, oms_fault_proxy: FaultProxy
) -> None:
    async with SqsQueue(config) as queue:
        await queue.send([OutgoingMessage("a")])
        (message,) = await queue.receive()
        oms_fault_proxy.script(LoseAnswer(), operation="DeleteMessageBatch")
        await queue.delete(message.receipt_handle)
        assert len(oms_fault_proxy.calls_of("DeleteMessageBatch")) == 2


async def test_it_opens_by_itself_and_after_it_was_closed_only_when_it_is_told_to(make_queue: MakeQueue) -> None:
    sender = ChunkSender(await make_queue())
    await sender(make_start())
    for _ in range(2):
        await sender.close()
        with pytest.raises(QueueError, match=r"the connection to queue .* was closed"):
            await sender(make_start())
    await sender.open()
    await sender(make_start())
    await sender.close()


async def test_what_is_cancelled_inside_does_not_look_as_if_the_caller_had_to_end(
    make_queue: MakeQueue, aws: Any
) -> None:
    async def look_up(**_: Any) -> None:
        raise asyncio.CancelledError

    async with session_of(aws).client("sqs", endpoint_url=aws["endpoint_url"]) as client:
        client.meta.events.register("before-send", look_up)
        async with SqsQueue(await make_queue(), client=client) as queue:
            with pytest.raises(QueueError, match="what waited for the answer was cancelled"):
                await queue.send([OutgoingMessage("a")])


async def test_a_queue_of_yours_is_borrowed_and_a_plan_sends_nothing() -> None:
    queue = MemoryQueue("mine")
    start = make_start(symbols=7, chunk_size=5)
    async with ChunkSender(queue) as sender:
        plan = sender.plan(start)
        assert queue.documents == []
        await sender(start)
    assert plan == {"queue": "mine", "chunks": 2, "symbols": 7, "documents": queue.documents}


@pytest.mark.parametrize(
    "url", ["", "orders", "https://sqs.eu-west-1.amazonaws.com/", "ftp://a/1/b", "https://me:secret@a/1/b"]
)
def test_what_is_no_queue_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="give the queue's URL"):
        QueueConfig(queue_url=url)


async def test_a_region_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="aws_region"):
        await SqsQueue(QueueConfig(queue_url="https://sqs.eu-west-1.amazonaws.com/1/a")).open()
