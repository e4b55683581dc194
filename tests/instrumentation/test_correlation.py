from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator
from contextlib import suppress

import pytest

from oms_events.instrumentation import CorrelationFilter, correlated, current_correlation_id


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What a user's own handler writes, with the id in its format."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(correlation_id)s %(message)s"))
    handler.addFilter(CorrelationFilter())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield stream
    root.setLevel(before)
    root.removeHandler(handler)


LOG = logging.getLogger("a.users.own")


async def test_lines_of_concurrent_starts_carry_each_its_own_id(written: io.StringIO) -> None:
    barrier = asyncio.Barrier(3)

    async def handler(name: str) -> None:
        await barrier.wait()
        LOG.info("at work on %s", name)
        await asyncio.create_task(asyncio.to_thread(LOG.info, "a thread for %s", name))

    async def start(name: str) -> None:
        with correlated(name):
            await handler(name)

    await asyncio.gather(*(start(name) for name in ("one", "two", "three")))
    LOG.info("outside")
    lines = written.getvalue().splitlines()
    assert sorted(lines[:-1]) == sorted(
        f"{name} {text} {name}" for name in ("one", "two", "three") for text in ("at work on", "a thread for")
    )
    assert lines[-1] == "- outside"


def test_the_inner_start_counts_and_then_the_outer_one_again_whatever_happens() -> None:
    with correlated("outer"):
        with suppress(ZeroDivisionError), correlated("inner"):
            assert current_correlation_id() == "inner"
            raise ZeroDivisionError
        assert current_correlation_id() == "outer"
    assert current_correlation_id() is None


def test_a_records_own_id_stays(written: io.StringIO) -> None:
    with correlated("current"):
        LOG.info("mine", extra={"correlation_id": "own"})
        LOG.info("unknown", extra={"correlation_id": None})
    assert written.getvalue() == "own mine\ncurrent unknown\n"
