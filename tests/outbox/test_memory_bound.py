"""A processor's memory has a bound that the size of its backlog does not move."""

from __future__ import annotations

import subprocess
import sys

import pytest

from oms_events import ProcessorConfig
from tests.outbox import memory_program

LIMIT_MB = 120
WINDOW = ProcessorConfig().window

pytestmark = pytest.mark.skipif(not memory_program.STATUS.exists(), reason="needs /proc")


def peak_mb(backlog: int, *, window: int = WINDOW) -> float:
    """The most memory of a process that relays so many pending events from 8 buckets."""
    command = [sys.executable, "-m", "tests.outbox.memory_program", str(backlog), str(window)]
    delivered, megabytes = subprocess.check_output(command, text=True, timeout=120).split()
    assert int(delivered) == backlog
    return float(megabytes)


def test_a_backlog_is_relayed_in_bounded_memory() -> None:
    some, twice = peak_mb(20_000), peak_mb(40_000)
    assert some < LIMIT_MB
    assert twice < some + 5, "it grows with the backlog"


def test_without_the_window_it_would_grow() -> None:
    """The measurement is able to see what the test above rules out."""
    assert peak_mb(20_000, window=20_000) > peak_mb(20_000) + 10
