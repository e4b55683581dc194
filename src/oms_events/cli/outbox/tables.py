"""`oms-events outbox table create` and `oms-events outbox buckets`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from oms_events._aio import SystemClock
from oms_events.cli.common import config_option, ends_cleanly, read_settings, run
from oms_events.cli.outbox.options import progress_bar
from oms_events.cli.output import print_json, print_table, tell
from oms_events.outbox.epochs import MAX_BUCKETS, change_buckets, retire_epochs
from oms_events.outbox.records import Layout
from oms_events.settings import Settings

_COLUMNS: Final = ("epoch", "buckets", "open")


@click.command()
@click.option(
    "--buckets",
    type=click.IntRange(1, MAX_BUCKETS),
    metavar="N",
    help="Its number of buckets.  [default: that of the settings, else 32]",
)
@click.option("--point-in-time-recovery", "recovery", is_flag=True, help="Switch continuous backups on.")
@click.option("--deletion-protection", "protection", is_flag=True, help="Protect it from being deleted.")
@config_option
@ends_cleanly
def create(
    *, buckets: int | None, recovery: bool, protection: bool, config_file: Path | None, as_json: bool
) -> None:
    """Create the table of the settings, billed on demand, and wait until it can be used.

    One that is there already, of the right shape and number of buckets, is left as it is.
    """
    settings = read_settings(config_file)
    config = settings.create_outbox().config
    # Imported here, so that the extra is needed only by those who use DynamoDB.
    from oms_events.outbox.table import create_table

    with progress_bar(f"creating {config.table_name}", wanted=not (as_json and sys.stdout.isatty())):
        made = run(
            create_table(config, buckets=buckets, point_in_time_recovery=recovery, deletion_protection=protection)
        )
    _print(made.name, made.layout, as_json=as_json)


@click.command()
@click.argument("number", metavar="[N]", required=False, type=click.IntRange(1, MAX_BUCKETS))
@click.option(
    "--retire", is_flag=True, help="Drop closed layouts that stay empty for ten minutes, and wait for it."
)
@config_option
@ends_cleanly
def buckets(*, number: int | None, retire: bool, config_file: Path | None, as_json: bool) -> None:
    """Give the outbox N buckets, while writers and processors go on; without N show its layouts.

    Records stay where they are and are delivered first; later keyed events wait for them, for some minutes. When
    it ends halfway, writers wait: call it again. Services whose settings name the old number need the new one
    when they start anew.
    """
    table, layout = run(_change(read_settings(config_file), number, retire=retire))
    _print(table, layout, as_json=as_json)


async def _change(settings: Settings, number: int | None, *, retire: bool) -> tuple[str, Layout | None]:
    async with settings.create_outbox() as outbox:
        store = outbox.store
        layout = await store.read_layout() if number is None else await change_buckets(store, number)
        if retire:
            tell("waiting until closed layouts have been empty for ten minutes; Ctrl-C ends it without harm")
            with progress_bar("waiting"):
                layout = await retire_epochs(store, clock=SystemClock())
    return store.table, layout


def _print(table: str, layout: Layout | None, *, as_json: bool) -> None:
    epochs = () if layout is None else layout.epochs
    if as_json:
        print_json({"table": table, "epochs": epochs})
    else:
        click.echo(f"table {table}")
        print_table(_COLUMNS, [(epoch.number, epoch.buckets, epoch.is_open) for epoch in epochs])
