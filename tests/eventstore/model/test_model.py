"""Services, crashes, lost answers, conflicts and repeated commands: the event store keeps its promises."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from oms_events.errors import StorageUnavailableError
from tests.eventstore.model.world import AGGREGATES, FAULTS, World
from tests.outbox.model.virtual import VirtualLoop

_any = st.integers(0, 10**6)
_aggregates = st.sampled_from(AGGREGATES)
_commands = st.sampled_from([None, "1", "2", "3", "4"])


class EventStoreModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.runner = asyncio.Runner(loop_factory=lambda: self.loop)
        self.world: Any = None

    def _run(self, work: Any) -> None:
        self.runner.run(work)

    @initialize(seed=_any, with_outbox=st.booleans())
    def begin(self, seed: int, with_outbox: bool) -> None:
        async def begin() -> None:
            self.world = World(self.loop, seed, with_outbox=with_outbox)

        self._run(begin())

    @rule(
        service=st.integers(0, 1),
        aggregate=_aggregates,
        counts=st.lists(st.integers(0, 3), min_size=1, max_size=4),
        command=_commands,
        tries=st.integers(1, 3),
    )
    def carry_out(self, service: int, aggregate: str, counts: list[int], command: str | None, tries: int) -> None:
        async def carry_out() -> None:
            for count in counts:
                store = self.world.stores[service]
                self.world.spawn(self.world.carry_out(store, aggregate, count, command, tries))

        self._run(carry_out())

    @rule(service=st.integers(0, 1), aggregate=_aggregates, behind=st.integers(1, 3), command=_commands)
    def append_late(self, service: int, aggregate: str, behind: int, command: str | None) -> None:
        """On a state that is not the last one any more."""

        async def append_late() -> None:
            expected = max(0, len(self.world.history[aggregate]) - behind)
            store = self.world.stores[service]
            self.world.spawn(self.world.append(store, aggregate, 2, command, expected=expected))

        self._run(append_late())

    @rule(service=st.integers(0, 1), aggregate=_aggregates, ahead=st.integers(1, 3), count=st.integers(0, 2))
    def append_ahead(self, service: int, aggregate: str, ahead: int, count: int) -> None:
        """On a guess, after events that may never be there."""

        async def append_ahead() -> None:
            expected = len(self.world.history[aggregate]) + ahead
            self.world.guessed.add(aggregate)
            store = self.world.stores[service]
            self.world.spawn(self.world.append(store, aggregate, count, f"guess {count}", expected=expected))

        self._run(append_ahead())

    @rule(service=st.integers(0, 1), aggregate=_aggregates)
    def read(self, service: int, aggregate: str) -> None:
        async def read() -> None:
            with suppress(StorageUnavailableError):
                await self.world.read(self.world.stores[service], aggregate)

        self._run(read())

    @rule(faults=st.lists(st.sampled_from((*FAULTS, "lost answer")), min_size=1, max_size=6))
    def break_something(self, faults: list[str]) -> None:
        self.world.faults.extend(faults)

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.02, 0.2, 4.0]))
    def let_time_pass(self, seconds: float) -> None:
        self._run(asyncio.sleep(seconds))

    @rule(number=_any)
    def kill(self, number: int) -> None:
        self.world.kill(number)

    def teardown(self) -> None:
        try:
            if self.world is not None:
                self._run(self.world.end())
                if os.environ.get("OMS_TEST_MODEL_VERBOSE"):
                    print(dict(self.world.counts))
                assert not self.world.violations, "\n".join(self.world.violations[:5])
        finally:
            self.runner.close()
            # The runner closes only a loop that it ran: an example may end before its first step.
            self.loop.close()


# To explain a failure costs minutes.
_PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
_CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What goes wrong here is what the model does."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def _model(examples: int, steps: int) -> None:
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        phases=_PHASES,
        suppress_health_check=_CHECKS,
    )
    run_state_machine_as_test(EventStoreModel, settings=profile)


def test_the_event_store_keeps_its_promises() -> None:
    _model(100, 20)


@pytest.mark.nightly
def test_the_event_store_keeps_its_promises_for_long() -> None:
    _model(3000, 50)
