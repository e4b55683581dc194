"""`oms-events outbox requeue`, `purge`, `bury` and `replan`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click

from oms_events.cli.common import ExitCode, config_option, ends_cleanly, run
from oms_events.cli.outbox.options import open_admin, takes_filter, warn_of_platform
from oms_events.cli.output import print_json, print_table, tell
from oms_events.cli.progress import counted, progress_bar
from oms_events.outbox.filters import EVERYTHING, OutboxFilter, place_of
from oms_events.outbox.selection import Changes, OnDone, Selection

_TOLD_FAILURES: Final = 20


@dataclass(frozen=True, slots=True)
class Change:
    """A change by its name: what it is for, and what has been done to it afterwards."""

    name: str
    of: str
    done: str
    columns: tuple[str, str, str, str]


_COLUMNS: Final = ("platform", "code", "one of the reasons", "dead letters")
REQUEUE: Final = Change("requeue", "dead letter", "requeued", _COLUMNS)
PURGE: Final = Change("purge", "dead letter", "purged", _COLUMNS)
BURY: Final = Change("bury", "record", "buried", ("platforms", "rule", "one of the last errors", "records"))
REPLAN: Final = Change("replan", "record", "replanned", ("platforms", "rule", "strategy", "records"))
_OF_LETTERS: Final = (REQUEUE, PURGE)

_OPTIONS: Final = (
    click.argument("ids", metavar="[ID]...", nargs=-1),
    takes_filter,
    click.option("--all", "everything", is_flag=True, help="All there are."),
    click.option("--dry-run", is_flag=True, help="Say what would be changed, and change nothing."),
    click.option("--yes", is_flag=True, help="Do not ask first; only on a terminal it is asked at all."),
    config_option,
    ends_cleanly,
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line says."""

    ids: Sequence[str]
    where: OutboxFilter
    dry_run: bool
    yes: bool
    config_file: Path | None
    as_json: bool
    reason: str = ""


def _changes(command: Callable[[Wanted], None]) -> Callable[..., None]:
    """Gives a command what all changes take, as one `Wanted`."""

    @functools.wraps(command)
    def with_options(*, everything: bool, **options: Any) -> None:
        wanted = Wanted(**options)
        is_selected = bool(wanted.ids) or wanted.where != EVERYTHING
        if everything and is_selected:
            raise click.UsageError("--all excludes ids and filters; give one of them")
        if not everything and not is_selected:
            raise click.UsageError("nothing is selected; give ids, a filter such as --platform, or --all")
        command(wanted)

    decorated: Callable[..., None] = with_options
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


@click.command()
@_changes
def requeue(wanted: Wanted) -> None:
    """Deliver dead letters again, to the platforms that refused them.

    ID is a dead letter's id, as `list` shows it, or an event's id or identity. A held one is delivered in its
    place, any other after what was added meanwhile; an unroutable one goes where the rules say now.
    """
    _carry_out(REQUEUE, wanted)


@click.command()
@_changes
def purge(wanted: Wanted) -> None:
    """Remove dead letters for good: nobody will deliver these events there.

    ID is a dead letter's id, as `list` shows it, or an event's id or identity. The key of a held one goes on.
    """
    _carry_out(PURGE, wanted)


@click.command()
@click.option("--reason", required=True, metavar="TEXT", help="Why; the dead letter says it.")
@_changes
def bury(wanted: Wanted) -> None:
    """Give pending records up: each becomes a dead letter of the platforms that are owed it; its key goes on.

    ID is a pending record's id, as `list --pending` shows it, or an event's id or identity. What a processor has
    at hand at this moment it may still deliver. The dead letter can be requeued, or purged.
    """
    _carry_out(BURY, wanted)


@click.command()
@_changes
def replan(wanted: Wanted) -> None:
    """Let the rules of today decide on pending records whose plan was recorded.

    ID is a pending record's id, as `list --pending` shows it, or an event's id or identity. Where an event has
    been delivered, it is not delivered again. Processors decide by their own rules, when they read the record
    again; what one is publishing at this moment it completes by the old plan.
    """
    _carry_out(REPLAN, wanted)


def _carry_out(change: Change, wanted: Wanted) -> None:
    shows_bar = not (wanted.as_json and sys.stdout.isatty())
    with progress_bar(f"looking for {change.of}s", wanted=shows_bar):
        selection = run(_select(change, wanted))
    count = len(selection.chosen)
    if not wanted.as_json and selection.groups:
        groups = [(group.platform, group.code, group.text, group.count) for group in selection.groups]
        print_table(change.columns, groups)
    for id in selection.missing:  # noqa: A001
        tell(f"{id}: {_missing(change, id)}")
    changes = Changes()
    if not wanted.dry_run and count:
        if not wanted.yes and sys.stdin.isatty():
            click.confirm(f"{change.name} {counted(count, change.of)}?", abort=True, err=True)
        with progress_bar(change.name, total=count, wanted=shows_bar) as on_done:
            changes = run(_change(change, wanted, selection, on_done))
    _report(change, wanted, selection, changes)
    sys.exit(ExitCode.FAILED if changes.failed or changes.stopped or selection.missing else ExitCode.OK)


async def _select(change: Change, wanted: Wanted) -> Selection:
    async with open_admin(wanted.config_file) as admin:
        select = admin.select
        if change not in _OF_LETTERS:
            select = admin.select_planned if change is REPLAN else admin.select_pending
        selection = await select(wanted.where, ids=wanted.ids)
        if not selection.chosen:
            await warn_of_platform(admin, wanted.where, pending=change not in _OF_LETTERS)
        return selection


async def _change(change: Change, wanted: Wanted, selection: Selection, on_done: OnDone) -> Changes:
    async with open_admin(wanted.config_file) as admin:
        if change is BURY:
            return await admin.bury(selection, wanted.reason, on_done=on_done)
        carry_out = {REQUEUE: admin.requeue, PURGE: admin.purge, REPLAN: admin.replan}[change]
        return await carry_out(selection, on_done=on_done)


def _missing(change: Change, id: str) -> str:  # noqa: A002
    if change in _OF_LETTERS and place_of(id) is not None:
        remedy = "give it up with `oms-events outbox bury` first" if change is PURGE else "it will be delivered"
        return f"this is the id of a pending record, and of no dead letter: {remedy}"
    text = f"no such one among the {change.of}s"
    return f"{text}; if it is pending, give it up with `oms-events outbox bury` first" if change is PURGE else text


def _report(change: Change, wanted: Wanted, selection: Selection, changes: Changes) -> None:
    count = len(selection.chosen)
    if wanted.as_json:
        found = {
            "selected": count,
            "groups": [asdict(group) for group in selection.groups],
            "missing": selection.missing,
            "dry_run": wanted.dry_run,
        }
        print_json(found if wanted.dry_run else {**found, **asdict(changes)})
        return
    for number, (id, reason) in enumerate(changes.failed.items()):  # noqa: A001
        if number == _TOLD_FAILURES:
            tell(f"... {len(changes.failed) - number} more failed; --json tells of each")
            break
        tell(f"{id}: {reason}")
    if wanted.dry_run:
        click.echo(f"{counted(count, change.of)} would be {change.done}")
        return
    parts = [f"{changes.done} of {counted(count, change.of)} {change.done}"]
    if changes.gone:
        parts.append(f"{changes.gone} already gone")
    if changes.unsure:
        parts.append(f"{changes.unsure} {change.done} or already gone (an answer was lost)")
    if changes.failed:
        parts.append(f"{len(changes.failed)} failed")
    if left := count - changes.done - changes.gone - changes.unsure - len(changes.failed):
        parts.append(f"{left} not tried, because {changes.stopped}")
    click.echo("; ".join(parts))
