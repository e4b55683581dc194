"""The contract of `OutboxStore` as tests: subclass it beside your own store's tests."""

from __future__ import annotations

from oms_events.testing.outbox_contract.suite import OutboxStoreContract

__all__ = ["OutboxStoreContract"]
