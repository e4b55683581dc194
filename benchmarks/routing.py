"""What a routing decision costs, and an encoding. Run: python -m benchmarks.routing"""

from __future__ import annotations

import re
import statistics
import sys
import timeit
from collections.abc import Callable

from cloudevents.core.formats.json import JSONFormat

from benchmarks.harness import make_events
from oms_events import RoutingRule, encode
from oms_events.routing.rules import RuleSet

RULES = 5_000
ROUNDS = 9


def cost(function: Callable[[], object], *, number: int) -> float:
    """Median microseconds of one call."""
    timings = timeit.repeat(function, number=number, repeat=ROUNDS)
    return statistics.median(timings) / number * 1e6


def main() -> int:
    patterns = [rf"com\.foundry\.family{number}\..*" for number in range(RULES)]
    rules = RuleSet(RoutingRule(event_type_pattern=pattern, platforms=["nats"]) for pattern in patterns)
    compiled = [re.compile(pattern) for pattern in patterns]
    (raw,) = make_events(1, kind="com.foundry.family4999.created")
    event = encode(raw)
    rules.decide(event)
    decision = cost(lambda: rules.decide(event), number=20_000)
    loop = cost(lambda: next(p for p in compiled if p.fullmatch(event.type)), number=3)
    sdk = cost(lambda: JSONFormat().write(raw), number=3_000)
    ours = cost(lambda: encode(raw).json, number=3_000)
    met = decision < 1
    print(
        f"\nA decision with {RULES:,} rules, repeated type: {decision:.2f} us "
        f"(target: under 1 us, {'met' if met else 'MISSED'}); one by one with re: {loop:,.0f} us"
    )
    print(f"Check and JSON encoding of a 1 KB event: {ours:.1f} us; the SDK's writer alone: {sdk:.1f} us")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
