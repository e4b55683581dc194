"""`oms-events store tail`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oms_events.cli.common import POSITIVE_NUMBER, config_option, ends_cleanly, run
from oms_events.cli.output import tell
from oms_events.cli.store.options import open_store, to_aggregate, to_time
from oms_events.cli.store.showing import EventPrinter
from oms_events.errors import ConfigurationError, StorageDeniedError
from oms_events.eventstore.inspection.stream_tailing import stream_items
from oms_events.eventstore.inspection.tailing import tail_items
from oms_events.eventstore.items import Item

if TYPE_CHECKING:
    from oms_events.eventstore.dynamodb import DynamoDBEventStore


@click.command()
@click.option(
    "--type",
    "event_types",
    multiple=True,
    metavar="T",
    help="Only events of this type; may be given several times.",
)
@click.option("--aggregate", "aggregate_id", type=to_aggregate, metavar="A", help="Only events of this aggregate.")
@click.option(
    "--since",
    type=to_time,
    metavar="TIME",
    help="Begin with the events from then on, such as '5 minutes ago'.",
)
@click.option(
    "--interval",
    type=POSITIVE_NUMBER,
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Look so often.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="End after so many events.")
@click.option("--full", is_flag=True, help="Show the events whole.")
@config_option
@ends_cleanly
def tail(
    *,
    event_types: Sequence[str],
    aggregate_id: str | None,
    since: datetime | None,
    interval: float,
    limit: int | None,
    full: bool,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Show new events as they are appended, until Ctrl-C.

    With --aggregate or --type it asks the table again and again, by type for the last 10 seconds. Without, it
    reads the table's stream, which keeps 24 hours, and bears two readers: do not leave it running beside functions
    that project.
    """
    printer = EventPrinter(as_json=as_json, full=full)

    async def follow() -> None:
        async with open_store(config_file) as store:
            items, what = _items(store, event_types, aggregate_id, since, interval)
            tell(f"following {what}; Ctrl-C ends")
            await _print(items, printer, limit)

    run(follow())


def _items(
    store: DynamoDBEventStore,
    event_types: Sequence[str],
    aggregate_id: str | None,
    since: datetime | None,
    interval: float,
) -> tuple[AsyncGenerator[Sequence[Item]], str]:
    """The items to come, and what they are of."""
    if aggregate_id is None and not event_types:
        return _of_stream(store, since, interval), f"the stream of table {store.table.name}"
    what = f"aggregate {aggregate_id}" if aggregate_id is not None else f"type {', '.join(event_types)}"
    items = tail_items(
        store, aggregate_id=aggregate_id, event_types=event_types or None, since=since, interval=interval
    )
    return items, f"{what} in table {store.table.name}"


async def _of_stream(
    store: DynamoDBEventStore, since: datetime | None, interval: float
) -> AsyncGenerator[Sequence[Item]]:
    try:
        async with aclosing(stream_items(store, since=since, interval=interval)) as batches:
            async for batch in batches:
                yield batch
    except (ConfigurationError, StorageDeniedError):
        tell("with --type or --aggregate no stream is needed")
        raise


async def _print(items: AsyncGenerator[Sequence[Item]], printer: EventPrinter, limit: int | None) -> None:
    count = 0
    async with aclosing(items) as batches:
        async for batch in batches:
            for item in batch:
                printer.print(item)
                count += 1
                if count == limit:
                    return
