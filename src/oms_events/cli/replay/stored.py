"""`oms-events replay store`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import click

from oms_events.cli.common import (
    POSITIVE_NUMBER,
    ExitCode,
    config_option,
    configured_platforms,
    ends_cleanly,
    run,
)
from oms_events.cli.output import tell
from oms_events.cli.replay.showing import EventBar, Failures, show_report, tell_oddities
from oms_events.errors import ConfigurationError, ReplayError
from oms_events.eventstore.inspection.store_stats import estimate
from oms_events.eventstore.replay.checkpoints import FileReplayCheckpoint
from oms_events.eventstore.replay.config import ReplayConfig, ReplaySelection
from oms_events.eventstore.replay.report import ReplayReport
from oms_events.eventstore.replay.store_replay import StoreReplay
from oms_events.eventstore.store import EventStore
from oms_events.settings import Settings

_TABLE = "OMS_EVENT_STORE_TABLE"


@dataclass(slots=True)
class Wanted:
    """What the command line asks for."""

    settings: Settings
    selection: ReplaySelection
    config: ReplayConfig
    name: str | None
    checkpoint: FileReplayCheckpoint | None
    dry_run: bool
    shows_bar: bool
    report: ReplayReport | None = None


@click.command()
@click.option("--type", "types", multiple=True, metavar="T", help="Only events of this type; may be repeated.")
@click.option(
    "--aggregate", "aggregate_ids", multiple=True, metavar="ID", help="Only of this aggregate; likewise."
)
@click.option("--from", "start", metavar="TIME", help="Only from this time on: 2026-01-31, or '2 hours ago'.")
@click.option("--to", "end", metavar="TIME", help="Only before this time.  [default: now]")
@click.option("--rule", metavar="NAME", help="Only events that this rule takes.")
@click.option("--platform", metavar="NAME", help="Only to this platform, whatever the rules say of it.")
@click.option("--rate", type=POSITIVE_NUMBER, metavar="N", help="At most N events a second.")
@click.option("--unordered", is_flag=True, help="Faster: an aggregate's events go without waiting for each other.")
@click.option("--dry-run", is_flag=True, help="Count by type, rule and platform; publish nothing.")
@click.option(
    "--checkpoint",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write there how far it has come, and go on from there.",
)
@click.option("--name", metavar="NAME", help="What events say in `replayname`.  [default: made of the time]")
@click.option(
    "--on-rejected",
    type=click.Choice(("continue", "stop")),
    default="continue",
    show_default=True,
    help="After an event that a platform can never accept.",
)
@click.option(
    "--on-failed",
    type=click.Choice(("stop", "continue")),
    default="stop",
    show_default=True,
    help="After an event that was not delivered at all attempts, cannot be read, or is missing.",
)
@click.option("--table", metavar="NAME", help="The event store's table.  [default: that of the settings]")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@config_option
@ends_cleanly
def store(
    *,
    types: Sequence[str],
    aggregate_ids: Sequence[str],
    start: str | None,
    end: str | None,
    rule: str | None,
    platform: str | None,
    rate: float | None,
    unordered: bool,
    dry_run: bool,
    checkpoint: Path | None,
    name: str | None,
    on_rejected: Literal["continue", "stop"],
    on_failed: Literal["stop", "continue"],
    table: str | None,
    yes: bool,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Publish recorded events once more, through the rules and platforms of the settings.

    Events keep their identity, and say `replayname`. Ends with 1 when one was not delivered, and, with nothing
    published, when an aggregate has no event. After Ctrl-C or an error the same command with the same
    --checkpoint goes on where it was.
    """
    wanted = Wanted(
        _settings(config_file, table),
        ReplaySelection(
            types=tuple(types),
            aggregate_ids=tuple(aggregate_ids),
            start=start,
            end=end,
            rule=rule,
            platform=platform,
        ),
        ReplayConfig(ordered=not unordered, rate=rate, after_rejection=on_rejected, after_failure=on_failed),
        name,
        None if checkpoint is None else FileReplayCheckpoint(checkpoint),
        dry_run,
        shows_bar=sys.stderr.isatty() and not (as_json and sys.stdout.isatty()),
    )
    _check_times(wanted.selection)
    if not dry_run and not yes and sys.stdin.isatty():
        click.confirm(_question(wanted), abort=True, err=True)
    failures = Failures(as_json=as_json)
    try:
        run(_replay(wanted, failures))
    except (KeyboardInterrupt, asyncio.CancelledError):
        tell("; ".join(("stopped", *_rest(wanted))))
        raise
    except Exception:
        for text in _rest(wanted):
            tell(text)
        raise
    finally:
        failures.finish()
        if wanted.report is not None:
            show_report(wanted.report, as_json=as_json, dry_run=dry_run)
    report = wanted.report
    if report is None:
        return
    tell_oddities(report)
    if report.resumed and not report.read and not dry_run:
        tell(f"{checkpoint} says that this replay was complete before; another --checkpoint begins a new one")
    sys.exit(ExitCode.FAILED if report.rejected or report.failed else ExitCode.OK)


async def _replay(wanted: Wanted, on_failure: Failures) -> None:
    settings = wanted.settings
    configured_platforms(settings, ())
    router = settings.create_router()
    store = settings.create_event_store()
    bar = EventBar()
    replay = StoreReplay(
        store,
        router,
        wanted.selection,
        name=wanted.name,
        checkpoint=wanted.checkpoint,
        config=wanted.config,
        on_progress=bar,
        on_failure=on_failure,
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(store)
        await _check_aggregates(store, wanted.selection)
        if wanted.shows_bar:
            reads_all = not (wanted.selection.aggregate_ids or wanted.selection.types)
            total = (await estimate(store)).items if reads_all else 0
            stack.enter_context(bar.shown(total=total or None, dry_run=wanted.dry_run))
        try:
            if wanted.dry_run:
                # Decided without the platforms, which need not even be there.
                await replay.count()
                return
            await stack.enter_async_context(router)
            await replay.run()
        finally:
            wanted.report = replay.report


async def _check_aggregates(store: EventStore, selection: ReplaySelection) -> None:
    unknown = [repr(name) for name in selection.aggregate_ids if not await store.last_sequence(name)]
    if unknown:
        raise ReplayError(
            f"table {store.table.name} has no event of aggregate {', '.join(unknown)}: nothing was published"
        )


def _settings(config_file: Path | None, table: str | None) -> Settings:
    env = dict(os.environ) if table is None else {**os.environ, _TABLE: table}
    return Settings.from_environment(env) if config_file is None else Settings.from_file(config_file, env=env)


def _check_times(selection: ReplaySelection) -> None:
    try:
        selection.time_range(now=datetime.now(UTC))
    except ValueError as error:
        raise ConfigurationError("replay", [str(error)]) from None


def _question(wanted: Wanted) -> str:
    selection = wanted.selection
    config = wanted.settings.event_store
    what = ", ".join(selection.types) or "all types"
    whose = f" of {', '.join(selection.aggregate_ids)}" if selection.aggregate_ids else ""
    when = f" from {selection.start or 'the beginning'} to {selection.end or 'now'}"
    rule = f" that rule {selection.rule} takes" if selection.rule else ""
    where = selection.platform or "where the rules say"
    table = "?" if config is None else config.table_name
    return f"replay events ({what}){whose}{when}{rule} of table {table} to {where}?"


def _rest(wanted: Wanted) -> Iterator[str]:
    """What the next run will do, once this one had begun."""
    if wanted.dry_run or wanted.report is None:
        return
    if wanted.checkpoint is None:
        yield "without --checkpoint the next run begins anew"
    elif wanted.checkpoint.has_saved:
        yield f"the same command goes on from {wanted.checkpoint.path}"
