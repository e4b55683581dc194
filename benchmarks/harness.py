"""Interleaved rounds in one run, medians, and ratios against a baseline of the same round."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from cloudevents.core.v1.event import CloudEvent

from oms_events import build_event

Way = Callable[[], Awaitable[None]]


def make_events(
    count: int, *, kind: str = "com.foundry.oms.action.started", keyed: bool = False
) -> list[CloudEvent]:
    """Events whose structured JSON form has about 1 KB, each with an id, and if wanted a key, of its own."""
    filler = "x" * 640
    return [
        build_event(
            kind,
            "/oms/main",
            {"resource": "User", "number": number, "text": filler},
            subject=f"object_type/User{number}",
            datacontenttype="application/json",
            branch="main",
            author="bench@example.com",
            **({"partitionkey": f"user-{number}"} if keyed else {}),
        )
        for number in range(count)
    ]


async def compare(
    ways: Mapping[str, Callable[[], tuple[int, Way]]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Runs every way once per round, in turn, and gives events per second of the clock by way.

    Each way is a function that prepares a round (not timed) and gives the number of events and the run itself.
    The first round warms up and is not counted. What was prepared is no work for the garbage collector.
    """
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, prepare in ways.items():
            count, run = prepare()
            gc.collect()
            gc.freeze()
            start = clock()
            await run()
            seconds = clock() - start
            gc.unfreeze()
            if number:
                rates[name].append(count / seconds)
    return rates


def report(
    title: str,
    rates: Mapping[str, Sequence[float]],
    subject: str,
    targets: Mapping[str, float],
    *,
    unit: str = "events/s",
) -> bool:
    """Prints medians and the subject's ratio to each other way; says whether every target was met."""
    print(f"\n{title}\n\n| way | median {unit} | {subject} against it | target |\n|---|---|---|---|")
    met = True
    for name, own in rates.items():
        ratio = statistics.median(a / b for a, b in zip(rates[subject], own, strict=True))
        target = targets.get(name)
        met &= target is None or ratio >= target
        wanted = "" if target is None else f"{target:.2f} x {'met' if ratio >= target else 'MISSED'}"
        shown = "" if name == subject else f"{ratio:.2f} x"
        print(f"| {name} | {statistics.median(own):,.0f} | {shown} | {wanted} |")
    return met
