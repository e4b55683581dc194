"""`oms-events outbox drain` and `oms-events outbox run`."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from oms_events.cli.common import (
    POSITIVE_NUMBER,
    ExitCode,
    config_option,
    configured_platforms,
    ends_cleanly,
    read_settings,
    run,
)
from oms_events.cli.output import print_json, tell
from oms_events.cli.progress import counted, progress_bar
from oms_events.errors import PublishError, SkippedError
from oms_events.instrumentation.hooks import (
    BacklogMeasured,
    BreakerChanged,
    CheckEnded,
    DeadLettered,
    Detail,
    Hook,
    LeaseChanged,
    OutboxAlert,
    Relayed,
    Settled,
)
from oms_events.outbox.admin import OutboxAdmin
from oms_events.outbox.selection import OnDone
from oms_events.outbox.status import OutboxStatus
from oms_events.settings import Settings

if TYPE_CHECKING:
    from oms_events.outbox.processor import OutboxProcessor

_COUNTED: Final = 10_000
_SILENCE: Final = 60.0


@dataclass(slots=True)
class Work:
    """A hook that counts what was done, and tells the human of what goes wrong."""

    settled: int = 0
    dead_letters: int = 0
    on_settled: OnDone | None = None
    told_at: dict[tuple[str, str], float] = field(default_factory=dict)

    def __call__(self, detail: Detail) -> None:
        match detail:
            case Relayed(events=events):
                self.settled += events
                if self.on_settled is not None:
                    self.on_settled(events)
            case DeadLettered():
                self.dead_letters += 1
                event = f"{detail.event_id} ({detail.event_type})"
                tell(f"dead letter of {detail.platform}: {event}: {detail.reason}")
            case OutboxAlert():
                tell(f"alert: {detail.text}")
            case Settled(platform=platform, results=results):
                for result in results:
                    if result.error is not None:
                        self._tell_of_failure(platform, result.error)
            case CheckEnded(platform=platform, error=str() as error):
                self._tell_sometimes(platform, "check", f"{platform} is not healthy: {error}")
            case BacklogMeasured(available=False):
                self._tell_sometimes("", "backlog", "the backlog cannot be measured: the table cannot be read")
            case BreakerChanged():
                tell(f"the breaker of {detail.platform} is {detail.new}: {detail.reason}")
            case LeaseChanged(change="lost" | "expired"):
                tell(f"the lease of bucket {detail.epoch}/{detail.bucket} was {detail.change}")
            case _:
                pass

    def _tell_of_failure(self, platform: str, error: Exception) -> None:
        kind = f"{error.failure}: {error.code}" if isinstance(error, PublishError) else type(error).__name__
        if not isinstance(error, SkippedError):
            self._tell_sometimes(platform, kind, f"{platform} did not take an event ({kind}): {error}")

    def _tell_sometimes(self, platform: str, kind: str, text: str) -> None:
        """Says the same of a platform once a minute: in an outage each attempt would."""
        now = time.monotonic()
        if now - self.told_at.get((platform, kind), -_SILENCE) >= _SILENCE:
            self.told_at[platform, kind] = now
            tell(text)

    def describe(self) -> dict[str, Any]:
        return {"settled": self.settled, "dead_letters": self.dead_letters}

    def __str__(self) -> str:
        return f"{counted(self.settled, 'record')} settled, {counted(self.dead_letters, 'dead letter')} made"


@click.command()
@click.option(
    "--timeout",
    type=POSITIVE_NUMBER,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up after so long.",
)
@config_option
@ends_cleanly
def drain(*, timeout: float, config_file: Path | None, as_json: bool) -> None:
    """Deliver all that waits, in this process, and end.

    Other processors may do their part. Ends with 1 when something remains: events whose platform is down, or whose
    key is held.
    """
    work = Work()
    shows_bar = not (as_json and sys.stdout.isatty())
    is_drained, total, left = run(_drain(read_settings(config_file), work, timeout, shows_bar=shows_bar))
    if as_json:
        left_json = {"pending": left.pending, "bounded": left.bounded, "problems": left.problems}
        print_json({"drained": is_drained, **work.describe(), **left_json})
    elif is_drained:
        click.echo(f"{work}; nothing remains")
    else:
        rest = "an unknown number of" if left.pending is None else f"{left.pending}{'+' if left.bounded else ''}"
        whole = "" if total is None or left.pending is None else f" of {max(total, left.pending)}"
        verb = "record remains" if not whole and rest == "1" else "records remain"
        click.echo(f"{work}; {rest}{whole} {verb}, see oms-events outbox list --pending")
    sys.exit(ExitCode.OK if is_drained else ExitCode.FAILED)


async def _drain(
    settings: Settings, work: Work, timeout: float, *, shows_bar: bool
) -> tuple[bool, int | None, OutboxStatus]:
    async with _processor(settings, [work]) as (processor, admin):
        total = (await admin.status(limit=_COUNTED)).pending if shows_bar else None
        with progress_bar("draining", total=total, wanted=shows_bar) as work.on_settled:
            is_drained = await processor.drain(timeout)
        return is_drained, total, await admin.status()


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

    Then it finishes what is in flight and gives its buckets up at once: such a stop is its normal end (0). Dead
    letters, alerts, breakers and why platforms take nothing are told on stderr; at the end it prints what it did.
    """
    settings = read_settings(config_file)
    work = Work()
    with _metrics(metrics_port, metrics_host) as hooks:
        run(_work(settings, [work, *hooks]))
    if as_json:
        print_json(work.describe())
    else:
        click.echo(str(work))


async def _work(settings: Settings, hooks: Sequence[Hook]) -> None:
    async with _processor(settings, hooks) as (processor, admin):
        tell(f"relaying {admin.table} as processor {processor.id}; Ctrl-C stops")
        try:
            await processor.run()
        except asyncio.CancelledError:
            tell("stopped")


@contextmanager
def _metrics(port: int | None, host: str) -> Iterator[Sequence[Hook]]:
    if port is None:
        yield ()
        return
    # Imported here, so that the extra is needed only by those who ask for metrics.
    from oms_events.instrumentation.metrics_server import served_metrics

    with served_metrics(port=port, host=host) as (hook, served):
        tell(f"metrics are at http://{host}:{served}/metrics")
        yield (hook,)


@asynccontextmanager
async def _processor(
    settings: Settings, hooks: Sequence[Hook]
) -> AsyncIterator[tuple[OutboxProcessor, OutboxAdmin]]:
    """A processor that does not run yet, over the settings' outbox and router, which are open."""
    # Imported here, so that the extra is needed only by those who use DynamoDB.
    from oms_events.outbox.processor import OutboxProcessor

    configured_platforms(settings, ())
    router = settings.create_router(hooks=hooks)
    async with settings.create_outbox() as outbox, router:
        yield OutboxProcessor(outbox, router, config=settings.processor, hooks=hooks), OutboxAdmin(outbox)
