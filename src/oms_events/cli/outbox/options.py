"""What the outbox's commands share: filters, times, an open outbox."""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from oms_events.cli.common import read_settings
from oms_events.cli.output import tell
from oms_events.outbox.admin import OutboxAdmin
from oms_events.outbox.filters import OutboxFilter
from oms_events.routing.patterns import Pattern, compile_pattern

_AGO: Final = re.compile(
    r"(\d+(?:\.\d+)?)\s*(?:(s|sec|seconds?)|(m|min|minutes?)|(h|hours?)|(d|days?)|(w|weeks?))(?:\s+ago)?"
)
_UNITS: Final = ("seconds", "minutes", "hours", "days", "weeks")


def to_time(text: str) -> datetime:
    """A date and time, or how long ago. Raises `BadParameter`."""
    if found := _AGO.fullmatch(text.strip().lower()):
        amount, *units = found.groups()
        unit = next(name for name, given in zip(_UNITS, units, strict=True) if given)
        try:
            return datetime.now(UTC) - timedelta(**{unit: float(amount)})
        except OverflowError:
            raise click.BadParameter(f"{text!r} is too long ago") from None
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no time; write 2026-01-31, 2026-01-31T12:00:00+01:00, '90 minutes ago' or 2d"
        ) from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def to_pattern(text: str) -> Pattern:
    """A regular expression for whole event types, as in rules. Raises `BadParameter`."""
    try:
        return compile_pattern(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


_FILTERS: Final = (
    click.option("--platform", metavar="NAME", help="Only those of this platform."),
    click.option(
        "--type",
        "event_type",
        type=to_pattern,
        metavar="PATTERN",
        help="Only event types that this regular expression matches as a whole, as in rules.",
    ),
    click.option(
        "--since", type=to_time, metavar="TIME", help="Only from this time on: a date, a time, or '1 hour ago'."
    ),
    click.option("--until", type=to_time, metavar="TIME", help="Only before this time."),
    click.option("--key", metavar="TEXT", help="Only events with this order key."),
    click.option("--event-id", metavar="ID", help="Only the event with this id, or identity (id@source)."),
)


def takes_filter(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the flags of a filter, as one `OutboxFilter` named `where`."""

    @functools.wraps(command)
    def with_filter(**options: Any) -> None:
        names = ("platform", "event_type", "since", "until", "key", "event_id")
        where = OutboxFilter(**{name: options.pop(name) for name in names})
        if where.since is not None and where.until is not None and where.since >= where.until:
            tell(f"--since ({where.since}) is not before --until ({where.until}): nothing is in between")
        command(where=where, **options)

    decorated: Callable[..., None] = with_filter
    for option in reversed(_FILTERS):
        decorated = option(decorated)
    return decorated


@asynccontextmanager
async def open_admin(config_file: Path | None) -> AsyncIterator[OutboxAdmin]:
    """The admin of the settings' outbox, which is open for as long."""
    async with read_settings(config_file).create_outbox() as outbox:
        yield OutboxAdmin(outbox)


async def warn_of_platform(admin: OutboxAdmin, where: OutboxFilter, *, pending: bool) -> None:
    """Says, when nothing was found, that the platform of the filter may be the reason."""
    if where.platform is None:
        return
    if pending:
        tell(f"nothing that was found waits for platform {where.platform!r}, as far as plans are recorded")
        return
    async for _ in admin.letters(OutboxFilter(platform=where.platform)):
        return
    tell(f"there is no dead letter of platform {where.platform!r}; oms-events outbox status shows whose there are")
