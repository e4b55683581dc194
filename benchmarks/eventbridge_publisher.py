"""PutEvents against a local stub that answers at once: this publisher, a bare aioboto3 loop, boto3 in threads.

Every way builds and encodes its own entries of the same 1 KB events. Rounds are interleaved, as the speed of a
shared machine moves; only the ratios inside one round count, and of them the median.

    python benchmarks/eventbridge_publisher.py [--rounds 9] [--events 2000]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aioboto3
import boto3
from cloudevents.core.v1.event import CloudEvent

from oms_events.events import build_event, encode
from oms_events.publishers.eventbridge import EventBridgeConfig, EventBridgePublisher

CONCURRENCY = 8
REGION = "us-east-1"
KEYS = {"aws_access_key_id": "stub", "aws_secret_access_key": "stub"}
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Stub(asyncio.Protocol):
    """Answers DescribeEventBus and PutEvents over HTTP/1.1 with as little work as possible."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._received = bytearray()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (head := self._received.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._received, 0, head)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self._received) < end:
                return
            body = b'{"Name":"bench","Arn":"arn"}'
            if b"PutEvents" in self._received[:head]:
                mark = b'{"EventId":"11710aed-b79e-4468-a20b-bb3c0c3b4860"}'
                # Inside a Detail the quotes are escaped, so this counts entries only.
                marks = b",".join([mark] * self._received.count(b'"DetailType":', head, end))
                body = b'{"FailedEntryCount":0,"Entries":[' + marks + b"]}"
            del self._received[:end]
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\n"
                b"x-amzn-RequestId: 11710aed\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def make_events(count: int) -> list[CloudEvent]:
    data = {f"field_{number}": "value " * 4 for number in range(22)}
    return [
        build_event("com.foundry.oms.objecttype.created", "/oms/main", data, branch="main", author="bench")
        for _ in range(count)
    ]


def bare_entries(events: list[CloudEvent]) -> list[dict[str, Any]]:
    """What a service without the package writes: the same wrapped form, by the standard library."""
    entries = []
    for event in events:
        attributes = event.get_attributes()
        time_ = attributes["time"]
        structured = {**attributes, "time": time_.isoformat(), "data": event.get_data()}
        context = {"branch": attributes["branch"], "author": attributes["author"]}
        detail = {
            "cloudEvents": structured,
            "omsContext": context,
            "eventBridgeMetadata": {"mapping": "wrapped", "converter": "bare", "version": 1},
        }
        entries.append(
            {
                "Time": time_,
                "Source": "oms.main",
                "DetailType": "Objecttype Created",
                "Detail": json.dumps(detail),
                "EventBusName": "bench",
            }
        )
    return entries


async def run_ours(publisher: EventBridgePublisher, events: list[CloudEvent]) -> None:
    results = await publisher.publish([encode(event) for event in events], timeout=60)
    if any(isinstance(result, Exception) for result in results):
        raise SystemExit(f"not delivered: {next(r for r in results if isinstance(r, Exception))}")


async def run_aioboto3(client: Any, events: list[CloudEvent]) -> None:
    starts = iter(range(0, len(events), 10))

    async def work() -> None:
        for start in starts:
            answer = await client.put_events(Entries=bare_entries(events[start : start + 10]))
            if answer["FailedEntryCount"]:
                raise SystemExit("not delivered")

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


def run_boto3(client: Any, pool: ThreadPoolExecutor, events: list[CloudEvent]) -> None:
    def put(start: int) -> None:
        if client.put_events(Entries=bare_entries(events[start : start + 10]))["FailedEntryCount"]:
            raise SystemExit("not delivered")

    list(pool.map(put, range(0, len(events), 10)))


async def timed(work: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    await work()
    return time.perf_counter() - wall, time.process_time() - cpu


async def measure(endpoint_url: str, rounds: int, count: int) -> None:
    events = make_events(count)
    size = encode(events[0]).size
    config = EventBridgeConfig(event_bus_name="bench", aws_region=REGION, endpoint_url=endpoint_url, **KEYS)
    ours, ordinary = (
        EventBridgePublisher(config.model_copy(update={"direct_calls": direct})) for direct in (True, False)
    )
    sync_client = boto3.client("events", region_name=REGION, endpoint_url=endpoint_url, **KEYS)
    session = aioboto3.Session(**KEYS, region_name=REGION)
    async with session.client("events", endpoint_url=endpoint_url) as client:
        await ours.open()
        await ordinary.open()
        with ThreadPoolExecutor(8) as pool:
            ways: dict[str, Callable[[], Awaitable[None]]] = {
                "this publisher": lambda: run_ours(ours, events),
                "  direct_calls=False": lambda: run_ours(ordinary, events),
                "aioboto3, concurrency 8": lambda: run_aioboto3(client, events),
                "boto3, 8 threads": lambda: asyncio.to_thread(run_boto3, sync_client, pool, events),
            }
            for work in ways.values():
                await work()
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            for _ in range(rounds):
                for name, work in ways.items():
                    taken[name].append(await timed(work))
        await ours.close()
        await ordinary.close()
    print(f"{count} events of {size} bytes, {rounds} rounds")
    print(f"{'':26}{'events/s':>10}{'CPU us/event':>14}{'x aioboto3':>12}{'x boto3':>10}")
    for name, times in taken.items():
        wall = statistics.median(seconds for seconds, _ in times)
        cpu = statistics.median(seconds for _, seconds in times)
        ratios = [
            statistics.median(other[0] / mine[0] for mine, other in zip(times, taken[base], strict=True))
            for base in ("aioboto3, concurrency 8", "boto3, 8 threads")
        ]
        print(f"{name:26}{count / wall:>10.0f}{cpu / count * 1e6:>14.1f}{ratios[0]:>12.2f}{ratios[1]:>10.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--stub", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stub:
        asyncio.run(serve())
        return
    with subprocess.Popen([sys.executable, __file__, "--stub"], stdout=subprocess.PIPE, text=True) as stub:
        try:
            port = int(stub.stdout.readline()) if stub.stdout else 0
            asyncio.run(measure(f"http://127.0.0.1:{port}", arguments.rounds, arguments.events))
        finally:
            stub.terminate()


if __name__ == "__main__":
    main()
