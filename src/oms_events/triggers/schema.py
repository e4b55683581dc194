"""The tables of the guards: which starts have been, what failed, and how many there were. Pure.

All are written by single conditional updates, so that their instances share them exactly.
"""

from __future__ import annotations

from typing import Final

from oms_events._aws.tables import TableShape
from oms_events.idempotency.schema import table_shape

PARTITION: Final = "pk"
WINDOW: Final = "sk"
TTL_ATTRIBUTE: Final = "ttl"
"""The second (epoch, UTC) from which an item says nothing any more, and may be deleted."""

IDEMPOTENCY: Final = table_shape()
"""One item per start, under `domain:table_name:ds:correlation_id`."""

BREAKER: Final = TableShape(hash_key=PARTITION, ttl_attribute=TTL_ATTRIBUTE)
"""One item per domain and table: its state and the failures that count. And one per lease, without TTL."""

RATE: Final = TableShape(hash_key=PARTITION, range_key=WINDOW, ttl_attribute=TTL_ATTRIBUTE)
"""One item per quota: when its last starts were."""

_STARTS: Final = "starts"
_LEASE: Final = "#lease#"
"""No domain begins so: a breaker and a lease never have the same key."""


def breaker_key(domain: str, table_name: str) -> dict[str, str]:
    """The key of a domain's and table's breaker."""
    return {PARTITION: f"{domain}#{table_name}"}


def breaker_of(key: str) -> tuple[str, str] | None:
    """The domain and table of a breaker's key; None for a lease's."""
    domain, _, table_name = key.partition("#")
    return (domain, table_name) if domain else None


def rate_key(name: str) -> dict[str, str]:
    """The key of the starts that a quota counts."""
    return {PARTITION: name, WINDOW: _STARTS}


def lease_key(key: str) -> dict[str, str]:
    """The key of a lease, in the table of the breakers."""
    return {PARTITION: f"{_LEASE}{key}"}
