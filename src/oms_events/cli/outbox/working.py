"""`oms-events outbox drain` and `oms-events outbox run`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import click

from oms_events._aio import cancel_and_wait
from oms_events.cli.common import ExitCode, config_option, ends_cleanly, make_router, read_settings, run
from oms_events.cli.outbox.options import progress_bar
from oms_events.cli.output import print_json, tell
from oms_events.instrumentation.hooks import BreakerChanged, DeadLettered, Detail, Hook, LeaseChanged, OutboxAlert
from oms_events.outbox.admin import OutboxAdmin
from oms_events.outbox.processor import OutboxProcessor
from oms_events.outbox.selection import OnDone
from oms_events.outbox.status import OutboxStatus
from oms_events.settings import Settings

_LOOK_EVERY: Final = 0.2
_COUNTED: Final = 100_000


@click.command()
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up after so long.",
)
@config_option
@ends_cleanly
def drain(*, timeout: float, config_file: Path | None, as_json: bool) -> None:
    """Deliver all that waits, in this process, and end.

    Other processors may go on meanwhile. Ends with 1 when something remains, such as events whose platform is
    down, or those of a key that is held.
    """
    settings = read_settings(config_file)
    done, status, left = run(_drain(settings, timeout, shows_bar=not (as_json and sys.stdout.isatty())))
    found = {"drained": done, "delivered": status["delivered"], "dead_lettered": status["dead_lettered"]}
    if as_json:
        print_json({**found, "pending": left.pending, "bounded": left.bounded})
    else:
        rest = "unknown" if left.pending is None else f"{left.pending}{'+' if left.bounded else ''}"
        click.echo(
            f"{status['delivered']} records delivered, {status['dead_lettered']} dead letters made, {rest} remain"
        )
    sys.exit(ExitCode.OK if done else ExitCode.FAILED)


async def _drain(
    settings: Settings, timeout: float, *, shows_bar: bool
) -> tuple[bool, dict[str, Any], OutboxStatus]:
    async with _processor(settings, hooks=[_tell_troubles]) as (processor, admin):
        before = await admin.status(limit=_COUNTED)
        with progress_bar("draining", total=before.pending, wanted=shows_bar) as on_done:
            watching = asyncio.create_task(_watch(processor, on_done), name="oms-events-drain-progress")
            try:
                async with processor:
                    done = await processor.drain(timeout)
                    status = processor.status()
            finally:
                await cancel_and_wait(watching)
        return done, status, await admin.status()


async def _watch(processor: OutboxProcessor, on_done: OnDone) -> None:
    shown = 0
    while True:
        status = processor.status()
        now = status["delivered"] + status["dead_lettered"]
        on_done(now - shown)
        shown = now
        await asyncio.sleep(_LOOK_EVERY)


@click.command("run")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    metavar="PORT",
    help="Serve Prometheus metrics on this port; 0 takes a free one.",
)
@click.option(
    "--metrics-host", default="127.0.0.1", show_default=True, metavar="HOST", help="The address to serve them on."
)
@config_option
@ends_cleanly
def work(*, metrics_port: int | None, metrics_host: str, config_file: Path | None, as_json: bool) -> None:
    """Relay the outbox until Ctrl-C or SIGTERM, beside any number of other processors.

    Then it finishes what is in flight and gives its buckets up at once; such a stop is its normal end (0). Dead
    letters and alerts are told on stderr. With --json it prints what it did at the end.
    """
    settings = read_settings(config_file)
    status = run(_work(settings, metrics_port=metrics_port, metrics_host=metrics_host))
    if as_json:
        print_json(status)
    else:
        click.echo(f"{status['delivered']} records delivered, {status['dead_lettered']} dead letters made")


async def _work(settings: Settings, *, metrics_port: int | None, metrics_host: str) -> dict[str, Any]:
    hooks: list[Hook] = [_tell_troubles]
    with nullcontext() if metrics_port is None else _metrics(metrics_port, metrics_host, hooks):
        async with _processor(settings, hooks=hooks) as (processor, _):
            tell(f"relaying {settings.create_outbox().store.table}; Ctrl-C stops")
            try:
                await processor.run()
            except asyncio.CancelledError:
                tell("stopped")
            return processor.status()


@contextmanager
def _metrics(port: int, host: str, hooks: list[Hook]) -> Iterator[None]:
    # Imported here, so that the extra is needed only by those who ask for metrics.
    from oms_events.instrumentation.metrics_server import make_registry, serve_metrics
    from oms_events.instrumentation.prometheus import PrometheusHook

    registry = make_registry()
    hooks.append(PrometheusHook(registry))
    with serve_metrics(registry, port=port, host=host) as served:
        tell(f"metrics on http://{host}:{served}/metrics")
        yield


@asynccontextmanager
async def _processor(
    settings: Settings, *, hooks: list[Hook]
) -> AsyncIterator[tuple[OutboxProcessor, OutboxAdmin]]:
    """A processor that is not started, over the settings' outbox and router, which are open."""
    router = make_router(settings, hooks=hooks)
    async with settings.create_outbox() as outbox, router:
        yield OutboxProcessor(outbox, router, config=settings.processor, hooks=hooks), OutboxAdmin(outbox)


def _tell_troubles(detail: Detail) -> None:
    match detail:
        case DeadLettered():
            tell(f"dead letter: {detail.platform} refused {detail.event_id} ({detail.event_type}): {detail.reason}")
        case OutboxAlert():
            tell(f"alert: {detail.text}")
        case BreakerChanged():
            tell(f"{detail.platform} is {detail.new}: {detail.reason}")
        case LeaseChanged(change="lost" | "expired"):
            tell(f"bucket {detail.epoch}/{detail.bucket} was {detail.change}; {detail.held} are left")
        case _:
            pass
