"""`oms-events store table create`."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import click

from oms_events.cli.common import config_option, ends_cleanly, read_settings, run
from oms_events.cli.output import print_json, print_table
from oms_events.cli.progress import progress_bar
from oms_events.settings import Settings


@click.command()
@config_option
@ends_cleanly
def create(*, config_file: Path | None, as_json: bool) -> None:
    """Create the tables of the settings, billed on demand, and wait until they can be used.

    That is the event store, and where the settings have them the tables of snapshots, projections and personal
    keys; what is there already, of the right shape, is left as it is. For development and tests: deploy the
    preset event-sourcing for anything else.
    """
    settings = read_settings(config_file)
    settings.create_event_store()
    with progress_bar("creating tables", wanted=not (as_json and sys.stdout.isatty())):
        made = run(_create(settings))
    for part, is_new in made:
        if as_json:
            print_json({"tables": part, "created": is_new})
    if not as_json:
        print_table(("tables", "created"), made)


async def _create(settings: Settings) -> list[tuple[str, bool]]:
    """What the tables are for, and whether they are new."""
    parts: dict[str, Callable[[], Awaitable[bool]]] = {"event store": settings.create_event_store().table.create}
    if settings.snapshots is not None:
        parts["snapshots"] = settings.create_snapshot_store().create
    if settings.projections is not None:
        parts["projections"] = settings.create_read_models().tables.create
    if settings.personal_keys is not None:
        parts["personal keys"] = settings.create_personal_keys().create
    return [(part, await make()) for part, make in parts.items()]
