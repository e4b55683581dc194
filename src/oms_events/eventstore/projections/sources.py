"""What sources of events share: a projector gets what they show, and reads what they do not show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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
    read: dict[str, Exception | None] = {}
    failures: list[Exception | None] = []
    for one in told:
        if one.event is not None:
            failures.append(next(results))
            continue
        if one.aggregate_id not in read:
            read[one.aggregate_id] = await _catch_up(projector, one.aggregate_id)
        failures.append(read[one.aggregate_id])
    return failures


async def _catch_up(projector: Projector, aggregate_id: str) -> Exception | None:
    try:
        await projector.catch_up(aggregate_id)
    except Exception as error:
        return error
    return None
