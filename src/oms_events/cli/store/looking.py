"""`oms-events store show`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from oms_events.cli.common import ExitCode, config_option, ends_cleanly, run
from oms_events.cli.output import tell
from oms_events.cli.store.options import open_store, to_aggregate
from oms_events.cli.store.showing import EventPrinter
from oms_events.eventstore.author import MAX_SEQUENCE
from oms_events.eventstore.items import sequence_of


@click.command()
@click.argument("aggregate_id", metavar="AGGREGATE", type=to_aggregate)
@click.option(
    "--after", type=click.IntRange(0, MAX_SEQUENCE), default=0, metavar="N", help="Only events after this one."
)
@click.option("--up-to", type=click.IntRange(1, MAX_SEQUENCE), metavar="N", help="Only events up to this one.")
@click.option("--full", is_flag=True, help="Show the events whole.")
@config_option
@ends_cleanly
def show(
    *, aggregate_id: str, after: int, up_to: int | None, full: bool, config_file: Path | None, as_json: bool
) -> None:
    """Show an aggregate's history: its events in order, and what is wrong with them.

    Long data is cut off, unless --full or --json; personal data is shown as "[encrypted]". Ends with 1 when there
    is no event of that aggregate.
    """
    printer = EventPrinter(as_json=as_json, full=full)
    sys.exit(run(_show(config_file, aggregate_id, after, up_to, printer)))


async def _show(
    config_file: Path | None, aggregate_id: str, after: int, up_to: int | None, printer: EventPrinter
) -> ExitCode:
    last = after
    async with open_store(config_file) as store:
        # Not the store's own way, which refuses a history that is damaged.
        while True:
            page = await store.table.read(aggregate_id, after=last, up_to=up_to)
            for item in page.items:
                sequence = sequence_of(item)
                if sequence > last + 1:
                    tell(_missing(last + 1, sequence - 1))
                printer.print(item)
                last = sequence
            if page.next is None:
                break
        if last > after:
            return ExitCode.OK
        end = await store.last_sequence(aggregate_id)
        if not end:
            tell(f"table {store.table.name} has no event of aggregate {aggregate_id!r}")
            return ExitCode.FAILED
        tell(f"nothing there: the history of {aggregate_id!r} ends with event {end}")
        return ExitCode.OK


def _missing(first: int, last: int) -> str:
    which = f"event {first} is" if first == last else f"events {first} to {last} are"
    return f"{which} missing: oms-events store verify looks again"
