"""The whole router on EventBridge against the ways to do it by hand, with a local stub that answers at once.

Every way builds and encodes its own entries of the same 1 KB events. Run: python -m benchmarks.eventbridge
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aioboto3
import boto3
from cloudevents.core.v1.event import CloudEvent

from benchmarks.harness import Way, compare, make_events, report
from benchmarks.stub import running_stub
from oms_events import EventBridgeConfig, EventRouter, create_oms_multi_platform_router
from oms_events.instrumentation import CallEnded, Detail

CONCURRENCY = 8
REGION = "us-east-1"
KEYS = {"aws_access_key_id": "stub", "aws_secret_access_key": "stub"}
KIND = "com.foundry.oms.system.healthcheck"


def bare_entries(events: list[CloudEvent]) -> list[dict[str, Any]]:
    """What a service without the package writes: the same wrapped form, by the standard library."""
    entries = []
    for event in events:
        attributes = event.get_attributes()
        structured = {**attributes, "time": attributes["time"].isoformat(), "data": event.get_data()}
        detail = {
            "cloudEvents": structured,
            "omsContext": {"branch": attributes["branch"], "author": attributes["author"]},
            "eventBridgeMetadata": {"mapping": "wrapped", "converter": "bare", "version": 1},
        }
        entries.append(
            {
                "Time": attributes["time"],
                "Source": "oms.main",
                "DetailType": "System Healthcheck",
                "Detail": json.dumps(detail),
                "EventBusName": "bench",
            }
        )
    return entries


async def with_aioboto3(client: Any, events: list[CloudEvent]) -> None:
    starts = iter(range(0, len(events), 10))

    async def work() -> None:
        for start in starts:
            answer = await client.put_events(Entries=bare_entries(events[start : start + 10]))
            if answer["FailedEntryCount"]:
                raise RuntimeError("not every event was delivered")

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


def with_boto3(client: Any, pool: ThreadPoolExecutor, events: list[CloudEvent]) -> None:
    def put(start: int) -> None:
        if client.put_events(Entries=bare_entries(events[start : start + 10]))["FailedEntryCount"]:
            raise RuntimeError("not every event was delivered")

    list(pool.map(put, range(0, len(events), 10)))


async def through_router(router: EventRouter, events: list[CloudEvent]) -> None:
    results = await router.publish_events(events)
    if not all(result.delivered for result in results):
        raise RuntimeError("not every event was delivered")


def router_to(endpoint_url: str, calls: list[int], *, direct: bool = True) -> EventRouter:
    def count(detail: Detail) -> None:
        if isinstance(detail, CallEnded):
            calls.append(detail.events)

    config = EventBridgeConfig(
        event_bus_name="bench", aws_region=REGION, endpoint_url=endpoint_url, direct_calls=direct,
        max_concurrent_calls=CONCURRENCY, **KEYS,
    )  # fmt: skip
    return create_oms_multi_platform_router(eventbridge_config=config, hooks=[count])


async def throughput(endpoint_url: str, *, rounds: int, count: int) -> bool:
    events = make_events(count, kind=KIND)
    sync_client = boto3.client("events", region_name=REGION, endpoint_url=endpoint_url, **KEYS)
    session = aioboto3.Session(**KEYS, region_name=REGION)
    router, ordinary = router_to(endpoint_url, []), router_to(endpoint_url, [], direct=False)
    async with session.client("events", endpoint_url=endpoint_url) as client, router, ordinary:
        with ThreadPoolExecutor(8) as pool:

            def each(run: Way) -> Callable[[], tuple[int, Way]]:
                return lambda: (count, run)

            ways = {
                "aioboto3, concurrency 8": each(lambda: with_aioboto3(client, events)),
                "boto3, 8 threads": each(lambda: asyncio.to_thread(with_boto3, sync_client, pool, events)),
                "router.publish_events": each(lambda: through_router(router, events)),
                "router, direct_calls=False": each(lambda: through_router(ordinary, events)),
            }
            rates = await compare(ways, rounds=rounds)
    targets = {"aioboto3, concurrency 8": 1.1, "boto3, 8 threads": 1.5}
    return report("EventBridge, 1 KB events", rates, "router.publish_events", targets)


async def batching(endpoint_url: str) -> bool:
    calls: list[int] = []
    async with router_to(endpoint_url, calls) as router:
        await asyncio.gather(*(router.publish_event(event) for event in make_events(500, kind=KIND)))
    mean = sum(calls) / len(calls)
    verdict = "met" if mean >= 9 else "MISSED"
    print(f"\n500 concurrent single publishes: {mean:.2f} entries per call (target: at least 9, {verdict})")
    return mean >= 9


async def measure(rounds: int, count: int) -> int:
    with running_stub() as endpoint_url:
        met = await throughput(endpoint_url, rounds=rounds, count=count)
        met &= await batching(endpoint_url)
    return 0 if met else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--events", type=int, default=3_000)
    arguments = parser.parse_args()
    return asyncio.run(measure(arguments.rounds, arguments.events))


if __name__ == "__main__":
    sys.exit(main())
