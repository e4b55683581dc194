"""What is taken for a caller who is cancelled meanwhile is given back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from oms_events._aio import cancel_and_wait, cancelled_from_outside

Taken = TypeVar("Taken")

_log = logging.getLogger("oms_events")

_PATIENCE: Final = 5.0
"""Seconds that a cancellation waits for the call, and for its undoing: then what was taken expires by itself."""


async def undone_if_cancelled(
    call: Coroutine[Any, Any, Taken], undo: Callable[[Taken], Awaitable[None]], *, name: str
) -> Taken:
    """What the call gives. Cancelled meanwhile, it waits for the end of the call, and undoes what it did."""
    task = asyncio.create_task(call, name=name)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if cancelled_from_outside():
            try:
                async with asyncio.timeout(_PATIENCE):
                    await undo(await asyncio.shield(task))
            except Exception as error:
                _log.warning("%s: cancelled, and not undone: %r", name, error)
        raise
    finally:
        await cancel_and_wait(task)
