"""How replays are shown, while they run and in the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import click

from oms_events.cli.output import print_fields, print_json, print_table, tell
from oms_events.cli.progress import counted
from oms_events.eventstore.replay.archive_replays import ArchiveReplay
from oms_events.eventstore.replay.report import ReplayFailure, ReplayReport

NO_RULE: Final = "(no rule)"
_TOLD: Final = 20
_NUMBERS: Final = ("read", "matched", "delivered", "rejected", "failed", "unrouted", "duplicates")
_DRY: Final = ("read", "matched", "unrouted", "failed")


class Failures:
    """Tells of the first events that were not delivered; with JSON of each."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._count = 0

    def __call__(self, failure: ReplayFailure) -> None:
        self._count += 1
        if self._as_json:
            names = ("kind", "position", "event_type", "event_id", "reasons")
            print_json({name: getattr(failure, name) for name in names})
        elif self._count <= _TOLD:
            tell(str(failure))

    def finish(self) -> None:
        if self._count > _TOLD and not self._as_json:
            tell(f"... {self._count - _TOLD} more were not delivered; --json tells of each")


def show_report(report: ReplayReport, *, as_json: bool, dry_run: bool) -> None:
    """Prints what a replay did, or would do."""
    numbers = {name: getattr(report, name) for name in (_DRY if dry_run else _NUMBERS)}
    by_rule = {NO_RULE if name is None else name: count for name, count in report.by_rule.items()}
    if as_json:
        print_json(
            {
                "name": report.name,
                "start": report.time_range.start,
                "end": report.time_range.end,
                "dry_run": dry_run,
                "resumed": report.resumed,
                "complete": report.complete,
                **numbers,
                "by_type": report.by_type,
                "by_rule": by_rule,
                "by_platform": report.by_platform,
            }
        )
        return
    print_fields({"replay": report.name, "events": str(report.time_range), **numbers})
    parts: Mapping[str, Mapping[str, int]] = {
        "event type": report.by_type,
        "rule": by_rule,
        "platform": report.by_platform,
    }
    for title, counts in parts.items():
        if counts:
            click.echo()
            most_first = sorted(counts, key=lambda name: (-counts[name], name))
            print_table((title, "events"), [(name, counts[name]) for name in most_first])


def tell_oddities(report: ReplayReport) -> None:
    """Says what the numbers do not: what no consumer saw, and what nobody took."""
    if report.duplicates:
        tell(
            f"{counted(report.duplicates, 'event')} were dropped as duplicates by a platform that had them "
            "already (JetStream does so within its duplicate window): their consumers saw nothing"
        )
    if not (report.matched or report.failed or report.resumed):
        tell("nothing matched: check the types, the times, the rule and the table")
    if report.unrouted:
        tell(f"no rule takes {counted(report.unrouted, 'event')}; --platform sends them all the same")


class EventBar:
    """Shows on stderr, while `shown`, how many events were read, and what became of them."""

    def __init__(self) -> None:
        self._show: Callable[[ReplayReport], None] = lambda _: None

    def __call__(self, report: ReplayReport) -> None:
        self._show(report)

    @contextmanager
    def shown(self, *, total: int | None, dry_run: bool) -> Iterator[None]:
        """Until the end of the block; `total` is about how many items there are, where all are read."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        title = "counting" if dry_run else "replaying"
        columns = (TextColumn(title), BarColumn(), TextColumn("{task.fields[shown]}"), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("", total=total, shown="")

            def show(report: ReplayReport) -> None:
                # Of a table of which a part was done before, nobody knows how much is left.
                of_all = None if report.resumed else total
                read = f"{report.read} read" if of_all is None else f"{report.read} of about {of_all} read"
                done = f"{report.matched} matched" if dry_run else f"{report.delivered} delivered"
                progress.update(task, total=of_all, completed=report.read, shown=f"{read}, {done}")

            self._show = show
            try:
                yield
            finally:
                self._show = lambda _: None


@contextmanager
def archive_bar(*, wanted: bool) -> Iterator[Callable[[ArchiveReplay], None]]:
    """How far AWS has come, on stderr, when that is a terminal."""
    if not wanted or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.fields[state]}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=1.0, state="STARTING")
        yield lambda found: progress.update(task, completed=found.progress, state=found.state)


def describe_archive_replay(found: ArchiveReplay) -> Mapping[str, Any]:
    """All there is to know of it."""
    return {
        "name": found.name,
        "state": found.state,
        "reason": found.reason,
        "archive": found.archive,
        "bus": found.bus,
        "rules": list(found.rules),
        "start": found.start,
        "end": found.end,
        "reached": found.reached,
        "progress": round(found.progress, 4),
        "began": found.began,
        "ended": found.ended,
    }


def show_archive_replay(found: ArchiveReplay, *, as_json: bool) -> None:
    """Prints a replay of an archive."""
    described = describe_archive_replay(found)
    if as_json:
        print_json(described)
        return
    shown = {name: value for name, value in described.items() if value not in ("", None, [])}
    shown["progress"] = f"{found.progress:.0%}"
    if found.rules:
        shown["rules"] = ", ".join(found.rules)
    print_fields(shown)
