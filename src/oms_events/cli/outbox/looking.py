"""`oms-events outbox list` and `oms-events outbox show`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import click
import orjson

from oms_events._text import one_line
from oms_events.cli.common import ExitCode, config_option, ends_cleanly, run
from oms_events.cli.outbox.describing import (
    LETTER_COLUMNS,
    RECORD_COLUMNS,
    describe,
    letter_row,
    plan_in_words,
    record_row,
)
from oms_events.cli.outbox.options import open_admin, takes_filter, warn_of_platform
from oms_events.cli.output import print_fields, print_json, print_table, tell
from oms_events.outbox.filters import OutboxFilter, is_letter_id, record_id
from oms_events.outbox.records import DeadLetter, StoredRecord

Found = DeadLetter | StoredRecord


@click.command("list")
@click.option("--pending", is_flag=True, help="List what waits to be delivered, instead of dead letters.")
@takes_filter
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Show so many at most.")
@click.option("--after", metavar="ID", help="Go on after this id, the last one that was shown.")
@config_option
@ends_cleanly
def list_(
    *,
    pending: bool,
    where: OutboxFilter,
    limit: int,
    after: str | None,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """List dead letters, or with --pending what waits to be delivered.

    Times are when the platform gave up or, of pending records, when they were added. A pending record belongs to a
    platform once its plan is recorded, which happens when it could not be delivered everywhere at once.
    """
    found, has_more = run(_list(config_file, where, pending=pending, limit=limit, after=after))
    if as_json:
        for one in found:
            print_json(describe(one))
    elif pending:
        print_table(RECORD_COLUMNS, [record_row(one) for one in found if isinstance(one, StoredRecord)])
    else:
        print_table(LETTER_COLUMNS, [letter_row(one) for one in found if isinstance(one, DeadLetter)])
    if has_more:
        tell(f"there are more: --after '{_id(found[-1])}'")


async def _list(
    config_file: Path | None, where: OutboxFilter, *, pending: bool, limit: int, after: str | None
) -> tuple[list[Found], bool]:
    if after is not None and not pending and not is_letter_id(after):
        tell(f"--after {after!r} is no id of a dead letter; take one that a list shows")
    async with open_admin(config_file) as admin:
        source: AsyncIterator[Found] = (
            admin.records(where, after=after) if pending else admin.letters(where, after=after)
        )
        found: list[Found] = []
        async for one in source:
            if len(found) == limit:
                return found, True
            found.append(one)
        if not found:
            await warn_of_platform(admin, where, pending=pending)
    return found, False


@click.command()
@click.argument("id")
@config_option
@ends_cleanly
def show(*, id: str, config_file: Path | None, as_json: bool) -> None:  # noqa: A002
    """Show a dead letter or pending record whole: event, plan, states, reason and history.

    ID is its own id, as `list` shows it, or the event's id or identity (id@source); to find an event, the whole
    outbox is read. Ends with 1 when there is none.
    """
    found = run(_find(config_file, id))
    for number, one in enumerate(found):
        if as_json:
            print_json(describe(one, whole=True))
            continue
        if number:
            click.echo()
        _print(one)
    if not found:
        tell(f"the outbox has no dead letter and no pending record {id!r}")
        sys.exit(ExitCode.FAILED)


async def _find(config_file: Path | None, id: str) -> list[Found]:  # noqa: A002
    async with open_admin(config_file) as admin:
        return list(await admin.find(id))


def _print(found: Found) -> None:
    fields = dict(describe(found))
    history: list[dict[str, Any]] = fields.pop("history")
    fields.pop("event")
    plan = found.plan if isinstance(found, DeadLetter) else found.state.plan
    fields["plan"] = None if plan is None else plan_in_words(plan)
    print_fields({name.replace("_", " "): _text(value) for name, value in fields.items()})
    for entry in history:
        click.echo(one_line("before   " + ", ".join(f"{name} {value}" for name, value in entry.items())))
    shown = found.raw if found.event is None else orjson.loads(found.event.json)
    if shown is not None:
        for line in orjson.dumps(shown, option=orjson.OPT_INDENT_2, default=str).decode().split("\n"):
            click.echo(one_line(line))


def _text(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items()) or None
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return value


def _id(found: Found) -> str:
    return found.id if isinstance(found, DeadLetter) else record_id(found)
