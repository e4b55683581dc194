"""What the tests of the devstack share: clients, an inbox, and a look at the process table."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aioboto3
import pytest
from botocore.config import Config

from oms_events.devstack import AwsEmulator

# The tests count calls, so the client must not repeat them.
ONCE = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=5)


@contextlib.asynccontextmanager
async def aws_client(service: str, emulator: AwsEmulator, endpoint_url: str | None = None) -> AsyncIterator[Any]:
    session = aioboto3.Session(
        aws_access_key_id=emulator.access_key,
        aws_secret_access_key=emulator.secret_key,
        region_name=emulator.region,
    )
    async with session.client(service, endpoint_url=endpoint_url or emulator.endpoint_url, config=ONCE) as client:
        yield client


needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes in /proc")


class Inbox:
    """A queue behind a rule for all events of one bus: what is in it was stored."""

    def __init__(self, sqs: Any, url: str, bus: str) -> None:
        self._sqs = sqs
        self._url = url
        self.bus = bus

    def entry(self, number: int) -> dict[str, str]:
        detail = json.dumps({"number": number})
        return {"Source": "test", "DetailType": "Numbered", "Detail": detail, "EventBusName": self.bus}

    async def numbers(self, count: int) -> list[int]:
        """The numbers of the first events that arrive, until so many are there, and no more wait."""
        found: list[int] = []
        while True:
            answer = await self._sqs.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=10, WaitTimeSeconds=2 if len(found) < count else 0
            )
            messages = answer.get("Messages", [])
            if not messages:
                return sorted(found)
            for message in messages:
                found.append(json.loads(message["Body"])["detail"]["number"])
                await self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])


def children(pid: int) -> set[int]:
    """The ids of the direct children of a process, zombies included."""
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found |= {int(child) for child in (task / "children").read_text().split()}
    return found


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    if not Path("/proc/self").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def environment_of(pid: int) -> dict[str, str]:
    """The environment variables that a process was started with."""
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


def listening(pid: int) -> set[str]:
    """The addresses, in hexadecimal, on which a process listens for TCP."""
    sockets = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            sockets.add(str(handle.readlink()))
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


async def until(condition: Callable[[], bool], *, timeout: float = 10.0) -> None:
    """Waits for something that happens in another process."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - no Event reaches over from there
            await asyncio.sleep(0.005)
