"""What a DynamoDB transaction takes. Pure."""

from __future__ import annotations

from typing import Final

from oms_events.errors import OutboxLimitError
from oms_events.outbox.schema import ITEM_LIMIT

MAX_ACTIONS: Final = 100
MAX_BYTES: Final = 4 * 1024 * 1024


def check_item(table: object, size: int) -> None:
    """Raises `OutboxLimitError` for an item that is too large."""
    if size > ITEM_LIMIT:
        text = f"the item for table {table!r} has {size} bytes, but an item takes {ITEM_LIMIT}: split it"
        raise OutboxLimitError(text, limit=ITEM_LIMIT, actual=size)


def check_transaction(actions: int, size: int) -> None:
    """Raises `OutboxLimitError` for more actions or bytes than a transaction takes."""
    if actions > MAX_ACTIONS:
        text = f"{actions} actions, but a transaction takes {MAX_ACTIONS}, each event one of them: use several"
        raise OutboxLimitError(text, limit=MAX_ACTIONS, actual=actions)
    if size > MAX_BYTES:
        text = f"about {size} bytes, but a transaction takes {MAX_BYTES}: use several"
        raise OutboxLimitError(text, limit=MAX_BYTES, actual=size)
