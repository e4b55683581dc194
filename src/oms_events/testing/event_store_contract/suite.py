"""The whole contract of event stores."""

from __future__ import annotations

import pytest

from oms_events.testing.event_store_contract.appending import AppendingContract
from oms_events.testing.event_store_contract.by_time import ByTimeContract
from oms_events.testing.event_store_contract.limits import LimitsContract
from oms_events.testing.event_store_contract.reading import ReadingContract


@pytest.mark.asyncio
class EventStoreContract(AppendingContract, LimitsContract, ReadingContract, ByTimeContract):
    """Subclass as `class TestMine(EventStoreContract)` with a fixture `store`; pytest runs the rest.

    The fixture gives an open `EventStore`, with or without an outbox, that may hold other events: all aggregates
    and event types of these tests are new ones. Reading all of it must be fast: a few thousand events at most.
    """
