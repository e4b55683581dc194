"""`oms-events trigger next`, and `trigger schedule show`, `pause`, `resume` and `set`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime, tzinfo
from itertools import islice
from typing import Any, TypeVar

import click

from oms_events._aws.config import AwsConfig
from oms_events.cli.common import ExitCode, ends_cleanly, run
from oms_events.cli.infra.options import takes_aws
from oms_events.cli.output import print_fields, print_json, print_table, tell
from oms_events.cli.trigger.zones import to_zone
from oms_events.eventstore.time_ranges import parse_time
from oms_events.triggers.deployed_schedules import (
    DEFAULT_BUS,
    DeployedSchedule,
    DeployedSchedules,
    ScheduleChange,
)
from oms_events.triggers.schedule_times import next_runs
from oms_events.triggers.schedule_words import explain_schedule
from oms_events.triggers.schedules import Cron, Rate, parse_schedule

T = TypeVar("T")
Command = Callable[..., None]


def to_schedule(text: str) -> Cron | Rate:
    """The schedule of an expression. Raises `BadParameter`."""
    try:
        return parse_schedule(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def to_time(text: str) -> datetime:
    """A time, which may be to come. Raises `BadParameter`."""
    try:
        return parse_time(text, now=datetime.now(UTC))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("next")
@click.argument("schedule", metavar="EXPRESSION", type=to_schedule)
@click.option(
    "--tz", "zone", type=to_zone, default="UTC", show_default=True, metavar="ZONE",
    help="Show times in this zone too, such as Asia/Seoul.",
)  # fmt: skip
@click.option("--count", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many runs.")
@click.option(
    "--after", type=to_time, default="now", show_default=True, metavar="TIME",
    help="Only runs after this time; a rate counts from it.",
)  # fmt: skip
@ends_cleanly
def next_(*, schedule: Cron | Rate, zone: tzinfo, count: int, after: datetime, as_json: bool) -> None:
    """Say in words when a schedule runs, and show its next runs.

    EXPRESSION is EventBridge's, in UTC: "cron(0 22 * * ? *)" or "rate(5 minutes)". Ends with 1 when it never runs
    again.
    """
    words = explain_schedule(schedule)
    runs = list(islice(next_runs(schedule, after=after.replace(microsecond=0)), count))
    if as_json:
        described = [{"utc": _iso(run), "local": _iso(run.astimezone(zone))} for run in runs]
        print_json({"expression": str(schedule), "words": words, "zone": str(zone), "runs": described})
    else:
        click.echo(words)
        _print_runs(runs, zone, seconds=isinstance(schedule, Rate))
    if isinstance(schedule, Rate):
        tell("a rate counts from when its rule was made, which EventBridge does not tell; here from --after")
    if len(runs) < count:
        tell("it does not run after that" if runs else f"it does not run after {_iso(after)}")
    sys.exit(ExitCode.OK if runs else ExitCode.FAILED)


@click.group()
def schedule() -> None:
    """The schedules of deployed EventBridge rules.

    What is changed here holds until a deployment that changes the rule sets it back: change the stack too.
    """


def _takes_rule(command: Command) -> Command:
    """Gives a command RULE, --bus and what leads to AWS."""

    @click.argument("rule")
    @click.option("--bus", default=DEFAULT_BUS, show_default=True, metavar="NAME", help="The rule's event bus.")
    @ends_cleanly
    @takes_aws
    @functools.wraps(command)
    def with_rule(**options: Any) -> None:
        command(**options)

    return with_rule


_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be changed, and change nothing.")


@schedule.command()
@_takes_rule
def show(*, rule: str, bus: str, config: AwsConfig, as_json: bool) -> None:
    """Show the schedule of the rule RULE, in words too, and its next run."""
    found = _ask(config, lambda schedules: schedules.show(rule, bus=bus))
    if as_json:
        print_json(_described(found))
        return
    parsed = found.schedule
    if found.expression is None:
        words = "no schedule: it is for events"
    else:
        words = explain_schedule(parsed) if parsed is not None else "not an expression that can be read here"
    # Of a rate nobody but EventBridge knows when it began.
    coming = _next_run(parsed) if isinstance(parsed, Cron) else None
    print_fields(
        {
            "rule": found.name,
            "bus": found.bus,
            "state": found.state,
            "schedule": found.expression,
            "means": words,
            "next run": None if found.is_paused else coming,
            "description": found.description,
            "managed by": found.managed_by,
        }
    )


@schedule.command()
@_dry_run
@_takes_rule
def pause(*, rule: str, bus: str, dry_run: bool, config: AwsConfig, as_json: bool) -> None:
    """Stop the rule RULE from running until it is resumed.

    Runs that have begun go on, and those that it misses are not made up for.
    """
    change = _ask(config, lambda schedules: schedules.pause(rule, bus=bus, dry_run=dry_run))
    _show_change(change, "paused", dry_run=dry_run, as_json=as_json)


@schedule.command()
@_dry_run
@_takes_rule
def resume(*, rule: str, bus: str, dry_run: bool, config: AwsConfig, as_json: bool) -> None:
    """Let the rule RULE run again, from its next time on."""
    change = _ask(config, lambda schedules: schedules.resume(rule, bus=bus, dry_run=dry_run))
    _show_change(change, "resumed", dry_run=dry_run, as_json=as_json)


@schedule.command("set")
@click.argument("rule")
@click.argument("new", metavar="EXPRESSION", type=to_schedule)
@_dry_run
@click.option("--bus", default=DEFAULT_BUS, show_default=True, metavar="NAME", help="The rule's event bus.")
@ends_cleanly
@takes_aws
def set_(*, rule: str, new: Cron | Rate, bus: str, dry_run: bool, config: AwsConfig, as_json: bool) -> None:
    """Give the rule RULE another schedule, such as "cron(0 21 * * ? *)", in UTC.

    Its targets, its tags and whether it is paused stay as they are.
    """
    change = _ask(config, lambda schedules: schedules.set(rule, str(new), bus=bus, dry_run=dry_run))
    if not as_json:
        click.echo(explain_schedule(new))
    _show_change(change, f"set to {new}", dry_run=dry_run, as_json=as_json)


def _ask(config: AwsConfig, question: Callable[[DeployedSchedules], Awaitable[T]]) -> T:
    async def ask() -> T:
        async with DeployedSchedules(config) as schedules:
            return await question(schedules)

    return run(ask())


def _show_change(change: ScheduleChange, done: str, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        described = {"before": _described(change.before), "after": _described(change.after)}
        print_json({"changed": not (dry_run or change.is_empty), "dry_run": dry_run, **described})
    elif change.is_empty:
        click.echo(f"rule {change.after.name}: nothing to change")
    else:
        was = change.before.expression if change.before.state == change.after.state else change.before.state
        click.echo(f"rule {change.after.name}: {'would be ' if dry_run else ''}{done} (was {was})")
    if change.is_empty:
        return
    if change.after.is_paused and not change.before.is_paused:
        tell(f"resume it with `oms-events trigger schedule resume {change.after.name}`")
    elif change.after.is_paused:
        tell("the rule is paused, and stays so")
    tell("a deployment that changes the rule sets this back: change the stack too")


def _described(found: DeployedSchedule) -> dict[str, Any]:
    parsed = found.schedule
    return {
        **asdict(found),
        "paused": found.is_paused,
        "words": None if parsed is None else explain_schedule(parsed),
    }


def _next_run(cron: Cron) -> str | None:
    coming = next(next_runs(cron, after=datetime.now(UTC)), None)
    return None if coming is None else _shown(coming)


def _print_runs(runs: list[datetime], zone: tzinfo, *, seconds: bool) -> None:
    if not runs:
        return
    headers = ["UTC"] if zone is UTC else [str(zone), "UTC"]
    zones = [UTC] if zone is UTC else [zone, UTC]
    print_table(headers, [[_shown(run.astimezone(one), seconds=seconds) for one in zones] for run in runs])


def _shown(time: datetime, *, seconds: bool = False) -> str:
    """With its weekday and, but for UTC, its offset: with summer time that changes."""
    offset = "" if time.tzinfo is UTC else f" {time.isoformat()[19:]}"
    return f"{time:%a %Y-%m-%d %H:%M}{f':{time:%S}' if seconds else ''}{offset}"


def _iso(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z") if time.tzinfo is UTC else time.isoformat()
