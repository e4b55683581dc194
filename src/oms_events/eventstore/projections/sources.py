"""What sources of events share: a projector gets what they show, and reads what they do not show."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from oms_events.errors import ProjectionError, StorageError
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.records import RecordedEvent


class Told(NamedTuple):
    """What a source tells of an event: whose it is, and the event itself; None when only the store has it."""

    aggregate_id: str
    event: RecordedEvent | None


async def project(projector: Projector, told: Sequence[Told]) -> list[Exception | None]:
    """What became of each, aligned; see `Projector.handle`. Raises what opening the projector raises."""
    shown = [one.event for one in told if one.event is not None]
    results = iter(await projector.handle(shown) if shown else ())
    if len(shown) < len(told):
        await _check_configuration(projector)
    # As many at the same time as the projector takes.
    async with asyncio.TaskGroup() as group:
        read = {
            aggregate_id: group.create_task(_catch_up(projector, aggregate_id), name="projection")
            for aggregate_id in dict.fromkeys(one.aggregate_id for one in told if one.event is None)
        }
    return [read[one.aggregate_id].result() if one.event is None else next(results) for one in told]


async def _catch_up(projector: Projector, aggregate_id: str) -> Exception | None:
    try:
        await projector.catch_up(aggregate_id)
    except Exception as error:
        return error
    return None


async def _check_configuration(projector: Projector) -> None:
    """Opens the projector; what may pass is told of each event, when it is read."""
    with suppress(StorageError, ProjectionError):
        await projector.open()
