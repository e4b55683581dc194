"""Writers, processors, crashes, pauses, faults and rivals in any order: the outbox keeps its promises."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from oms_events.outbox.epochs import change_buckets, ensure_layout
from tests.outbox.model.checker import problems, report, summary
from tests.outbox.model.platforms import MODES, PLATFORMS
from tests.outbox.model.virtual import VirtualLoop
from tests.outbox.model.world import PROCESSOR, Host, Spec, World

_MAX_HOSTS = 5
_rejections = st.sampled_from([(), (), (), (), (), ("alpha",), ("beta",), PLATFORMS]).map(frozenset)
_specs = st.builds(
    Spec,
    key=st.sampled_from(["a", "a", "a", "b", "c", None]),
    kind=st.sampled_from(["all", "all", "failover", "one", "unroutable"]),
    rejected_by=_rejections,
)
_transactions = st.lists(_specs, min_size=1, max_size=3)
_any = st.integers(0, 10**6)


class OutboxModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.runner = asyncio.Runner(loop_factory=lambda: self.loop)
        self.world: World | None = None

    def _run(self, work: Any) -> None:
        self.runner.run(work)

    def _pass(self, seconds: float) -> None:
        self._run(asyncio.sleep(seconds))

    def _host(self, number: int) -> Host:
        alive = [host for host in self.world.hosts if not host.is_dead]
        return alive[number % len(alive)]

    @initialize(
        seed=_any,
        hold=st.booleans(),
        max_attempts=st.sampled_from([None, None, 4]),
        offset=st.sampled_from([0.0, 3600.0]),
        processors=st.integers(1, 2),
    )
    def begin(self, seed: int, hold: bool, max_attempts: int | None, offset: float, processors: int) -> None:
        after = "hold" if hold else "continue"
        config = PROCESSOR.model_copy(update={"after_dead_letter": after, "max_attempts": max_attempts})

        async def begin() -> None:
            self.world = World(self.loop, seed, config)
            await ensure_layout(self.world.table, 2)
            for number in range(processors):
                self.world.add_host(wall_offset=offset * number).start_processor(config=config)
            await asyncio.sleep(0.5)

        self._run(begin())

    @rule(number=_any, transactions=st.lists(_transactions, min_size=1, max_size=4), refused=_any, wait=_any)
    def write(self, number: int, transactions: list[list[Spec]], refused: int, wait: int) -> None:
        async def write() -> None:
            for index, specs in enumerate(transactions):
                self.world.write(self._host(number + index), specs, refused=refused % 10 == index)
                if (wait >> index) & 1:
                    await asyncio.sleep(0.05)

        self._run(write())

    @rule(number=_any, transactions=st.lists(_transactions, min_size=1, max_size=4))
    def write_in_order(self, number: int, transactions: list[list[Spec]]) -> None:
        async def write() -> None:
            host = self._host(number)
            for specs in transactions:
                self.world.write(host, specs)
                await asyncio.sleep(0.3)

        self._run(write())

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.1, 0.5, 2.0, 6.0]))
    def let_time_pass(self, seconds: float) -> None:
        self._pass(seconds)

    @precondition(lambda self: len(self.world.hosts) < _MAX_HOSTS)
    @rule(offset=st.sampled_from([0.0, -3600.0]))
    def start_a_processor(self, offset: float) -> None:
        async def start() -> None:
            self.world.add_host(wall_offset=offset).start_processor(config=self.world.config)

        self._run(start())

    @rule(number=_any)
    def stop_a_processor(self, number: int) -> None:
        async def stop() -> None:
            self._host(number).stop_processor()

        self._run(stop())

    @rule(number=_any)
    def pause(self, number: int) -> None:
        self.world.pause(self._host(number))

    @rule(number=_any, seconds=st.sampled_from([0.0, 0.3, 5.0]))
    def resume(self, number: int, seconds: float) -> None:
        self._pass(seconds)
        self.world.resume(self._host(number))

    @precondition(lambda self: sum(not host.is_dead for host in self.world.hosts) > 1)
    @rule(number=_any)
    def kill(self, number: int) -> None:
        self.world.kill(self._host(number))

    @rule(number=_any, hours=st.sampled_from([-1, 1]))
    def set_a_clock(self, number: int, hours: int) -> None:
        self._host(number).clock.wall_offset += 3600.0 * hours

    @rule(platform=st.sampled_from(PLATFORMS), mode=st.sampled_from(MODES))
    def change_a_platform(self, platform: str, mode: str) -> None:
        self.world.platforms[platform].mode = mode

    @rule(number=_any, faults=st.lists(st.sampled_from(["refused", "not sent", "lost answer"]), max_size=4))
    def break_the_table(self, number: int, faults: list[str]) -> None:
        self._host(number).faults.extend(faults)

    @rule()
    def reload_the_rules(self) -> None:
        self.world.rules = 1 - self.world.rules

    @rule(buckets=st.integers(1, 3))
    def change_the_buckets(self, buckets: int) -> None:
        self._run(change_buckets(self.world.table, buckets))

    @rule(cure=st.booleans(), purge=st.booleans(), twice=st.booleans())
    def operate(self, cure: bool, purge: bool, twice: bool) -> None:
        async def operate() -> None:
            for letter in self.world.table.letters[:2]:
                calls = [self.world.requeue(letter, cure=cure)]
                if twice:
                    calls.append(self.world.requeue(letter, cure=cure))
                if purge:
                    calls.append(self.world.table.purge(letter))
                await asyncio.gather(*calls)

        self._run(operate())

    @rule(number=_any)
    def replan(self, number: int) -> None:
        async def replan() -> None:
            planned = [record for record in self.world.table.pending if record.state.plan is not None]
            if planned:
                await self.world.replan(planned[number % len(planned)])

        self._run(replan())

    def teardown(self) -> None:
        try:
            if self.world is not None:
                self._run(self.world.heal())
                found = problems(self.world)
                if os.environ.get("OMS_TEST_MODEL_VERBOSE"):
                    print(summary(self.world))
                assert not found, report(self.world, found)
        finally:
            for host in self.world.hosts if self.world is not None else ():
                host.running.set()
            self.runner.close()
            # The runner closes only a loop that it ran: an example may end before its first step.
            self.loop.close()


# To explain a failure costs minutes, and the history of the events tells more.
_PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
_CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What the processors complain about is what the model does to them."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def _model(examples: int, steps: int) -> None:
    profile = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=_CHECKS
    )
    run_state_machine_as_test(OutboxModel, settings=profile)


def test_the_outbox_keeps_its_promises() -> None:
    _model(80, 30)


@pytest.mark.nightly
def test_the_outbox_keeps_its_promises_for_long() -> None:
    _model(5000, 60)
