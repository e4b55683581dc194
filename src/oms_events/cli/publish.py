"""`oms-events publish`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from oms_events.cli.common import POSITIVE_NUMBER, config_option, ends_cleanly, make_router, read_settings, run
from oms_events.cli.event_options import EventInput, takes_events
from oms_events.cli.parsing import Item, make_parser
from oms_events.cli.reading import open_input, read_batches
from oms_events.cli.report import Report
from oms_events.events import EncodedEvent
from oms_events.routing.router import EventRouter

OnBytes = Callable[[int], None]


@click.command()
@takes_events
@click.option(
    "--timeout",
    type=POSITIVE_NUMBER,
    metavar="SECONDS",
    help="The deadline of each batch, retries included.  [default: that of the settings, 30]",
)
@config_option
@ends_cleanly
def publish(*, given: EventInput, timeout: float | None, config_file: Path | None, as_json: bool) -> None:
    """Publish events through the routing rules.

    The event comes from the flags (--type ...) or from FILE (- for standard input): one JSON CloudEvent, an
    array of them, or one per line. FILE may be of any length and may be a pipe that never ends: it is read and
    published in batches of about a megabyte. What is no event is reported with its line, and harms no other.

    With --json there is one line per item of the input: the line where it stood, and the result on each
    platform, or the error.
    """
    router = make_router(read_settings(config_file))
    report = Report(as_json=as_json)
    try:
        with _progress(given, wanted=not (as_json and sys.stdout.isatty())) as on_bytes:
            run(_publish(router, given, report, timeout=timeout, on_bytes=on_bytes))
    finally:
        report.summarize()
    sys.exit(report.exit_code)


async def _publish(
    router: EventRouter, given: EventInput, report: Report, *, timeout: float | None, on_bytes: OnBytes
) -> None:
    async with router:
        async for items in _batches(given, on_bytes):
            events = [item.content for item in items if isinstance(item.content, EncodedEvent)]
            report.begin(len(events))
            report.add(items, await router.publish_events(events, timeout=timeout) if events else [])


async def _batches(given: EventInput, on_bytes: OnBytes) -> AsyncIterator[list[Item]]:
    if given.event is not None:
        yield [Item(0, given.event)]
        return
    with open_input(given.file) as file:
        async for items in read_batches(file, make_parser(given.form), on_bytes=on_bytes):
            yield items


@contextmanager
def _progress(given: EventInput, *, wanted: bool) -> Iterator[OnBytes]:
    """A bar on stderr for input from a file or a pipe, when stderr is a terminal."""
    if given.event is not None or not wanted or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("publishing"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    # A pipe has no size: its bar only moves.
    size = Path(given.file).stat().st_size if given.file != "-" else 0
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=size or None)
        yield lambda count: progress.advance(task, count)
