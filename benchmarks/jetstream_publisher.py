"""The JetStream publisher against nats-py's `publish_async` and a bare loop with its own ack inbox.

1 KB events, file storage, an ack for every message; the publisher builds headers and frames itself, the
others send bytes made beforehand. Interleaved rounds, medians. Run: python benchmarks/jetstream_publisher.py
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from oms_events.devstack.nats import NatsServer
from oms_events.events import EncodedEvent, build_event, encode
from oms_events.publishers.jetstream import JetStreamOptions, JetStreamPublisher
from oms_events.publishing import Receipt

Way = Callable[[list[EncodedEvent]], Awaitable[None]]
SUBJECT = "oms.schema.created"


def make_events(count: int) -> list[EncodedEvent]:
    filler = "x" * 900
    return [
        encode(
            build_event(
                "com.foundry.oms.schema.created",
                "/oms/main",
                {"resource": "User", "number": number, "text": filler},
                subject=f"object_type/User{number}",
                datacontenttype="application/json",
                branch="main",
                author="bench",
            )
        )
        for number in range(count)
    ]


async def bare_loop(client: Client, events: list[EncodedEvent], window: int = 1024) -> None:
    inbox = client.new_inbox()
    free = asyncio.Semaphore(window)
    left, done = len(events), asyncio.Event()

    async def on_ack(_: Msg) -> None:
        nonlocal left
        left -= 1
        free.release()
        if not left:
            done.set()

    subscription = await client.subscribe(f"{inbox}.*", cb=on_ack)
    for number, event in enumerate(events):
        await free.acquire()
        headers = {"Nats-Msg-Id": event.id}
        await client.publish(SUBJECT, event.json, reply=f"{inbox}.{number}", headers=headers)
    await done.wait()
    await subscription.unsubscribe()


async def throughput(client: Client, rounds: int, count: int) -> None:
    js = client.jetstream(publish_async_max_pending=256)

    async def publish_async(events: list[EncodedEvent]) -> None:
        for event in events:
            while js.publish_async_pending() >= 256:  # noqa: ASYNC110 - it raises when it stalls
                await asyncio.sleep(0)
            await js.publish_async(SUBJECT, event.json, headers={"Nats-Msg-Id": event.id})
        await js.publish_async_completed()

    fast = JetStreamPublisher(client)
    slow = JetStreamPublisher(client, options=JetStreamOptions(fast_path=False))
    async with fast, slow:

        def through(publisher: JetStreamPublisher) -> Way:
            async def run(events: list[EncodedEvent]) -> None:
                results = await publisher.publish(events, timeout=30)
                assert all(type(result) is Receipt for result in results)

            return run

        ways: dict[str, Way] = {
            "publish_async, 256 pending": publish_async,
            "nc.publish, own inbox, 1024": lambda events: bare_loop(client, events),
            "JetStreamPublisher": through(fast),
            "JetStreamPublisher, public path": through(slow),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        costs: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds + 1):
            for name, way in ways.items():
                events = make_events(count)
                for event in events:  # the others send what was made beforehand
                    _ = event.json
                start, cpu = time.perf_counter(), time.process_time()
                await way(events)
                rates[name].append(count / (time.perf_counter() - start))
                costs[name].append((time.process_time() - cpu) / count * 1e6)
    base, bare = (rates[name][1:] for name in list(ways)[:2])
    for name in ways:
        mine = rates[name][1:]
        to_async = statistics.median(a / b for a, b in zip(mine, base, strict=True))
        to_bare = statistics.median(a / b for a, b in zip(mine, bare, strict=True))
        print(
            f"{name:34}{statistics.median(mine) / 1000:7.1f} k/s {statistics.median(costs[name][1:]):6.1f} us CPU"
            f"   {to_async:5.2f} x publish_async   {to_bare:5.2f} x bare loop"
        )


async def latency(client: Client, count: int) -> None:
    js = client.jetstream()
    async with JetStreamPublisher(client) as publisher:
        bare: list[float] = []
        ours: list[float] = []
        for event in make_events(count):
            start = time.perf_counter()
            await js.publish(SUBJECT, event.json, headers={"Nats-Msg-Id": f"bare-{event.id}"})
            middle = time.perf_counter()
            await publisher.publish([event], timeout=5)
            ours.append(time.perf_counter() - middle)
            bare.append(middle - start)
    for name, times in (("js.publish, one by one", bare), ("JetStreamPublisher, one by one", ours)):
        times.sort()
        print(f"{name:34} p50 {times[count // 2] * 1e6:5.0f} us   p99 {times[count * 99 // 100] * 1e6:5.0f} us")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--events", type=int, default=8_000)
    arguments = parser.parse_args()
    async with NatsServer() as server:
        client = await nats.connect(server.url)
        js = client.jetstream()
        await js.add_stream(name="BENCH", subjects=["oms.>"], max_bytes=1 << 30)
        await throughput(client, arguments.rounds, arguments.events)
        await latency(client, 2000)
        await client.close()


if __name__ == "__main__":
    asyncio.run(main())
