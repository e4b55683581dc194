"""What became of the events that `publish` was given."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from oms_events.cli.common import ExitCode
from oms_events.cli.output import print_json, print_table, tell
from oms_events.cli.parsing import Item
from oms_events.events import EncodedEvent
from oms_events.publishing import Outcome, PublishResult, PublishResults

_TOLD_FAILURES: Final = 20


class Report:
    """Counts results, and prints each as JSON, or the failures among them and a summary."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._started = time.monotonic()
        self._begun = 0
        self._done = 0
        self._delivered = 0
        self._bad = 0
        self._by_platform: dict[str, Counter[Outcome]] = defaultdict(Counter)
        self._last: PublishResults | None = None

    @property
    def exit_code(self) -> ExitCode:
        if self._delivered < self._begun:
            return ExitCode.FAILED
        return ExitCode.BAD_INPUT if self._bad else ExitCode.OK

    def begin(self, count: int) -> None:
        """So many events are handed to the router."""
        self._begun += count

    def add(self, items: Sequence[Item], results: Sequence[PublishResults]) -> None:
        """One batch: `results` belong to those items that are events, in order."""
        following = iter(results)
        for item in items:
            if isinstance(item.content, EncodedEvent):
                self._add_event(item.line, item.content, next(following))
            else:
                self._bad += 1
                if self._as_json:
                    print_json({"line": item.line, "delivered": False, "error": item.content})
                else:
                    tell(f"line {item.line}: {item.content}")

    def summarize(self) -> None:
        """Prints the end: also of what was interrupted, whose last batch may or may not have been delivered."""
        under_way = self._begun - self._done
        if under_way:
            tell(f"{under_way} events were under way when this stopped: each may or may not have been delivered")
        failed = self._done - self._delivered
        if failed > _TOLD_FAILURES and not self._as_json:
            tell(f"... {failed - _TOLD_FAILURES} more were not delivered; --json tells of each")
        if self._as_json:
            return
        if self._last is not None and self._begun == 1:
            print_table(("platform", "outcome", "ms", "what"), list(_rows(self._last)))
        elif self._by_platform:
            rows = [
                (platform, *(counts[outcome] for outcome in Outcome))
                for platform, counts in self._by_platform.items()
            ]
            print_table(("platform", *(outcome.value for outcome in Outcome)), rows)
        seconds = time.monotonic() - self._started
        bad = f"; {self._bad} items of the input are no events" if self._bad else ""
        click.echo(f"{self._delivered} of {self._begun} events delivered in {seconds:.1f} s{bad}")

    def _add_event(self, line: int, event: EncodedEvent, results: PublishResults) -> None:
        self._done += 1
        self._delivered += results.delivered
        self._last = results
        for platform, result in results.items():
            self._by_platform[platform][result.outcome] += 1
        if self._as_json:
            print_json(_described(line, event, results))
        elif line and not results.delivered and self._done - self._delivered <= _TOLD_FAILURES:
            reasons = "; ".join(_reasons(results)) or "no platform took it"
            tell(f"line {line}: {event.id} was not delivered: {reasons}")


def _reasons(results: PublishResults) -> Iterator[str]:
    for platform, result in results.items():
        if not result.success:
            yield f"{platform} {result.outcome}: {result.error}"


def _rows(results: PublishResults) -> Iterator[tuple[object, ...]]:
    for platform, result in results.items():
        what = str(result.error) if result.error is not None else _stored(result)
        yield platform, result.outcome.value, f"{result.latency * 1000:.1f}", what


def _stored(result: PublishResult) -> str | None:
    receipt = result.receipt
    if receipt is None:
        return None
    place = f"{receipt.stream} {receipt.sequence}" if receipt.stream is not None else receipt.id
    return f"{place} (a duplicate)" if receipt.duplicate else place


def _described(line: int, event: EncodedEvent, results: PublishResults) -> Mapping[str, Any]:
    return {
        **({"line": line} if line else {}),
        "source": event.source,
        "id": event.id,
        "type": event.type,
        "delivered": results.delivered,
        "rule": results.rule,
        "strategy": results.strategy,
        "platforms": {name: _described_result(result) for name, result in results.items()},
    }


def _described_result(result: PublishResult) -> Mapping[str, Any]:
    receipt = result.receipt
    return {
        "outcome": result.outcome.value,
        "error": None if result.error is None else str(result.error),
        "latency_ms": round(result.latency * 1000, 3),
        "attempts": result.attempts,
        "duplicate_possible": result.duplicate_possible,
        "receipt": None
        if receipt is None
        else {
            "id": receipt.id,
            "stream": receipt.stream,
            "sequence": receipt.sequence,
            "duplicate": receipt.duplicate,
        },
    }
