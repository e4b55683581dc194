"""The contract of `TriggerBreakers` as tests: subclass it beside your own implementation's tests."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from oms_events.instrumentation.hooks import Detail, TriggerBreakerChanged
from oms_events.resilience.breaker import BreakerState
from oms_events.testing.clock import ManualClock
from oms_events.triggers.config import BreakerOptions
from oms_events.triggers.guards.breaker import BreakerView, Permit, TriggerBreakers

_CROWD = 8
_TIMEOUT = 30.0
_TABLE = "prices"


class TriggerBreakerContract:
    """Subclass as `class TestMine(TriggerBreakerContract)` and give it a fixture `breakers`.

    They go by `clock` and `options`, and have `changes.append` as their hook. `other` is a second one over the
    same storage, where there can be one, with the same hook.
    """

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def clock(self) -> ManualClock:
        """The clock of the breakers; it starts now, as stores may delete what is over."""
        return ManualClock(datetime.now(UTC))

    @pytest.fixture
    def options(self) -> BreakerOptions:
        return BreakerOptions(failure_threshold=3, failure_window=60, recovery_time=30, trial_time=20)

    @pytest.fixture
    def changes(self) -> list[Detail]:
        """What the hook was told."""
        return []

    @pytest.fixture
    def other(self, breakers: TriggerBreakers) -> TriggerBreakers:
        return breakers

    @pytest.fixture
    def domain(self) -> str:
        """A domain that nobody has used."""
        return f"contract-{uuid.uuid4()}"

    async def admitted(self, breakers: TriggerBreakers, domain: str) -> Permit:
        permit = await breakers.admit(domain, _TABLE)
        assert isinstance(permit, Permit)
        return permit

    async def fail(self, breakers: TriggerBreakers, domain: str, times: int = 1) -> None:
        for _ in range(times):
            await breakers.failed(await self.admitted(breakers, domain))

    async def trial(self, breakers: TriggerBreakers, domain: str, clock: ManualClock) -> Permit:
        """The trial of a breaker that has opened and recovered."""
        await self.fail(breakers, domain, 3)
        await clock.advance(30)
        permit = await self.admitted(breakers, domain)
        assert permit.trial is not None
        return permit

    async def view(self, breakers: TriggerBreakers, domain: str) -> BreakerView | None:
        found = [view for view in await breakers.views() if view.domain == domain]
        assert len(found) <= 1
        return found[0] if found else None

    def told(self, changes: list[Detail]) -> list[tuple[str, str]]:
        assert all(isinstance(change, TriggerBreakerChanged) for change in changes)
        return [(change.old, change.new) for change in changes if isinstance(change, TriggerBreakerChanged)]

    # ------------------------------------------------------------------ opening

    async def test_opens_at_the_threshold_whatever_went_well_between(
        self,
        breakers: TriggerBreakers,
        other: TriggerBreakers,
        domain: str,
        clock: ManualClock,
        changes: list[Detail],
    ) -> None:
        for _ in range(2):
            await self.fail(breakers, domain)
            await breakers.succeeded(await self.admitted(other, domain))
            await clock.advance(29)
        assert changes == []
        await self.fail(other, domain)
        assert await breakers.admit(domain, _TABLE) == await other.look(domain, _TABLE) == 30.0
        assert self.told(changes) == [("closed", "open")]
        await clock.advance(10)
        assert await other.admit(domain, _TABLE) == 20.0
        assert await other.look("another", _TABLE) == await other.look(domain, "another") == 0.0

    async def test_failures_of_before_the_window_do_not_count(
        self, breakers: TriggerBreakers, domain: str, clock: ManualClock
    ) -> None:
        for _ in range(6):
            await self.fail(breakers, domain)
            await clock.advance(30)
        assert await breakers.look(domain, _TABLE) == 0.0
        await clock.advance(-1)
        await self.fail(breakers, domain)
        assert await breakers.look(domain, _TABLE) == 30.0

    async def test_the_same_failure_counts_once(self, breakers: TriggerBreakers, domain: str) -> None:
        permit = await self.admitted(breakers, domain)
        for _ in range(5):
            await breakers.failed(permit)
        view = await self.view(breakers, domain)
        assert view is not None
        assert (view.state, view.failures) == (BreakerState.CLOSED, 1)

    async def test_what_says_nothing_does_not_count(self, breakers: TriggerBreakers, domain: str) -> None:
        for _ in range(5):
            permit = await self.admitted(breakers, domain)
            await breakers.released(permit)
            await breakers.succeeded(permit)
        assert await self.view(breakers, domain) is None

    async def test_failures_at_once_open_it_once(
        self,
        breakers: TriggerBreakers,
        other: TriggerBreakers,
        domain: str,
        clock: ManualClock,
        changes: list[Detail],
    ) -> None:
        permits = [await self.admitted(breakers, domain) for _ in range(_CROWD)]
        async with asyncio.timeout(_TIMEOUT):
            await asyncio.gather(
                *((breakers, other)[number % 2].failed(permit) for number, permit in enumerate(permits))
            )
        view = await self.view(breakers, domain)
        assert view is not None
        assert (view.state, view.failures) == (BreakerState.OPEN, 3)
        assert self.told(changes) == [("closed", "open")]

    async def test_it_stays_exact_over_many_windows(
        self, breakers: TriggerBreakers, domain: str, clock: ManualClock
    ) -> None:
        for _ in range(6):
            await self.fail(breakers, domain, 2)
            await clock.advance(60)
        assert await self.view(breakers, domain) is None
        await self.fail(breakers, domain, 3)
        assert await breakers.look(domain, _TABLE) == 30.0

    # ------------------------------------------------------------------ trials

    async def test_of_a_crowd_one_trial_passes(
        self,
        breakers: TriggerBreakers,
        other: TriggerBreakers,
        domain: str,
        clock: ManualClock,
        changes: list[Detail],
    ) -> None:
        await self.fail(breakers, domain, 3)
        await clock.advance(30)
        assert await breakers.look(domain, _TABLE) == 0.0
        async with asyncio.timeout(_TIMEOUT):
            answers = await asyncio.gather(
                *((breakers, other)[number % 2].admit(domain, _TABLE) for number in range(_CROWD))
            )
        (trial,) = (answer for answer in answers if isinstance(answer, Permit))
        assert trial.trial is not None
        assert [answer for answer in answers if answer != trial] == [20.0] * (_CROWD - 1)
        assert self.told(changes) == [("closed", "open"), ("open", "half_open")]
        view = await self.view(other, domain)
        assert view is not None
        assert (view.state, view.trial_running, view.retry_after) == (BreakerState.HALF_OPEN, True, 20.0)

    async def test_a_trial_that_goes_well_closes_it_and_forgets_its_failures(
        self,
        breakers: TriggerBreakers,
        other: TriggerBreakers,
        domain: str,
        clock: ManualClock,
        changes: list[Detail],
    ) -> None:
        trial = await self.trial(breakers, domain, clock)
        await other.succeeded(trial)
        assert self.told(changes)[-1] == ("half_open", "closed")
        assert await self.view(breakers, domain) is None
        await self.fail(breakers, domain, 2)
        await breakers.succeeded(trial)
        assert await other.look(domain, _TABLE) == 0.0
        await self.fail(breakers, domain)
        assert await other.look(domain, _TABLE) == 30.0

    async def test_a_trial_that_fails_opens_it_again(
        self,
        breakers: TriggerBreakers,
        other: TriggerBreakers,
        domain: str,
        clock: ManualClock,
        changes: list[Detail],
    ) -> None:
        trial = await self.trial(breakers, domain, clock)
        await clock.advance(5)
        await other.failed(trial)
        assert await breakers.admit(domain, _TABLE) == 30.0
        assert self.told(changes) == [("closed", "open"), ("open", "half_open"), ("half_open", "open")]
        await clock.advance(30)
        second = await self.admitted(breakers, domain)
        for old in (breakers.failed, breakers.succeeded, breakers.released):
            await old(trial)
        assert await breakers.look(domain, _TABLE) == 20.0
        await breakers.succeeded(second)
        assert await breakers.look(domain, _TABLE) == 0.0

    async def test_a_trial_that_says_nothing_makes_room_for_another(
        self, breakers: TriggerBreakers, other: TriggerBreakers, domain: str, clock: ManualClock
    ) -> None:
        trial = await self.trial(breakers, domain, clock)
        await other.released(trial)
        assert (await self.admitted(other, domain)).trial not in (None, trial.trial)
        await breakers.succeeded(trial)
        assert await breakers.look(domain, _TABLE) == 20.0

    async def test_a_trial_that_crashed_is_replaced_and_says_no_more(
        self, breakers: TriggerBreakers, other: TriggerBreakers, domain: str, clock: ManualClock
    ) -> None:
        crashed = await self.trial(breakers, domain, clock)
        await clock.advance(19)
        assert await other.admit(domain, _TABLE) == 1.0
        await clock.advance(1)
        trial = await self.admitted(other, domain)
        assert trial.trial is not None
        for late in (breakers.succeeded, breakers.failed, breakers.released):
            await late(crashed)
            view = await self.view(breakers, domain)
            assert view is not None
            assert (view.state, view.trial_running) == (BreakerState.HALF_OPEN, True)
        await other.succeeded(trial)
        assert await breakers.look(domain, _TABLE) == 0.0

    async def test_a_trial_that_ends_late_counts_while_nobody_has_replaced_it(
        self, breakers: TriggerBreakers, domain: str, clock: ManualClock
    ) -> None:
        trial = await self.trial(breakers, domain, clock)
        await clock.advance(100)
        await breakers.succeeded(trial)
        assert await self.view(breakers, domain) is None

    # ------------------------------------------------------------------ old news

    async def test_what_was_admitted_before_it_opened_neither_closes_it_nor_keeps_it_open(
        self, breakers: TriggerBreakers, domain: str, clock: ManualClock
    ) -> None:
        old = [await self.admitted(breakers, domain) for _ in range(3)]
        await self.fail(breakers, domain, 3)
        await clock.advance(20)
        await breakers.failed(old[0])
        await breakers.succeeded(old[1])
        assert await breakers.look(domain, _TABLE) == 10.0
        view = await self.view(breakers, domain)
        assert view is not None
        assert view.failures == 3
        await clock.advance(10)
        trial = await self.admitted(breakers, domain)
        await breakers.failed(old[1])
        await breakers.succeeded(old[2])
        assert await breakers.look(domain, _TABLE) == 20.0
        await breakers.succeeded(trial)
        await self.fail(breakers, domain, 2)
        await breakers.failed(old[2])
        assert await breakers.look(domain, _TABLE) == 0.0

    # ------------------------------------------------------------------ for people

    async def test_shows_how_breakers_stand(
        self, breakers: TriggerBreakers, domain: str, clock: ManualClock
    ) -> None:
        began = clock.now()
        await self.fail(breakers, domain)
        await clock.advance(7)
        await self.fail(breakers, domain)
        second = BreakerView(
            domain=domain,
            table_name=_TABLE,
            state=BreakerState.CLOSED,
            failures=2,
            last_failure=began + timedelta(seconds=7),
            opened_at=None,
            retry_after=0.0,
            trial_running=False,
        )
        assert await self.view(breakers, domain) == second
        await self.fail(breakers, domain)
        await clock.advance(10)
        view = await self.view(breakers, domain)
        assert view is not None
        assert (view.state, view.failures, view.retry_after) == (BreakerState.OPEN, 3, 20.0)
        assert view.opened_at == began + timedelta(seconds=7)
        await clock.advance(500)
        view = await self.view(breakers, domain)
        assert view is not None
        assert (view.state, view.failures, view.retry_after) == (BreakerState.HALF_OPEN, 0, 0.0)

    async def test_they_come_by_domain_and_table(self, breakers: TriggerBreakers, domain: str) -> None:
        names = [(f"{domain}-{part}", table) for part in "ab" for table in ("a", "b")]
        for name in reversed(names):
            permit = await breakers.admit(*name)
            assert isinstance(permit, Permit)
            await breakers.failed(permit)
        found = [(view.domain, view.table_name) for view in await breakers.views()]
        assert [name for name in found if name in names] == names

    async def test_a_reset_closes_it_and_forgets_everything(
        self,
        breakers: TriggerBreakers,
        other: TriggerBreakers,
        domain: str,
        clock: ManualClock,
        changes: list[Detail],
    ) -> None:
        assert not await breakers.reset(domain, _TABLE)
        await self.fail(breakers, domain, 2)
        old = await self.admitted(breakers, domain)
        assert await other.reset(domain, _TABLE)
        assert changes == []
        assert not await breakers.reset(domain, _TABLE)
        await breakers.failed(old)
        await self.fail(breakers, domain, 2)
        assert await breakers.look(domain, _TABLE) == 0.0
        trial = await self.trial_after_one_more(breakers, domain, clock)
        assert await other.reset(domain, _TABLE)
        assert self.told(changes)[-1] == ("half_open", "closed")
        await breakers.failed(trial)
        assert await self.view(breakers, domain) is None

    async def trial_after_one_more(self, breakers: TriggerBreakers, domain: str, clock: ManualClock) -> Permit:
        await self.fail(breakers, domain)
        await clock.advance(30)
        return await self.admitted(breakers, domain)

    async def test_failures_that_count_no_more_are_nothing_to_reset(
        self, breakers: TriggerBreakers, domain: str, clock: ManualClock
    ) -> None:
        await self.fail(breakers, domain)
        await clock.advance(60)
        assert not await breakers.reset(domain, _TABLE)

    @pytest.mark.parametrize("wrong", ["", "a#b", "x" * 51, "ä", "\ud800"])
    async def test_what_is_no_domain_or_table_is_refused(self, breakers: TriggerBreakers, wrong: str) -> None:
        for call in (breakers.admit, breakers.look, breakers.reset):
            with pytest.raises(ValueError, match="domain = "):
                await call(wrong, _TABLE)
            with pytest.raises(ValueError, match="table_name = "):
                await call("market", wrong)

    async def test_opens_and_closes_as_often_as_one_likes(self, breakers: TriggerBreakers, domain: str) -> None:
        for _ in range(2):
            await breakers.open()
        for _ in range(2):
            await breakers.close()
        await breakers.open()
        assert await breakers.look(domain, _TABLE) == 0.0
