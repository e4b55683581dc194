"""One run: start, replay, wait, refuse, complete, give up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from oms_events import build_event
from oms_events.errors import (
    IdempotencyArgumentError,
    PayloadMismatchError,
    ResultNotStoredError,
    RunInProgressError,
    StorageOutcomeUnknownError,
    StorageUnavailableError,
)
from oms_events.idempotency import (
    IdempotencyOptions,
    IdempotentRun,
    MemoryIdempotencyStore,
    RunRecord,
    RunState,
    Serializer,
)
from oms_events.testing import ManualClock

KEY = "test#A-1"
DEADLINE = 10.0


class GatedStore(MemoryIdempotencyStore):
    """Stops before or after completions until the gate opens; methods named in `broken` fail."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.reached = asyncio.Event()
        self.broken: dict[str, Exception] = {}

    async def write(self, record: RunRecord, *, now: int) -> RunRecord | None:
        if error := self.broken.get(f"write {record.state}"):
            await super().write(record, now=now)
            raise error
        if record.state is RunState.COMPLETED:
            self.reached.set()
            await self.gate.wait()
        return await super().write(record, now=now)

    async def remove(self, key: str, token: str) -> None:
        if error := self.broken.get("remove"):
            raise error
        await super().remove(key, token)


@pytest.fixture
def store() -> GatedStore:
    return GatedStore()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def run(store: GatedStore, clock: ManualClock) -> Callable[..., IdempotentRun]:
    def make(key: object = "A-1", **rest: Any) -> IdempotentRun:
        options = {name: rest.pop(name) for name in list(rest) if name in IdempotencyOptions.model_fields}
        return IdempotentRun(store, key, prefix="test", clock=clock, options=IdempotencyOptions(**options), **rest)

    return make


Make = Callable[..., IdempotentRun]


@pytest.mark.parametrize("result", [None, 0, "", [], {"a": [1, 2.5, "ü", None, True]}, 2**63])
async def test_a_result_is_replayed_and_none_counts(run: Make, result: object) -> None:
    async with run() as first:
        assert not first.replayed
        first.result = result
    async with run() as second:
        assert second.replayed
        assert second.result == result


async def test_a_result_is_kept_for_its_time(run: Make, clock: ManualClock) -> None:
    async with run(keep_for=100) as first:
        await clock.advance(50)
    await clock.advance(99)
    async with run() as second:
        assert second.replayed
    await clock.advance(1)
    async with run() as third:
        assert not third.replayed
    assert not first.replayed


async def test_one_object_can_run_again(run: Make) -> None:
    again = run()
    async with again:
        again.result = 1
    async with again:
        assert (again.replayed, again.result) == (True, 1)


async def test_a_result_goes_through_its_serializer(run: Make) -> None:
    @dataclass
    class Receipt:
        at: datetime

    serializer = Serializer(
        lambda receipt: receipt.at.isoformat(), lambda text: Receipt(datetime.fromisoformat(text))
    )
    receipt = Receipt(datetime(2026, 1, 1, tzinfo=UTC))
    for replayed in (False, True):
        async with run(serializer=serializer) as current:
            assert current.replayed is replayed
            if not replayed:
                current.result = receipt
        assert current.result == receipt


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (object(), "it is no JSON"),
        ((1, 2), "JSON gives back another value"),
        (datetime(2026, 1, 1, tzinfo=UTC), "JSON gives back another value"),
        (float("nan"), "JSON gives back another value"),
        ("x" * 400_000, "it takes 400,002 bytes, and a record 400,000"),
    ],
)
async def test_a_result_that_cannot_be_stored_is_an_error_and_the_run_counts(
    run: Make, result: object, why: str
) -> None:
    with pytest.raises(ResultNotStoredError, match=why) as first:
        async with run() as current:
            current.result = result
    with pytest.raises(ResultNotStoredError, match=why) as replay:
        async with run():
            pytest.fail("it ran again")
    assert first.value.key == replay.value.key == KEY


async def test_a_result_may_be_left_out(run: Make) -> None:
    serializer = Serializer(lambda value: value, lambda value: f"loaded {value}")
    for result, replayed in (((1, 2), False), (None, True)):
        async with run(on_unstorable="omit", serializer=serializer) as current:
            if not current.replayed:
                current.result = (1, 2)
        assert (current.result, current.replayed) == (result, replayed)


async def test_a_serializer_that_fails_does_not_undo_the_run(run: Make) -> None:
    def fail(value: object) -> object:
        raise RuntimeError("no")

    with pytest.raises(ResultNotStoredError, match="no"):
        async with run(serializer=Serializer(fail, fail)):
            pass
    async with run(on_unstorable="omit") as second:
        assert second.replayed


# ------------------------------------------------------------------ payload


async def test_the_same_key_with_another_payload_is_refused_while_running_and_after(run: Make) -> None:
    async with run(payload={"amount": 1}):
        with pytest.raises(PayloadMismatchError, match="A-1 was used before with another payload"):
            await run(payload={"amount": 2}).__aenter__()
    with pytest.raises(PayloadMismatchError) as raised:
        await run(payload={"amount": 2}).__aenter__()
    assert raised.value.key == KEY
    async with run(payload={"amount": 1.0}) as same, run() as unchecked:
        assert same.replayed
        assert unchecked.replayed


async def test_an_event_is_checked_by_its_type_and_data(run: Make) -> None:
    async with run(build_event("paid", "/shop", {"amount": 1}, id="7")):
        pass
    async with run(build_event("paid", "/shop", {"amount": 1}, id="7", subject="other")) as same:
        assert same.replayed
    async with run(build_event("paid", "/other", {"amount": 1}, id="7")) as other_source:
        assert not other_source.replayed
    with pytest.raises(PayloadMismatchError):
        await run(build_event("paid", "/shop", {"amount": 2}, id="7")).__aenter__()


async def test_none_is_a_payload(run: Make) -> None:
    async with run(payload=None):
        pass
    with pytest.raises(PayloadMismatchError):
        await run(payload=1).__aenter__()
    with pytest.raises(IdempotencyArgumentError):
        run(payload=object())


# ------------------------------------------------------------------ concurrent runs


async def test_a_concurrent_run_is_told_how_long_the_other_may_take(run: Make, clock: ManualClock) -> None:
    async with run(in_progress_for=60):
        await clock.advance(20)
        with pytest.raises(RunInProgressError, match="try again later, in 40 s") as raised:
            await run().__aenter__()
    assert (raised.value.key, raised.value.expires_in) == (KEY, 40.0)


async def test_a_waiting_run_gets_the_result(run: Make, clock: ManualClock) -> None:
    first = await run().__aenter__()
    waiting = asyncio.create_task(run(on_concurrent="wait").__aenter__())
    await clock.someone_sleeps()
    first.result = "done"
    await first.__aexit__(None, None, None)
    await clock.advance(1)
    async with asyncio.timeout(DEADLINE):
        second = await waiting
    assert (second.replayed, second.result) == (True, "done")


async def test_a_waiting_run_goes_on_when_the_other_failed(run: Make, clock: ManualClock) -> None:
    first = await run().__aenter__()
    waiting = asyncio.create_task(run(on_concurrent="wait").__aenter__())
    await clock.someone_sleeps()
    await first.__aexit__(ValueError, ValueError(), None)
    await clock.advance(1)
    async with asyncio.timeout(DEADLINE):
        assert not (await waiting).replayed


async def test_a_waiting_run_takes_over_when_the_other_has_expired(run: Make, clock: ManualClock) -> None:
    await run(in_progress_for=5).__aenter__()
    waiting = asyncio.create_task(run(on_concurrent="wait", wait_timeout=60).__aenter__())
    await clock.someone_sleeps()
    for _ in range(10):
        await clock.advance(0.5)
    assert not waiting.done()
    await clock.advance(1.5)
    async with asyncio.timeout(DEADLINE):
        assert not (await waiting).replayed


async def test_waiting_looks_ever_more_rarely_and_ends_in_time(run: Make, clock: ManualClock) -> None:
    await run().__aenter__()
    waiting = asyncio.create_task(run(on_concurrent="wait", wait_timeout=4, draw=lambda: 1.0).__aenter__())
    looks = [0.0]
    while not waiting.done():
        await clock.someone_sleeps()
        looks.append(clock.sleeping[0])
        await clock.advance(clock.sleeping[0] - clock.monotonic())
    pauses = [later - earlier for earlier, later in pairwise(looks)]
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 0.45])
    assert clock.monotonic() == pytest.approx(4.0)
    with pytest.raises(RunInProgressError):
        await waiting


async def test_a_slow_run_that_was_taken_over_keeps_its_result_to_itself(
    run: Make, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    slow = await run().__aenter__()
    await clock.advance(61)
    async with run() as taker:
        taker.result = "taker"
        slow.result = "slow"
        await slow.__aexit__(None, None, None)
    assert slow.result == "slow"
    assert "test#A-1 ran longer than in_progress_for and was taken over" in caplog.text
    async with run() as later:
        assert later.result == "taker"


async def test_a_slow_run_that_failed_does_not_free_the_takers_key(run: Make, clock: ManualClock) -> None:
    slow = await run().__aenter__()
    await clock.advance(61)
    async with run():
        await slow.__aexit__(ValueError, ValueError(), None)
        with pytest.raises(RunInProgressError):
            await run().__aenter__()


# ------------------------------------------------------------------ cancellation


async def test_a_cancelled_run_can_be_tried_again_at_once(run: Make, store: GatedStore) -> None:
    at_work = asyncio.Event()

    async def work() -> None:
        async with run():
            at_work.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await at_work.wait()
    assert len(store) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(store) == 0


async def test_once_the_work_is_done_a_cancellation_does_not_undo_it(run: Make, store: GatedStore) -> None:
    store.gate.clear()

    async def work() -> None:
        async with run() as current:
            current.result = "done"

    task = asyncio.create_task(work())
    await store.reached.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=0)
    store.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with run() as second:
        assert (second.replayed, second.result) == (True, "done")


@pytest.mark.parametrize("error", [asyncio.CancelledError(), StorageOutcomeUnknownError("no answer")])
async def test_a_start_that_may_be_recorded_is_taken_back(run: Make, store: GatedStore, error: Exception) -> None:
    store.broken["write in_progress"] = error
    with pytest.raises(type(error)):
        await run().__aenter__()
    assert len(store) == 0


# ------------------------------------------------------------------ when the store fails


async def test_a_run_that_cannot_be_recorded_is_not_begun(run: Make, store: GatedStore) -> None:
    store.broken["write in_progress"] = StorageUnavailableError("throttled")
    with pytest.raises(StorageUnavailableError):
        async with run():
            pytest.fail("it ran")


async def test_a_result_that_cannot_be_recorded_is_given_to_its_caller(
    run: Make, store: GatedStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.broken["write completed"] = StorageUnavailableError("throttled")
    async with run() as current:
        current.result = 1
    assert current.result == 1
    assert "test#A-1 has run, but that could not be recorded" in caplog.text


async def test_the_functions_own_error_is_shown_when_the_record_cannot_be_removed(
    run: Make, store: GatedStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.broken["remove"] = StorageUnavailableError("throttled")
    with caplog.at_level(logging.WARNING), pytest.raises(LookupError, match="no stock"):
        async with run():
            raise LookupError("no stock")
    assert "the record of test#A-1 was not removed and will expire" in caplog.text
    assert len(store) == 1
