"""`oms-events replay archive`, `show`, `cancel` and `list`."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from oms_events._aws.config import AwsConfig
from oms_events.cli.common import ExitCode, ends_cleanly, run
from oms_events.cli.infra.options import takes_aws
from oms_events.cli.output import print_json, print_table, tell
from oms_events.cli.replay.showing import archive_bar, describe_archive_replay, show_archive_replay
from oms_events.errors import ConfigurationError
from oms_events.eventstore.replay.archive import ArchiveReplays
from oms_events.eventstore.replay.archive_replays import ArchiveReplay
from oms_events.eventstore.replay.config import new_replay_name
from oms_events.eventstore.time_ranges import TimeRange


@click.command()
@click.argument("archive")
@click.option(
    "--from", "start", required=True, metavar="TIME", help="From this time on: a time, or '2 hours ago'."
)
@click.option("--to", "end", default="now", show_default=True, metavar="TIME", help="Before this time.")
@click.option(
    "--rule", "rules", multiple=True, metavar="ARN", help="Only to this rule of the bus; may be repeated."
)
@click.option("--name", metavar="NAME", help="The replay's name.  [default: made of the time]")
@click.option("--follow/--no-follow", default=True, show_default=True, help="Wait until it has ended.")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@ends_cleanly
@takes_aws
def archive(
    *,
    archive: str,
    start: str,
    end: str,
    rules: Sequence[str],
    name: str | None,
    follow: bool,
    yes: bool,
    config: AwsConfig,
    as_json: bool,
) -> None:
    """Have EventBridge put the events of ARCHIVE, a name or an ARN, on their bus again.

    AWS does it, by the events' own times, minute by minute, in no order within a minute. Ctrl-C ends this command,
    not the replay. Ends with 1 when the replay did not complete.
    """
    now = datetime.now(UTC)
    try:
        time_range = TimeRange.parse(start, end, now=now)
    except ValueError as error:
        raise ConfigurationError("replay", [str(error)]) from None
    if not yes and sys.stdin.isatty():
        to = f"rules {', '.join(rules)}" if rules else "all rules of its bus"
        click.confirm(f"replay archive {archive} {time_range} to {to}?", abort=True, err=True)

    # Told before: whatever comes between, it can be looked for.
    name = name or new_replay_name(now, random.SystemRandom())
    tell(f"starting replay {name}")

    async def begin() -> ArchiveReplay:
        async with ArchiveReplays(config) as archives:
            return await archives.start(archive, time_range, name=name, rules=rules, on_warning=tell)

    try:
        found = run(begin())
    except (KeyboardInterrupt, asyncio.CancelledError):
        tell(f"stopped; it may have been started: oms-events replay show {name}")
        raise
    tell(f"started replay {found.name}")
    _end(_followed(found.name, config, as_json=as_json) if follow else found, as_json=as_json, waited=follow)


@click.command()
@click.argument("name")
@click.option("--follow", is_flag=True, help="Wait until it has ended.")
@ends_cleanly
@takes_aws
def show(*, name: str, follow: bool, config: AwsConfig, as_json: bool) -> None:
    """Show how far the replay NAME of an archive has come.

    With --follow it waits for the end; then it ends with 1 when the replay did not complete.
    """

    async def look() -> ArchiveReplay:
        async with ArchiveReplays(config) as archives:
            return await archives.describe(name)

    found = _followed(name, config, as_json=as_json) if follow else run(look())
    _end(found, as_json=as_json, waited=follow)


@click.command()
@click.argument("name")
@ends_cleanly
@takes_aws
def cancel(*, name: str, config: AwsConfig, as_json: bool) -> None:
    """End the replay NAME of an archive; what is on the bus stays there."""

    async def end() -> ArchiveReplay:
        async with ArchiveReplays(config) as archives:
            return await archives.cancel(name)

    show_archive_replay(run(end()), as_json=as_json)


@click.command("list")
@click.option("--archive", metavar="NAME", help="Only replays of this archive.")
@ends_cleanly
@takes_aws
def list_(*, archive: str | None, config: AwsConfig, as_json: bool) -> None:
    """List the replays of archives that AWS remembers."""

    async def read() -> list[ArchiveReplay]:
        async with ArchiveReplays(config) as archives:
            return [one async for one in archives.replays(archive)]

    found = run(read())
    if as_json:
        for one in found:
            print_json(describe_archive_replay(one))
    else:
        rows = [
            (one.name, one.state, f"{one.progress:.0%}", one.archive.rpartition("/")[2], one.start, one.end)
            for one in found
        ]
        print_table(("name", "state", "progress", "archive", "from", "to"), rows)


def _followed(name: str, config: AwsConfig, *, as_json: bool) -> ArchiveReplay:
    try:
        with archive_bar(wanted=not (as_json and sys.stdout.isatty())) as on_progress:

            async def follow() -> ArchiveReplay:
                async with ArchiveReplays(config) as archives:
                    return await archives.follow(name, on_progress=on_progress)

            return run(follow())
    except (KeyboardInterrupt, asyncio.CancelledError):
        tell(f"stopped looking; the replay goes on: oms-events replay show {name} --follow, or cancel {name}")
        raise


def _end(found: ArchiveReplay, *, as_json: bool, waited: bool) -> None:
    show_archive_replay(found, as_json=as_json)
    sys.exit(ExitCode.FAILED if waited and not found.is_complete else ExitCode.OK)
