"""Fakes that pass the same contract as the real thing, for your tests and ours.

The contract itself is in `oms_events.testing.contract`, which needs pytest.
"""

from __future__ import annotations

from oms_events.publishers.memory import MemoryPublisher
from oms_events.testing.clock import ManualClock
from oms_events.testing.flaky import Fault, FlakyPublisher

__all__ = ["Fault", "FlakyPublisher", "ManualClock", "MemoryPublisher"]
