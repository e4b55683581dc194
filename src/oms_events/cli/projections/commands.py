"""`oms-events projections status` and `oms-events projections parked`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import click

from oms_events.cli.common import ExitCode, config_option, ends_cleanly, read_settings, run
from oms_events.cli.output import print_json, print_table, tell
from oms_events.cli.store.options import to_aggregate
from oms_events.eventstore.projections.items import POINTER, POINTER_PREFIX, ParkedEvent, keys_of
from oms_events.eventstore.projections.read_models import ReadModels

_COUNTED: Final = 1000
"""Parked events of a projection, at most."""


@dataclass(frozen=True, slots=True)
class Status:
    """A projection's active version, and how many of its events are parked (up to a limit: `bounded`)."""

    projection: str
    version: int | None
    parked: int
    bounded: bool


@click.group()
def projections() -> None:
    """The projections: their active versions, and parked events."""


@projections.command()
@click.argument("names", metavar="[PROJECTION]...", nargs=-1)
@config_option
@ends_cleanly
def status(*, names: Sequence[str], config_file: Path | None, as_json: bool) -> None:
    """Show which version of each projection is active, and how many of its events are parked.

    Without names it reads the whole table of read models to find them. Ends with 1 when a projection that is named
    has no active version: no projector of it was ever opened.
    """
    found = run(_status(config_file, names))
    if as_json:
        for one in found:
            print_json(asdict(one))
    else:
        rows = [(one.projection, one.version, f"{one.parked}{'+' if one.bounded else ''}") for one in found]
        print_table(("projection", "active version", "parked"), rows)
    sys.exit(ExitCode.FAILED if any(one.version is None for one in found) else ExitCode.OK)


@projections.command()
@click.argument("name", metavar="PROJECTION")
@click.option("--aggregate", "aggregate_id", type=to_aggregate, metavar="A", help="Only events of this aggregate.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Show so many at most.")
@config_option
@ends_cleanly
def parked(*, name: str, aggregate_id: str | None, limit: int, config_file: Path | None, as_json: bool) -> None:
    """List the events that a projection cannot take, and why.

    PROJECTION is its name for the active version, or with a version, as in AccountSummary@2. An aggregate whose
    event is held waits for it; after a repair let your projector try again (`retry_parked`). Ends with 1 when the
    projection has no active version: no projector of it was ever opened.
    """
    found, more, active = run(_parked(config_file, name, aggregate_id, limit))
    if as_json:
        for event in found:
            print_json({**asdict(event), "position": event.position})
    else:
        columns = ("event", "event type", "held", "attempts", "parked", "reason")
        rows = [(one.position, one.event_type, one.held, one.attempts, one.parked_at, one.reason) for one in found]
        print_table(columns, rows)
    if more:
        tell(f"there are more: --limit {limit * 10}")
    name, _, version = name.partition("@")
    if active is None:
        tell(f"projection {name!r} has no active version: no projector of it was ever opened")
        sys.exit(ExitCode.FAILED)
    if not found and version not in ("", str(active)):
        tell(f"nothing of version {version} is parked; the active version of projection {name!r} is {active}")


async def _status(config_file: Path | None, names: Sequence[str]) -> list[Status]:
    async with read_settings(config_file).create_read_models() as read_models:
        wanted = list(names) or [name async for name in _names(read_models)]
        return [await _status_of(read_models, name) for name in wanted]


async def _names(read_models: ReadModels) -> AsyncIterator[str]:
    """The projections that have an active version."""
    start = None
    while True:
        page = await read_models.tables.scan("rows", range_key=POINTER, start=start)
        for key in keys_of(page.items, "rows"):
            if key.hash.startswith(POINTER_PREFIX):
                yield key.hash.removeprefix(POINTER_PREFIX)
        start = page.next
        if start is None:
            return


async def _status_of(read_models: ReadModels, name: str) -> Status:
    version = await read_models.active_version(name)
    if version is None:
        return Status(name, None, 0, bounded=False)
    events, more = await _read(read_models, f"{name}@{version}", None, _COUNTED)
    return Status(name, version, len(events), bounded=more)


async def _parked(
    config_file: Path | None, wanted: str, aggregate_id: str | None, limit: int
) -> tuple[list[ParkedEvent], bool, int | None]:
    """Parked events, whether there are more, and the active version of the projection; None without any."""
    name, _, version = wanted.partition("@")
    async with read_settings(config_file).create_read_models() as read_models:
        active = await read_models.active_version(name)
        if active is None:
            return [], False, None
        found = await _read(read_models, f"{name}@{version or active}", aggregate_id, limit)
        return *found, active


async def _read(
    read_models: ReadModels, full_name: str, aggregate_id: str | None, limit: int
) -> tuple[list[ParkedEvent], bool]:
    found: list[ParkedEvent] = []
    start = None
    while True:
        page = await read_models.parked_page(full_name, aggregate_id=aggregate_id, start=start)
        found += page.events
        start = page.next
        if start is None or len(found) > limit:
            return found[:limit], len(found) > limit
