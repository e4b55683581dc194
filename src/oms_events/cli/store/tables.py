"""`oms-events store table create`."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
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
    if as_json:
        for part, tables, is_new in made:
            print_json({"part": part, "tables": tables, "created": is_new})
    else:
        print_table(
            ("part", "tables", "created"), [(part, ", ".join(names), is_new) for part, names, is_new in made]
        )


async def _create(settings: Settings) -> list[tuple[str, Sequence[str], bool]]:
    """What tables are for, their names, and whether any of them is new."""
    store = settings.create_event_store()
    parts: list[tuple[str, Sequence[str], Callable[[], Awaitable[bool]]]] = [
        ("event store", [store.table.name], store.table.create)
    ]
    if settings.snapshots is not None:
        parts.append(("snapshots", [settings.snapshots.table_name], settings.create_snapshot_store().create))
    if (tables := settings.projections) is not None:
        names = [tables.read_model_table, tables.checkpoint_table]
        parts.append(("projections", names, settings.create_read_models().tables.create))
    if settings.personal_keys is not None:
        parts.append(
            ("personal keys", [settings.personal_keys.table_name], settings.create_personal_keys().create)
        )
    return [(part, names, await make()) for part, names, make in parts]
