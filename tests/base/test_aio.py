from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms_events._aio import LoopBound, PeriodicTask, Slots, SystemClock, cancel_and_wait, seen_through
from oms_events.testing import ManualClock


async def test_slots_are_given_first_come_first_served_and_never_beyond_the_capacity() -> None:
    slots = Slots(3)
    await slots.take(2)
    big, small = asyncio.create_task(slots.take(3)), asyncio.create_task(slots.take(1))
    await asyncio.sleep(0)
    assert not big.done()
    assert not small.done()
    slots.give(2)
    await big
    assert slots.in_use == 3
    assert not small.done()
    slots.give(3)
    await small
    assert slots.in_use == 1


async def test_a_cancelled_waiter_holds_no_slot_and_lets_the_next_one_in() -> None:
    slots = Slots(2)
    await slots.take(1)
    big, small = asyncio.create_task(slots.take(2)), asyncio.create_task(slots.take(1))
    await asyncio.sleep(0)
    await cancel_and_wait(big)
    await small
    assert slots.in_use == 2


async def test_a_waiter_cancelled_just_after_its_turn_gives_its_slots_back() -> None:
    slots = Slots(1)
    await slots.take(1)
    waiter = asyncio.create_task(slots.take(1))
    await asyncio.sleep(0)
    slots.give(1)
    await cancel_and_wait(waiter)
    assert slots.in_use == 0


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3), st.booleans()), max_size=20))
def test_slots_are_all_back_when_everybody_has_left(plan: list[tuple[int, int, bool]]) -> None:
    async def run() -> None:
        slots = Slots(4)

        async def use(count: int, turns: int) -> None:
            await slots.take(count)
            try:
                assert slots.in_use <= 4
                for _ in range(turns):
                    await asyncio.sleep(0)
            finally:
                slots.give(count)

        tasks = [asyncio.create_task(use(count, turns)) for count, turns, _ in plan]
        await asyncio.sleep(0)
        await cancel_and_wait(*(task for task, (_, _, cancel) in zip(tasks, plan, strict=True) if cancel))
        await asyncio.gather(*tasks, return_exceptions=True)
        assert slots.in_use == 0

    asyncio.run(run())


@pytest.mark.parametrize("undoes", [True, False])
async def test_a_call_is_seen_through_although_its_caller_is_cancelled(undoes: bool) -> None:
    before, may_end, undone = asyncio.all_tasks(), asyncio.Event(), list[str]()

    async def call() -> str:
        await may_end.wait()
        return "done"

    async def undo(given: str) -> None:
        undone.append(given)

    async def run() -> str:
        return await seen_through(call(), name="call", undo=undo if undoes else None)

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert undone == (["done"] if undoes else [])
    assert await run() == "done"
    assert len(undone) == undoes
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("again", [True, False])
async def test_a_call_that_does_not_end_is_left_after_a_while_or_by_a_second_cancellation(
    again: bool, caplog: pytest.LogCaptureFixture
) -> None:
    before = asyncio.all_tasks()
    task = asyncio.create_task(seen_through(asyncio.Event().wait(), name="call", patience=60 if again else 0.01))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    if again:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ("call: cancelled, and left half done" in caplog.text) is not again
    assert asyncio.all_tasks() == before


async def test_a_call_seen_through_fails_as_it_does() -> None:
    async def call() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await seen_through(call(), name="call")


async def test_a_periodic_task_calls_at_its_interval_and_survives_errors(caplog: pytest.LogCaptureFixture) -> None:
    clock, calls = ManualClock(), []

    async def call() -> None:
        calls.append(clock.monotonic())
        raise ValueError("once more")

    task = PeriodicTask(call, interval=10, name="test-task", clock=clock)
    task.start()
    await clock.someone_sleeps()
    await clock.advance(35)
    assert calls == [10, 20, 30]
    assert "test-task failed" in caplog.text
    await task.stop()
    await clock.advance(100)
    assert len(calls) == 3


async def test_a_periodic_task_ends_even_when_its_call_swallows_the_cancellation() -> None:
    clock, entered = ManualClock(), asyncio.Event()

    async def call() -> None:
        entered.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    task = PeriodicTask(call, interval=10, name="test-task", clock=clock)
    task.start()
    await clock.someone_sleeps()
    await clock.advance(10)
    await entered.wait()
    async with asyncio.timeout(0.5):
        await task.stop()


async def test_the_manual_clock_wakes_sleepers_in_the_order_of_their_times() -> None:
    clock, woken = ManualClock(), []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic()))

    tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (3, 1, 2)]
    await clock.someone_sleeps()
    await clock.advance(2.5)
    assert woken == [(1, 1), (2, 2)]
    assert clock.sleeping == [3]
    await clock.advance(1)
    assert woken[-1] == (3, 3)
    await asyncio.gather(*tasks)
    assert (clock.now() - ManualClock().now()).total_seconds() == 3.5


def test_the_system_clock_is_aware_and_never_goes_back() -> None:
    clock = SystemClock()
    assert clock.now().utcoffset() is not None
    assert clock.monotonic() <= clock.monotonic()


def test_a_lock_that_was_waited_for_is_another_in_the_next_loop() -> None:
    lock = LoopBound(asyncio.Lock)

    async def hold() -> asyncio.Lock:
        async with lock():
            await asyncio.sleep(0)
            return lock()

    async def contend() -> set[asyncio.Lock]:
        return set(await asyncio.gather(hold(), hold()))

    (first,), (second,) = asyncio.run(contend()), asyncio.run(contend())
    assert first is not second
