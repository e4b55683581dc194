"""The contract of event stores as tests: subclass it beside your own store's tests."""

from __future__ import annotations

from oms_events.testing.event_store_contract.suite import EventStoreContract

__all__ = ["EventStoreContract"]
