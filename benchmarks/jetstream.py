"""The whole router on JetStream against the ways to do it by hand.

1 KB events, file storage, one process, an ack and a result for every message. Encoding and routing are in the
router's time; the others send bytes that were encoded beforehand. Run: python -m benchmarks.jetstream
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable

import nats
from faststream.nats import NatsBroker
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.harness import Way, compare, make_events, report
from oms_events import EventRouter, create_oms_multi_platform_router, encode
from oms_events.devstack import NatsServer

SUBJECT = "oms.action.started"
STREAM = "OMS"
Prepare = Callable[[], tuple[int, Way]]


async def bare_loop(client: Client, messages: list[tuple[bytes, str]], window: int = 1024) -> None:
    """`nc.publish` with its own wildcard ack inbox: as fast as nats-py's public methods go."""
    inbox = client.new_inbox()
    free = asyncio.Semaphore(window)
    left, done = len(messages), asyncio.Event()

    async def on_ack(_: Msg) -> None:
        nonlocal left
        left -= 1
        free.release()
        if not left:
            done.set()

    subscription = await client.subscribe(f"{inbox}.*", cb=on_ack)
    for number, (payload, identity) in enumerate(messages):
        await free.acquire()
        await client.publish(SUBJECT, payload, reply=f"{inbox}.{number}", headers={"Nats-Msg-Id": identity})
    await done.wait()
    await subscription.unsubscribe()


async def publish_async(client: Client, messages: list[tuple[bytes, str]]) -> None:
    js = client.jetstream(publish_async_max_pending=256)
    for payload, identity in messages:
        await js.publish_async(SUBJECT, payload, headers={"Nats-Msg-Id": identity})
    await js.publish_async_completed()


async def faststream(broker: NatsBroker, messages: list[tuple[bytes, str]]) -> None:
    for start in range(0, len(messages), 256):
        await asyncio.gather(
            *(
                broker.publish(payload, SUBJECT, stream=STREAM, headers={"Nats-Msg-Id": identity})
                for payload, identity in messages[start : start + 256]
            )
        )


async def through_router(router: EventRouter, events: list[object]) -> None:
    results = await router.publish_events(events)
    if not all(result.delivered for result in results):
        raise RuntimeError("not every event was delivered")


async def throughput(client: Client, url: str, *, rounds: int, count: int) -> bool:
    def beforehand() -> list[tuple[bytes, str]]:
        return [(encoded.json, encoded.id) for encoded in map(encode, make_events(count))]

    broker = NatsBroker(url)
    router = create_oms_multi_platform_router(nats_publisher=client)
    async with broker, router:

        def by_hand(way: Callable[[list[tuple[bytes, str]]], Way]) -> Prepare:
            return lambda: (count, way(beforehand()))

        ways: dict[str, Prepare] = {
            "nats-py publish_async, 256 pending": by_hand(
                lambda messages: lambda: publish_async(client, messages)
            ),
            "FastStream publish(stream=), gather 256": by_hand(
                lambda messages: lambda: faststream(broker, messages)
            ),
            "nc.publish, own ack inbox, 1,024": by_hand(lambda messages: lambda: bare_loop(client, messages)),
            "router.publish_events": lambda: (count, _router_way(router, count)),
        }
        rates = await compare(ways, rounds=rounds)
    names = list(ways)
    targets = dict(zip(names, (1.2, 2.5, 0.75), strict=False))
    return report("JetStream, 1 KB events", rates, names[3], targets)


def _router_way(router: EventRouter, count: int) -> Way:
    events: list[object] = list(make_events(count))
    return lambda: through_router(router, events)


async def latency(client: Client, count: int) -> bool:
    js = client.jetstream()
    bare: list[float] = []
    ours: list[float] = []
    async with create_oms_multi_platform_router(nats_publisher=client) as router:
        for number, event in enumerate(make_events(2 * count)):
            start = time.perf_counter()
            if number % 2:
                await router.publish_event(event)
                ours.append(time.perf_counter() - start)
            else:
                encoded = encode(event)
                payload, identity = encoded.json, encoded.id
                start = time.perf_counter()
                await js.publish(SUBJECT, payload, headers={"Nats-Msg-Id": identity})
                bare.append(time.perf_counter() - start)
    p50_bare, p50_ours = (statistics.median(times) * 1e6 for times in (bare, ours))
    added = p50_ours / p50_bare - 1
    verdict = "met" if added <= 0.15 else "MISSED"
    print(
        f"\nOne event at a time, p50: js.publish {p50_bare:.0f} us, router.publish_event {p50_ours:.0f} us: "
        f"{added:+.0%} (target: at most +15 %, {verdict})"
    )
    return added <= 0.15


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--events", type=int, default=8_000)
    arguments = parser.parse_args()
    async with NatsServer() as server:
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(name=STREAM, subjects=["oms.>"], max_bytes=1 << 30)
        met = await throughput(client, server.url, rounds=arguments.rounds, count=arguments.events)
        met &= await latency(client, 2000)
        await client.close()
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
