"""The shape of the idempotency table. Pure."""

from __future__ import annotations

from typing import Final

from oms_events._aws.tables import TableShape

HASH_KEY: Final = "pk"
"""The hash key's name, unless configured otherwise."""
TTL_ATTRIBUTE: Final = "ttl"
"""The name of the attribute with the expiry, in epoch seconds, unless configured otherwise."""


def table_shape(hash_key: str = HASH_KEY, ttl_attribute: str = TTL_ATTRIBUTE) -> TableShape:
    """A hash key of type string, no sort key; TTL deletes what has expired."""
    return TableShape(hash_key=hash_key, ttl_attribute=ttl_attribute)
