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
"""One item per domain and table: its state and the failures that count."""

RATE: Final = TableShape(hash_key=PARTITION, range_key=WINDOW, ttl_attribute=TTL_ATTRIBUTE)
"""One item per source and window of time, so that a query of the source tells the latest windows."""

_SECONDS_DIGITS: Final = 12


def breaker_key(domain: str, table_name: str) -> dict[str, str]:
    """The key of a domain's and table's breaker."""
    return {PARTITION: f"{domain}#{table_name}"}


def rate_key(source: str, window_start: int) -> dict[str, str]:
    """The key of a source's count in the window that begins at this second (epoch); keys sort as windows do."""
    return {PARTITION: source, WINDOW: f"{window_start:0{_SECONDS_DIGITS}d}"}
