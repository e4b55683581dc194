"""`oms-events outbox table create` and `oms-events outbox buckets`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from oms_events._aio import SystemClock
from oms_events.cli.common import ExitCode, config_option, ends_cleanly, read_settings, run
from oms_events.cli.output import print_json, print_table, tell
from oms_events.cli.progress import counted, progress_bar
from oms_events.outbox.epochs import MAX_BUCKETS, change_buckets, count_pending, retire_epochs
from oms_events.outbox.records import Epoch, Layout
from oms_events.outbox.store import OutboxStore
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
    table, layout, left = run(_change(read_settings(config_file), number, retire=retire))
    _print(table, layout, as_json=as_json)
    for epoch, records in left.items():
        tell(f"layout {epoch} has {records}, not retired")
    sys.exit(ExitCode.FAILED if left else ExitCode.OK)


async def _change(
    settings: Settings, number: int | None, *, retire: bool
) -> tuple[str, Layout | None, Mapping[int, str]]:
    """The table's name, its layout, and what kept old layouts from being retired."""
    left: dict[int, str] = {}
    async with settings.create_outbox() as outbox:
        store = outbox.store
        layout = await store.read_layout()
        if number is not None:
            await _warn_of_pending(store, layout, number)
            layout = await change_buckets(store, number)
        if retire:
            tell("waiting until closed layouts have been empty for ten minutes; Ctrl-C ends it without harm")
            with progress_bar("waiting"):
                layout = await retire_epochs(store, clock=SystemClock())
            for epoch in layout.epochs[:-1]:
                if not epoch.is_open and (records := await _records_of(store, epoch)):
                    left[epoch.number] = records
    return store.table, layout, left


async def _warn_of_pending(store: OutboxStore, layout: Layout | None, number: int) -> None:
    old = None if layout is None else layout.open_epoch
    if old is not None and old.buckets != number and (records := await _records_of(store, old)):
        tell(
            f"the table has {records}, those held by dead letters included: later keyed events of those keys wait "
            "until the old layout's are delivered, requeued or purged"
        )


async def _records_of(store: OutboxStore, epoch: Epoch) -> str | None:
    """How many records a layout has, in words; None when there is none."""
    pending, bounded = await count_pending(store, epoch)
    if not pending:
        return None
    return f"{pending}+ pending records" if bounded else counted(pending, "pending record")


def _print(table: str, layout: Layout | None, *, as_json: bool) -> None:
    epochs = () if layout is None else layout.epochs
    if as_json:
        print_json({"table": table, "epochs": epochs})
    else:
        click.echo(f"table {table}")
        print_table(_COLUMNS, [(epoch.number, epoch.buckets, epoch.is_open) for epoch in epochs])
