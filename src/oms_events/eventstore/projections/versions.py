"""The versions of a projection: whether one is complete, which one readers get, and deleting one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final, NamedTuple

from oms_events._aio import Clock, SystemClock
from oms_events.errors import ProjectionError
from oms_events.eventstore.history import Token
from oms_events.eventstore.items import Item, is_event
from oms_events.eventstore.projections.items import (
    Checkpoint,
    TableRole,
    checkpoint_key,
    parked_list,
    pointer_check,
    pointer_removal,
    read_checkpoint,
)
from oms_events.eventstore.projections.projection import Projection, projection_of
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.projections.read_models import POINTER_SECONDS, ReadModels
from oms_events.eventstore.projections.rebuild_positions import retiring_key, retiring_write
from oms_events.eventstore.projections.rebuilding import (
    RebuildConfig,
    count_parked,
    forget_positions,
    in_segments,
)
from oms_events.eventstore.schema import AGGREGATE_ID, EVENT_SEQUENCE, EVENT_TYPE

_AT_ONCE: Final = 100
"""Checkpoints that are compared at once."""
_SUSPECTS: Final = 10_000
"""So many aggregates that are behind are looked at again; with more, nobody need look twice."""
_LOOK_AGAIN: Final = 0.5
_PASSES: Final = 5
"""After so many somebody goes on writing what is deleted."""


class VerifiedProjection(NamedTuple):
    """Whether a projection has all aggregates up to the end of their histories: `behind` have not come so far.

    Those that wait for a parked event are not among them; `parked` counts such events, and those passed over.
    """

    aggregates: int
    behind: int
    parked: int

    @property
    def is_complete(self) -> bool:
        return self.behind == 0 and self.parked == 0


class Switched(NamedTuple):
    """Readers get version `now` of a projection, and got `before`; equal: nothing was done."""

    name: str
    before: int | None
    now: int


class Retired(NamedTuple):
    """What was deleted of a version."""

    rows: int
    checkpoints: int
    parked: int


async def verify_projection(
    projector: Projector,
    projection: Projection[Any] | str,
    *,
    config: RebuildConfig | None = None,
    clock: Clock | None = None,
) -> VerifiedProjection:
    """Compares the checkpoint of every aggregate with its last event; changes nothing.

    Those that are behind get `lag` seconds to be brought up by the projectors of live events. Reads the event
    store's whole table. Raises `ConfigurationError` for a projection that is not the projector's,
    `ProjectionError` for one that is being retired, and a `StorageError`.
    """
    await projector.open()
    own = projection_of(projector.projections, projection)
    config, clock = config or RebuildConfig(), clock or SystemClock()
    await projector.read_models.check_not_retiring(own.full_name)
    suspects: dict[str, int] = {}
    beyond = 0

    async def compare_segment(segment: int) -> int:
        nonlocal beyond
        aggregates = 0
        async with aclosing(_ends(projector, own, segment, config)) as batches:
            async for ends in batches:
                aggregates += len(ends)
                late = await _late(projector.read_models, own, ends)
                room = max(0, _SUSPECTS - len(suspects))
                suspects.update(list(late.items())[:room])
                beyond += max(0, len(late) - room)
        return aggregates

    aggregates = sum(await in_segments(compare_segment, config.segments))
    deadline = clock.monotonic() + config.lag
    suspects = await _still_late(projector.read_models, own, suspects)
    while suspects and not beyond and clock.monotonic() < deadline:
        await clock.sleep(min(_LOOK_AGAIN, deadline - clock.monotonic()))
        suspects = await _still_late(projector.read_models, own, suspects)
    return VerifiedProjection(aggregates, len(suspects) + beyond, await count_parked(projector.read_models, own))


async def _ends(
    projector: Projector, projection: Projection[Any], segment: int, config: RebuildConfig
) -> AsyncGenerator[dict[str, int]]:
    """A segment's aggregates in batches, with the last event of each that is of interest; 0 without one."""
    start: Token | None = None
    ends: dict[str, int] = {}
    while True:
        page = await projector.store.table.scan(
            start=start, segment=segment, segments=config.segments, limit=config.page_size
        )
        for item in filter(is_event, page.items):
            aggregate_id = item[AGGREGATE_ID]["S"]
            if aggregate_id not in ends and len(ends) >= _AT_ONCE:
                # The events of an aggregate come together: those before are whole.
                yield ends
                ends = {}
            last = ends.setdefault(aggregate_id, 0)
            if _is_of_interest(item, projection):
                ends[aggregate_id] = max(last, int(item[EVENT_SEQUENCE]["N"]))
        start = page.next
        if start is None:
            break
    if ends:
        yield ends


def _is_of_interest(item: Item, projection: Projection[Any]) -> bool:
    event_type = item.get(EVENT_TYPE, {}).get("S")
    return event_type is None or bool(projection.handlers(event_type))


async def _still_late(
    read_models: ReadModels, projection: Projection[Any], suspects: dict[str, int]
) -> dict[str, int]:
    late: dict[str, int] = {}
    names = list(suspects)
    for start in range(0, len(names), _AT_ONCE):
        batch = {name: suspects[name] for name in names[start : start + _AT_ONCE]}
        late |= await _late(read_models, projection, batch)
    return late


async def _late(read_models: ReadModels, projection: Projection[Any], ends: dict[str, int]) -> dict[str, int]:
    keys = [checkpoint_key(projection.full_name, aggregate_id) for aggregate_id in ends]
    late = {}
    for (aggregate_id, last), item in zip(ends.items(), await read_models.tables.get(keys), strict=True):
        checkpoint = read_checkpoint(item) or Checkpoint()
        if last > checkpoint.sequence and not checkpoint.is_held:
            late[aggregate_id] = last
    return late


# ---------------------------------------------------------------------- switch and retire


async def switch(
    projector: Projector,
    projection: Projection[Any] | str,
    *,
    force: bool = False,
    back: bool = False,
    config: RebuildConfig | None = None,
    clock: Clock | None = None,
) -> Switched:
    """Lets readers have this version of a projection, once it is complete; all of them have it after 5 seconds.

    Keep the old version's projector at work until then. Looks with `verify_projection` first, unless with `force`.
    What is appended while it looks shows as late as the projectors of live events are. Raises `ProjectionError`,
    with nothing done: for a version that is not complete, for one that is older than the active one unless with
    `back`, and when somebody else switched meanwhile; and as `verify_projection` does.
    """
    await projector.open()
    own, read_models = projection_of(projector.projections, projection), projector.read_models
    before = await read_models.active_version(own.name)
    if before == own.version:
        return Switched(own.name, before, before)
    if before is not None and before > own.version and not back:
        raise ProjectionError(
            f"{own.name}: version {before} is active, and {own.version} is older; give back=True to go back to it"
        )
    await read_models.check_not_retiring(own.full_name)
    if not force:
        found = await verify_projection(projector, own, config=config, clock=clock)
        if not found.is_complete:
            raise ProjectionError(
                f"{own.full_name} is not complete: of {found.aggregates} aggregates {found.behind} are behind "
                f"(rebuild it, and let a projector of it have the live events), and {found.parked} events are "
                "parked (mend it, and retry them); or give force=True to switch all the same"
            )
    if not await read_models.set_active_version(own.name, own.version, expected=before):
        raise ProjectionError(
            f"{own.name}: version {await read_models.active_version(own.name)} has become active meanwhile, after "
            f"{before}; nothing was done: look, and decide anew"
        )
    return Switched(own.name, before, own.version)


async def retire(
    read_models: ReadModels,
    name: str,
    version: int,
    *,
    active: bool = False,
    page_size: int | None = None,
    clock: Clock | None = None,
) -> Retired:
    """Deletes a version's rows, checkpoints and parked events, page by page; events stay in the event store.

    Stop its projectors first. Reads both tables whole, again until nothing is left. Right after a switch it waits
    until all readers know of that, 5 seconds at most. When it was ended, do it again: until it is done, the
    version is neither rebuilt nor switched to.

    With `active` also the version that readers get, for a projection that is given up: they find no rows then.
    Retire its other versions first, and open no projector of it any more: the next one's version becomes active.

    Raises `ProjectionError` for the active version without `active`, with nothing done, and for one that a
    projector goes on writing; a `StorageError`.
    """
    full_name, clock = f"{name}@{version}", clock or SystemClock()
    await read_models.open()
    switched_at = await _mark(read_models, name, version, clock, even_active=active)
    if switched_at is not None:
        # Never negative: another machine's clock may be ahead.
        since = max(0.0, (clock.now() - switched_at).total_seconds())
        if since < POINTER_SECONDS:
            await clock.sleep(POINTER_SECONDS - since)
    rows = checkpoints = 0
    for _ in range(_PASSES):
        more_rows = await _deleted(read_models, full_name, "rows", page_size)
        more_checkpoints = await _deleted(read_models, full_name, "checkpoints", page_size)
        rows, checkpoints = rows + more_rows, checkpoints + more_checkpoints
        # A late transaction may have left a row without its checkpoint, or the other way round.
        if not more_rows and not more_checkpoints:
            break
    else:
        raise ProjectionError(f"{full_name}: a projector still writes it; stop that, and retire it again")
    parked = await read_models.delete_partition(parked_list(full_name), limit=page_size)
    await forget_positions(read_models, full_name)
    await read_models.tables.delete([retiring_key(full_name)])
    return Retired(rows, checkpoints, parked)


async def _mark(
    read_models: ReadModels, name: str, version: int, clock: Clock, *, even_active: bool
) -> datetime | None:
    """Marks a version as being deleted, unless readers get it; since when they get another one, or none."""
    full_name = f"{name}@{version}"
    while True:
        pointer = await read_models.pointer(name)
        active = None if pointer is None else pointer.version
        if active == version and not even_active:
            raise ProjectionError(
                f"{full_name} is what readers get; switch to another version first, or give active=True to leave "
                "them none"
            )
        now = clock.now()
        # With the pointer in one transaction: it is never switched to from here on.
        left = pointer_removal(name, version) if active == version else pointer_check(name, active)
        if await read_models.tables.commit([retiring_write(full_name, now), left]):
            if active == version:
                return now
            return None if pointer is None else pointer.switched_at
        await clock.sleep(_LOOK_AGAIN)


async def _deleted(read_models: ReadModels, full_name: str, table: TableRole, limit: int | None) -> int:
    deleted, start = 0, None
    while True:
        count, start = await read_models.delete_page(full_name, table, start=start, limit=limit)
        deleted += count
        if start is None:
            return deleted
