"""The whole contract of `OutboxStore`."""

from __future__ import annotations

import pytest

from oms_events.testing.outbox_contract.coordination import CoordinationContract
from oms_events.testing.outbox_contract.letters import DeadLettersContract
from oms_events.testing.outbox_contract.reading import ReadingContract
from oms_events.testing.outbox_contract.settling import SettlingContract
from oms_events.testing.outbox_contract.writing import WritingContract


@pytest.mark.asyncio
class OutboxStoreContract(
    WritingContract, ReadingContract, SettlingContract, DeadLettersContract, CoordinationContract
):
    """Subclass as `class TestMine(OutboxStoreContract)` with a fixture `store`; pytest runs the rest.

    The fixture gives an open `OutboxStore` that holds nothing yet, and closes it after the yield.
    """
