from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest

from oms_events._aio import Clock
from oms_events.errors import (
    CommitOutcomeUnknownError,
    ConditionFailedError,
    OutboxClosedError,
    StorageDeniedError,
    StorageOutcomeUnknownError,
    StorageRejectedError,
    StorageUnavailableError,
    TransactionCanceledError,
    TransactionConflictError,
)
from oms_events.outbox.config import WriterConfig
from oms_events.outbox.outbox import Outbox
from oms_events.outbox.signals import Committed, Voided
from oms_events.testing import ManualClock
from tests.outbox.writing import FaultyStore, conflict, event, ids_of, listen, numbers_of, order, records_of


def _outbox(store: FaultyStore, clock: Clock | None = None, **settings: object) -> Outbox:
    return Outbox(store, WriterConfig(**settings), clock=clock)  # type: ignore[arg-type]


async def _place_order(outbox: Outbox) -> None:
    async with outbox.transaction() as tx:
        tx.put("orders", order(), condition="attribute_not_exists(pk)")
        tx.add(event())


async def _run(clock: ManualClock, work: asyncio.Task[None], *, step: float = 1.0) -> None:
    """Lets time pass until the work has ended."""
    async with asyncio.timeout(10):
        while not work.done():
            await clock.advance(step)


class _SilentStore(FaultyStore):
    """Never answers a commit."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = asyncio.Event()

    async def commit(self, actions: Sequence[object], token: str) -> None:
        self.sent.set()
        await asyncio.Event().wait()


def _numbers(store: FaultyStore) -> list[str]:
    return [number for actions, _ in store.commits for number in numbers_of(actions)]


def _sk(*numbers: int) -> list[str]:
    return [f"{number:020d}" for number in numbers]


# ---------------------------------------------------------------------- a certain refusal is rebuilt


async def test_a_conflict_is_rebuilt_with_new_sequences_and_a_new_token() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    store.before.extend([conflict(), conflict()])
    await _place_order(outbox)
    assert _numbers(store) == _sk(1, 2, 3)
    assert len({token for _, token in store.commits}) == 3
    assert [record.sk for record in await records_of(outbox)] == _sk(3)
    assert len(store.committed) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        StorageUnavailableError("throttled"),
        TransactionCanceledError("throttled", reasons=["ThrottlingError", "None"]),
        TransactionCanceledError("throttled", reasons=["None", "ProvisionedThroughputExceeded"]),
    ],
)
async def test_throttling_is_rebuilt_like_a_conflict(refusal: Exception) -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    store.before.append(refusal)
    await _place_order(outbox)
    assert _numbers(store) == _sk(1, 2)
    assert len(store.committed) == 1


async def test_a_conflict_at_every_attempt_is_told_after_conflict_attempts() -> None:
    store = FaultyStore()
    outbox = _outbox(store, conflict_attempts=3)
    store.before.extend([conflict()] * 9)
    with pytest.raises(TransactionConflictError, match="nothing was written, after 3 attempts") as caught:
        await _place_order(outbox)
    assert list(caught.value.reasons) == ["TransactionConflict", "None"]
    assert len(store.commits) == 3
    assert await records_of(outbox) == []


async def test_throttling_at_every_attempt_is_told_as_unavailable() -> None:
    store = FaultyStore()
    outbox = _outbox(store, conflict_attempts=3)
    store.before.extend([TransactionCanceledError("slow down", reasons=["ThrottlingError", "None"])] * 9)
    with pytest.raises(StorageUnavailableError, match="nothing was written, after 3 attempts"):
        await _place_order(outbox)
    assert len(store.commits) == 3


async def test_attempts_are_apart_by_a_growing_pause_or_what_was_asked_for() -> None:
    store, clock = FaultyStore(), ManualClock()
    times: list[float] = []
    store.on_commit = lambda: times.append(clock.monotonic())
    store.before.extend([conflict()] * 3)
    store.before.append(StorageUnavailableError("throttled", retry_after=7))
    await _run(clock, asyncio.create_task(_place_order(_outbox(store, clock))), step=0.001)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert 0.01 <= pauses[0] <= 0.02
    assert 0.02 <= pauses[1] <= 0.04
    assert 0.04 <= pauses[2] <= 0.08
    assert pauses[3] == pytest.approx(7)


@pytest.mark.parametrize(
    "error",
    [StorageDeniedError("no such table"), StorageRejectedError("two actions on one item"), RuntimeError("a bug")],
)
async def test_what_cannot_pass_is_told_at_once(error: Exception) -> None:
    store = FaultyStore()
    store.before.append(error)
    with pytest.raises(type(error), match=str(error)):
        await _place_order(_outbox(store))
    assert len(store.commits) == 1


async def test_a_reason_that_cannot_pass_is_told_with_its_action() -> None:
    store = FaultyStore()
    store.before.append(TransactionCanceledError("canceled", reasons=["ValidationError", "TransactionConflict"]))
    with pytest.raises(StorageRejectedError, match=r"action 0 \(Put, table 'orders'\): ValidationError"):
        await _place_order(_outbox(store))
    assert len(store.commits) == 1


async def test_a_failed_condition_beside_a_conflict_is_a_failed_condition() -> None:
    store = FaultyStore()
    store.before.append(
        TransactionCanceledError("canceled", reasons=["ConditionalCheckFailed", "TransactionConflict"])
    )
    with pytest.raises(ConditionFailedError, match="action 0"):
        await _place_order(_outbox(store))
    assert len(store.commits) == 1


async def test_a_reservation_older_than_prepared_for_is_never_sent() -> None:
    store, clock = FaultyStore(), ManualClock()
    outbox = _outbox(store, clock, prepared_for=25)
    heard = listen(outbox)
    store.gate.clear()
    placing = asyncio.create_task(_place_order(outbox))
    await store.reserving.wait()
    await clock.advance(26)
    store.gate.set()
    await _run(clock, placing)
    assert _numbers(store) == _sk(2)
    assert [type(signal) for signal in heard] == [Voided, Committed]


# ---------------------------------------------------------------------- after silence nothing is rebuilt


async def test_a_lost_answer_is_followed_by_the_identical_request() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    heard = listen(outbox)
    store.after.append(StorageOutcomeUnknownError("no answer"))
    await _place_order(outbox)
    first, second = store.commits
    assert first == second
    assert len(store.committed) == 1
    assert [record.sk for record in await records_of(outbox)] == _sk(1)
    assert [type(signal) for signal in heard] == [Committed]


async def test_a_request_that_got_lost_itself_is_done_by_the_identical_one() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    store.before.append(StorageOutcomeUnknownError("no answer"))
    await _place_order(outbox)
    assert store.commits[0] == store.commits[1]
    assert len(store.committed) == 1


@pytest.mark.parametrize(
    "answer",
    [conflict(), StorageUnavailableError("throttled"), StorageDeniedError("expired"), StorageRejectedError("?")],
)
async def test_after_silence_a_refusal_says_nothing_about_the_unanswered_request(answer: Exception) -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    heard = listen(outbox)
    store.before.extend([None, answer, answer])
    store.after.append(StorageOutcomeUnknownError("no answer"))
    await _place_order(outbox)
    assert len(store.commits) == 4
    assert all(commit == store.commits[0] for commit in store.commits)
    assert len(store.committed) == 1
    assert [type(signal) for signal in heard] == [Committed]


async def test_after_silence_a_failed_condition_is_believed() -> None:
    store = FaultyStore(refuse=lambda action: "orders" in str(action))
    outbox = _outbox(store)
    heard = listen(outbox)
    store.before.append(StorageOutcomeUnknownError("no answer"))
    with pytest.raises(ConditionFailedError, match=r"action 0 \(Put, table 'orders'\)"):
        await _place_order(outbox)
    assert len(store.commits) == 2
    assert [type(signal) for signal in heard] == [Voided]


async def test_without_an_answer_until_commit_timeout_the_outcome_is_unknown() -> None:
    store, clock = FaultyStore(), ManualClock()
    outbox = _outbox(store, clock, commit_timeout=20)
    heard = listen(outbox)
    times: list[float] = []
    store.on_commit = lambda: times.append(clock.monotonic())
    store.before.extend([StorageOutcomeUnknownError("no answer")] * 1000)
    placing = asyncio.create_task(_place_order(outbox))
    await clock.someone_sleeps()
    await _run(clock, placing, step=0.1)
    with pytest.raises(CommitOutcomeUnknownError, match="read the business item before doing it again"):
        await placing
    assert all(commit == store.commits[0] for commit in store.commits)
    assert 18 < times[-1] < 20
    assert clock.monotonic() == pytest.approx(20, abs=1.2)
    assert heard == []


async def test_a_call_that_never_answers_ends_at_commit_timeout() -> None:
    outbox = _outbox(_SilentStore(), commit_timeout=0.1)
    with pytest.raises(CommitOutcomeUnknownError, match=r"commit_timeout = 0\.1 s"):
        await _place_order(outbox)


async def test_a_cancelled_commit_tells_nobody_anything() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    heard = listen(outbox)
    reached = asyncio.Event()
    store.on_commit = reached.set
    placing = asyncio.create_task(_place_order(outbox))
    await reached.wait()
    placing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await placing
    assert heard == []
    store.on_commit = lambda: None
    await _place_order(outbox)
    assert len(heard) == 1


# ---------------------------------------------------------------------- what became of the numbers


async def test_numbers_of_a_refused_attempt_are_told_to_be_void() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    heard = listen(outbox)
    store.before.append(conflict())
    async with outbox.transaction() as tx:
        tx.add(event())
        tx.add(event())
    voided, committed = heard
    assert isinstance(voided, Voided)
    assert list(voided.numbers) == [1, 2]
    assert isinstance(committed, Committed)
    assert [record.sk for record in committed.records] == _sk(3, 4)
    assert voided.bucket == committed.records[0].partition.bucket


async def test_what_was_committed_is_what_listeners_hear_of_in_order() -> None:
    outbox = _outbox(FaultyStore())
    heard = listen(outbox)
    for _ in range(3):
        await outbox.add(event())
    told = [record.event.id for signal in heard if isinstance(signal, Committed) for record in signal.records]
    assert told == await ids_of(outbox)


# ---------------------------------------------------------------------- closing meanwhile


async def test_closing_ends_a_commit_that_has_no_answer_at_once_as_unknown() -> None:
    store = _SilentStore()
    outbox = _outbox(store, commit_timeout=60)
    heard = listen(outbox)
    placing = asyncio.create_task(_place_order(outbox))
    await store.sent.wait()
    async with asyncio.timeout(5):
        await outbox.close()
        with pytest.raises(CommitOutcomeUnknownError, match="the outbox was closed before") as caught:
            await placing
    assert caught.value.__cause__ is not None
    assert heard == []


async def test_closing_between_two_sends_after_silence_is_unknown_and_keeps_its_cause() -> None:
    store, clock = FaultyStore(), ManualClock()
    outbox = _outbox(store, clock)
    lost = StorageOutcomeUnknownError("no answer")
    store.after.append(lost)
    placing = asyncio.create_task(_place_order(outbox))
    await clock.someone_sleeps()
    await outbox.close()
    async with asyncio.timeout(5):
        with pytest.raises(CommitOutcomeUnknownError) as caught:
            await placing
    assert caught.value.__cause__ is lost
    assert len(store.commits) == 1


async def test_closing_after_a_certain_refusal_says_that_nothing_was_written() -> None:
    store, clock = FaultyStore(), ManualClock()
    outbox = _outbox(store, clock)
    heard = listen(outbox)
    store.before.append(conflict())
    placing = asyncio.create_task(_place_order(outbox))
    await clock.someone_sleeps()
    await outbox.close()
    async with asyncio.timeout(5):
        with pytest.raises(OutboxClosedError, match="nothing was written"):
            await placing
    assert len(store.commits) == 1
    assert [type(signal) for signal in heard] == [Voided]


async def test_a_transaction_that_ends_after_the_outbox_was_closed_sends_nothing() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    transaction = outbox.transaction()
    async with outbox:
        await transaction.__aenter__()
        transaction.put("orders", order())
    with pytest.raises(OutboxClosedError, match="nothing was written"):
        await transaction.__aexit__(None, None, None)
    assert store.commits == []
