"""The contract of `IdempotencyStore` as tests: subclass it beside your own store's tests."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime

import pytest

from oms_events.errors import RunInProgressError
from oms_events.idempotency.config import IdempotencyOptions
from oms_events.idempotency.decorator import idempotent
from oms_events.idempotency.records import RunRecord, RunState
from oms_events.idempotency.run import IdempotentRun
from oms_events.idempotency.store import IdempotencyStore
from oms_events.testing.clock import ManualClock

_CROWD = 50
_TIMEOUT = 30.0


def started(key: str, token: str, expires_at: int) -> RunRecord:
    """A run in progress."""
    return RunRecord(key, token, RunState.IN_PROGRESS, expires_at, "f" * 64)


def completed(key: str, token: str, expires_at: int, result: str = '{"a":1}') -> RunRecord:
    """A run that has ended well."""
    return RunRecord(key, token, RunState.COMPLETED, expires_at, "f" * 64, result)


class IdempotencyStoreContract:
    """Subclass as `class TestMine(IdempotencyStoreContract)` and give it a fixture `store`: an open store."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def key(self) -> str:
        """A key that nobody has used."""
        return f"contract#{uuid.uuid4()}"

    @pytest.fixture
    def now(self) -> int:
        """The date in epoch seconds; stores may delete what has expired by it."""
        return int(datetime.now(UTC).timestamp())

    # ------------------------------------------------------------------ who may write

    async def test_gives_back_what_was_written(self, store: IdempotencyStore, key: str, now: int) -> None:
        assert await store.read(key) is None
        records = [
            started(key, "one", now + 60),
            RunRecord(key, "one", RunState.COMPLETED, now + 90, "", '["ü",null,1.5]'),
            RunRecord(key, "one", RunState.COMPLETED, now + 90, "f", "null", "it takes 2 bytes"),
        ]
        for record in records:
            assert await store.write(record, now=now) is None
            assert await store.read(key) == record

    async def test_a_live_run_stands_against_others(self, store: IdempotencyStore, key: str, now: int) -> None:
        first = started(key, "one", now + 60)
        await store.write(first, now=now)
        assert await store.write(started(key, "two", now + 99), now=now + 59) == first
        assert await store.write(completed(key, "two", now + 99), now=now + 59) == first
        assert await store.read(key) == first

    async def test_a_completed_run_stands_against_others(
        self, store: IdempotencyStore, key: str, now: int
    ) -> None:
        await store.write(started(key, "one", now + 60), now=now)
        done = completed(key, "one", now + 600)
        await store.write(done, now=now)
        assert await store.write(started(key, "two", now + 900), now=now + 599) == done
        assert await store.read(key) == done

    async def test_an_expired_run_gives_way(self, store: IdempotencyStore, key: str, now: int) -> None:
        await store.write(started(key, "one", now + 60), now=now)
        assert await store.write(started(key, "two", now + 120), now=now + 60) is None
        await store.write(completed(key, "two", now + 600), now=now + 61)
        assert await store.write(started(key, "three", now + 660), now=now + 600) is None

    async def test_the_same_write_again_is_harmless(self, store: IdempotencyStore, key: str, now: int) -> None:
        for record in (started(key, "one", now + 60), completed(key, "one", now + 600)):
            assert await store.write(record, now=now) is None
            assert await store.write(record, now=now) is None
            assert await store.read(key) == record

    async def test_a_start_that_arrives_late_does_not_undo_the_completion(
        self, store: IdempotencyStore, key: str, now: int
    ) -> None:
        start, done = started(key, "one", now + 60), completed(key, "one", now + 600)
        await store.write(start, now=now)
        await store.write(done, now=now)
        assert await store.write(start, now=now) == done
        assert await store.read(key) == done

    async def test_who_was_taken_over_cannot_complete(self, store: IdempotencyStore, key: str, now: int) -> None:
        await store.write(started(key, "slow", now + 60), now=now)
        taker = started(key, "taker", now + 120)
        await store.write(taker, now=now + 60)
        assert await store.write(completed(key, "slow", now + 600), now=now + 61) == taker
        assert await store.read(key) == taker

    async def test_who_outlived_its_expiry_completes_if_nobody_else_holds_the_key(
        self, store: IdempotencyStore, key: str, now: int
    ) -> None:
        await store.write(started(key, "slow", now + 60), now=now)
        assert await store.write(completed(key, "slow", now + 600), now=now + 90) is None
        await store.remove(key, "slow")
        done = completed(key, "slower", now + 600)
        assert await store.write(done, now=now + 90) is None
        assert await store.read(key) == done

    async def test_removes_only_for_its_own_run(self, store: IdempotencyStore, key: str, now: int) -> None:
        await store.remove(key, "one")
        first = started(key, "one", now + 60)
        await store.write(first, now=now)
        await store.remove(key, "two")
        assert await store.read(key) == first
        await store.remove(key, "one")
        assert await store.read(key) is None

    async def test_one_of_many_starts_wins_and_all_others_see_it(
        self, store: IdempotencyStore, key: str, now: int
    ) -> None:
        starts = [started(key, f"token {number}", now + 60) for number in range(_CROWD)]
        async with asyncio.timeout(_TIMEOUT):
            answers = await asyncio.gather(*(store.write(record, now=now) for record in starts))
        (winner,) = (record for record, answer in zip(starts, answers, strict=True) if answer is None)
        assert [answer for answer in answers if answer is not None] == [winner] * (_CROWD - 1)

    async def test_the_longest_result_fits(self, store: IdempotencyStore, key: str, now: int) -> None:
        await store.write(started(key, "one", now + 60), now=now)
        done = completed(key, "one", now + 600, f'"{"x" * (store.max_result_bytes - 2)}"')
        assert await store.write(done, now=now) is None
        assert await store.read(key) == done

    # ------------------------------------------------------------------ runs upon it

    async def test_many_calls_at_once_run_the_function_once(self, store: IdempotencyStore, key: str) -> None:
        runs = []

        @idempotent(store, key="key", options=IdempotencyOptions(on_concurrent="wait"))
        async def work(key: str) -> dict[str, int]:
            runs.append(key)
            return {"number": len(runs)}

        async with asyncio.timeout(_TIMEOUT):
            results = await asyncio.gather(*(work(key) for _ in range(_CROWD)))
        assert runs == [key]
        assert results == [{"number": 1}] * _CROWD

    async def test_while_one_is_at_work_all_others_are_told(self, store: IdempotencyStore, key: str) -> None:
        runs, others_told = [], asyncio.Event()

        @idempotent(store, key="key")
        async def work(key: str) -> None:
            runs.append(key)
            await others_told.wait()

        async def call() -> None:
            try:
                await work(key)
            except RunInProgressError as error:
                told.append(error)
                if len(told) == _CROWD - 1:
                    others_told.set()

        told: list[RunInProgressError] = []
        async with asyncio.timeout(_TIMEOUT):
            await asyncio.gather(*(call() for _ in range(_CROWD)))
        assert runs == [key]
        assert len(told) == _CROWD - 1
        assert all(error.key.endswith(key) and 0 < error.expires_in <= 61 for error in told)

    async def test_after_an_error_it_runs_again_and_then_no_more(self, store: IdempotencyStore, key: str) -> None:
        runs = []

        @idempotent(store, key="key")
        async def work(key: str) -> None:
            runs.append(key)
            if len(runs) == 1:
                raise LookupError("no stock")

        with pytest.raises(LookupError):
            await work(key)
        await work(key)
        await work(key)
        assert len(runs) == 2

    async def test_a_crashed_run_is_taken_over_after_its_time(self, store: IdempotencyStore, key: str) -> None:
        clock = ManualClock(datetime.now(UTC))

        def run() -> IdempotentRun:
            return IdempotentRun(store, key, prefix="contract", clock=clock)

        slow = await run().__aenter__()
        with pytest.raises(RunInProgressError):
            await run().__aenter__()
        await clock.advance(61)
        async with run() as taker:
            assert not taker.replayed
            taker.result = "the taker's"
        slow.result = "too late"
        await slow.__aexit__(None, None, None)
        async with run() as later:
            assert (later.replayed, later.result) == (True, "the taker's")
