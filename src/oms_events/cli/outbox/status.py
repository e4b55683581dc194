"""`oms-events outbox status`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from oms_events.cli.common import ExitCode, config_option, ends_cleanly, read_settings, run
from oms_events.cli.output import print_fields, print_json, print_table, tell
from oms_events.errors import StorageError
from oms_events.outbox.admin import OutboxAdmin
from oms_events.outbox.status import BucketStatus, OutboxStatus
from oms_events.settings import Settings

UNMEASURED = "not measurable"


@click.command()
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Count up to this many records per partition and dead letters per platform.",
)
@click.option("--no-wait", is_flag=True, help="Do not wait for heartbeats to tell which processors are alive.")
@config_option
@ends_cleanly
def status(*, limit: int, no_wait: bool, config_file: Path | None, as_json: bool) -> None:
    """Show what waits, who relays it, and what is dead.

    Counting reads what it counts. Waits for two heartbeats at most to see which processors are alive. Ends with 1
    when something could not be read: that is said, and never shown as zero.
    """
    settings = read_settings(config_file)
    watch = 0.0 if no_wait else 2 * settings.processor.heartbeat
    found = run(_read(settings, limit=limit, watch=watch))
    _warn_of_buckets(settings, found)
    if as_json:
        print_json(_described(found))
    else:
        _print(found)
    for part, problem in found.problems.items():
        tell(f"{part} {UNMEASURED}: {problem}")
    sys.exit(ExitCode.FAILED if found.problems else ExitCode.OK)


async def _read(settings: Settings, *, limit: int, watch: float) -> OutboxStatus:
    outbox = settings.create_outbox()
    try:
        async with outbox:
            return await OutboxAdmin(outbox).status(limit=limit, watch=watch)
    except StorageError as error:
        return OutboxStatus(outbox.store.table, problems={"table": str(error)})


def _warn_of_buckets(settings: Settings, found: OutboxStatus) -> None:
    wanted = None if settings.outbox is None else settings.outbox.buckets
    opened = next((epoch for epoch in found.epochs or () if epoch.is_open), None)
    if wanted is not None and opened is not None and opened.buckets != wanted:
        tell(
            f"the settings have buckets = {wanted}, but the table has {opened.buckets}: writers with these "
            f"settings fail; set {opened.buckets} (OMS_OUTBOX_BUCKETS), or change the table (oms-events outbox "
            f"buckets {wanted})"
        )


def _described(found: OutboxStatus) -> Mapping[str, Any]:
    return {
        "table": found.table,
        "measured": not found.problems,
        "pending": found.pending,
        "bounded": found.bounded,
        "oldest_age": found.oldest_age,
        "epochs": found.epochs,
        "buckets": None if found.buckets is None else list(map(_described_bucket, found.buckets)),
        "reasons": found.reasons,
        "processors": found.members,
        "dead_letters": found.dead_letters,
        "problems": found.problems,
    }


def _described_bucket(bucket: BucketStatus) -> Mapping[str, Any]:
    return {
        "epoch": bucket.bucket.epoch,
        "bucket": bucket.bucket.number,
        "pending": bucket.pending,
        "bounded": bucket.bounded,
        "oldest_age": bucket.oldest_age,
        "owner": bucket.owner,
        "problem": bucket.problem,
    }


def _print(found: OutboxStatus) -> None:
    epochs = found.epochs
    print_fields(
        {
            "table": found.table,
            "layouts": UNMEASURED if epochs is None else ", ".join(map(_epoch, epochs)) or "none yet",
            "pending": UNMEASURED if found.pending is None else _count(found.pending, bounded=found.bounded),
            "oldest": UNMEASURED if found.pending is None else _age(found.oldest_age),
            "processors": UNMEASURED if found.members is None else len(found.members) or "none",
            "dead letters": UNMEASURED
            if found.dead_letters is None
            else _count(
                sum(one.count for one in found.dead_letters),
                bounded=any(one.bounded for one in found.dead_letters),
            ),
        }
    )
    if found.members:
        info = sorted({name for member in found.members for name in member.info})
        _print_part(
            ("processor", "alive", "buckets", *(name.replace("_", " ") for name in info)),
            [(one.id, one.alive, one.buckets, *map(one.info.get, info)) for one in found.members],
        )
    if busy := [one for one in found.buckets or () if one.pending != 0]:
        _print_part(
            ("bucket", "pending", "oldest", "relayed by"),
            [
                (
                    f"{one.bucket.epoch}/{one.bucket.number}",
                    UNMEASURED if one.pending is None else _count(one.pending, bounded=one.bounded),
                    _age(one.oldest_age),
                    one.owner,
                )
                for one in busy
            ],
        )
    if found.reasons:
        _print_part(
            ("why they wait", "of the first", "one of the last errors"),
            [(reason.code, reason.count, reason.example) for reason in found.reasons],
        )
    if found.dead_letters:
        _print_part(
            ("platform", "dead letters", "code", "of them", "one of the reasons"),
            [
                (one.platform, _count(one.count, bounded=one.bounded), reason.code, reason.count, reason.example)
                for one in found.dead_letters
                for reason in one.reasons
            ],
        )


def _print_part(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    click.echo()
    print_table(columns, rows)


def _epoch(epoch: Any) -> str:
    return f"{epoch.number} ({epoch.buckets} buckets, {'open' if epoch.is_open else 'closed'})"


def _count(count: int, *, bounded: bool) -> str:
    return f"{count}+" if bounded else str(count)


def _age(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
