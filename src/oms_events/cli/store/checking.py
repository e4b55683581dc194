"""`oms-events store stats` and `oms-events store verify`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from oms_events.cli.common import ExitCode, config_option, ends_cleanly, run
from oms_events.cli.output import print_fields, print_json, print_table, tell
from oms_events.cli.progress import counted, progress_bar
from oms_events.cli.store.options import open_store, segments_option, to_aggregate, to_registry
from oms_events.eventstore.inspection.store_stats import StoreEstimate, StoreStats, estimate, stats
from oms_events.eventstore.inspection.verification import VerifyReport, verify
from oms_events.eventstore.registry import EventRegistry


@click.command("stats")
@click.option("--exact", is_flag=True, help="Read the whole table, which costs as much, and count.")
@click.option(
    "--top",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    metavar="N",
    help="Show so many of the longest histories.",
)
@segments_option
@config_option
@ends_cleanly
def stats_(*, exact: bool, top: int, segments: int, config_file: Path | None, as_json: bool) -> None:
    """Show what the event store holds.

    Without --exact it is what DynamoDB says of the table, up to about six hours old: the number of items, which
    are events and remembered commands, and their bytes.
    """
    if not exact:
        about = run(_estimate(config_file))
        if as_json:
            print_json({"exact": False, **asdict(about)})
        else:
            _print_estimate(about)
        return
    found = run(_stats(config_file, top=top, segments=segments, shows_bar=not (as_json and sys.stdout.isatty())))
    if as_json:
        print_json(_described(found))
    else:
        _print_stats(found)


@click.command("verify")
@click.option("--aggregate", "aggregate_id", type=to_aggregate, metavar="A", help="Look at this aggregate alone.")
@click.option(
    "--registry",
    type=to_registry,
    metavar="MODULE:NAME",
    help="Also read each event as your code would, by this EventRegistry.",
)
@click.option("--index", is_flag=True, help="Also read the index by type, and compare.")
@click.option("--no-markers", is_flag=True, help="Do not look for the events that commands led to.")
@segments_option
@config_option
@ends_cleanly
def verify_(
    *,
    aggregate_id: str | None,
    registry: EventRegistry | None,
    index: bool,
    no_markers: bool,
    segments: int,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Look whether every event is there once, in its place, and unchanged.

    Reads the whole table, or one aggregate; changes nothing. Ends with 1 when something is wrong.
    """
    shows_bar = not (as_json and sys.stdout.isatty())
    report = run(
        _verify(
            config_file,
            aggregate_id,
            registry,
            index=index,
            markers=not no_markers,
            segments=segments,
            shows_bar=shows_bar,
        )
    )
    if as_json:
        counts = {kind.value: count for kind, count in report.counts.items()}
        print_json({"ok": report.ok, **asdict(report), "counts": counts})
    else:
        _print_report(report)
    is_unknown = aggregate_id is not None and not report.events
    if is_unknown:
        tell(f"table {report.table} has no event of aggregate {aggregate_id!r}")
    sys.exit(ExitCode.OK if report.ok and not is_unknown else ExitCode.FAILED)


async def _estimate(config_file: Path | None) -> StoreEstimate:
    async with open_store(config_file) as store:
        return await estimate(store)


async def _stats(config_file: Path | None, *, top: int, segments: int, shows_bar: bool) -> StoreStats:
    async with open_store(config_file) as store:
        total = (await estimate(store)).items if shows_bar else None
        with progress_bar("counting", total=total or None, wanted=shows_bar) as on_items:
            return await stats(store, top=top, segments=segments, on_items=on_items)


async def _verify(
    config_file: Path | None,
    aggregate_id: str | None,
    registry: EventRegistry | None,
    *,
    index: bool,
    markers: bool,
    segments: int,
    shows_bar: bool,
) -> VerifyReport:
    async with open_store(config_file) as store:
        total = (await estimate(store)).items if shows_bar and aggregate_id is None else None
        with progress_bar("verifying", total=total or None, wanted=shows_bar) as on_items:
            return await verify(
                store,
                aggregate_id=aggregate_id,
                registry=registry,
                segments=segments,
                markers=markers,
                index=index,
                on_items=on_items,
            )


def _print_estimate(found: StoreEstimate) -> None:
    print_fields(
        {
            "table": found.table,
            "items": f"about {found.items} (events and remembered commands; --exact counts)",
            "bytes": f"about {found.bytes}",
            "in the index": f"about {found.index_bytes} bytes",
        }
    )


def _print_stats(found: StoreStats) -> None:
    print_fields(
        {
            "table": found.table,
            "events": found.events,
            "aggregates": found.aggregates,
            "bytes": f"{found.bytes} (and as many in the index)",
            "commands": f"{found.markers} remembered, {found.marker_bytes} bytes",
            "oldest": found.oldest,
            "newest": found.newest,
        }
    )
    if found.types:
        click.echo()
        rows = [(event_type, one.events, one.bytes) for event_type, one in found.types.items()]
        print_table(("event type", "events", "bytes"), rows)
    if found.longest:
        click.echo()
        print_table(("longest histories", "events", "bytes"), found.longest)


def _described(found: StoreStats) -> dict[str, object]:
    return {
        **asdict(found),
        "exact": True,
        "types": {event_type: one._asdict() for event_type, one in found.types.items()},
        "longest": [one._asdict() for one in found.longest],
    }


def _print_report(report: VerifyReport) -> None:
    if report.problems:
        print_table(
            ("problem", "at", "what"), [(one.kind.value, one.position, one.text) for one in report.problems]
        )
        click.echo()
    count = sum(report.counts.values())
    if count > len(report.problems):
        tell(f"... {count - len(report.problems)} more are counted, and not named")
    for note in report.unchecked:
        tell(f"not looked at: {note}")
    read = f"{counted(report.events, 'event')} of {counted(report.aggregates, 'aggregate')}"
    if report.markers:
        read = f"{read} and {counted(report.markers, 'remembered command')}"
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(report.counts.items()))
    click.echo(f"{read}: {counted(count, 'problem')} ({kinds})" if count else f"{read}: no problem")
