"""The contract suite on the publisher of own_publisher.py; run it with pytest."""

# [start:all]
from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from cloudevents.core.v1.event import CloudEvent
from examples.own_publisher import JsonLinesPublisher

from oms_events import Publisher, parse_event
from oms_events.testing.contract import PublisherContract, make_event


class TestJsonLinesPublisher(PublisherContract):
    @pytest_asyncio.fixture
    async def publisher(self, tmp_path: Path) -> AsyncIterator[JsonLinesPublisher]:
        self.path = tmp_path / "events.jsonl"
        publisher = JsonLinesPublisher(self.path)
        await publisher.open()
        yield publisher
        await publisher.close()

    def unopened(self, publisher: Publisher) -> Publisher:
        return JsonLinesPublisher(self.path)

    async def stored(self, publisher: Publisher, count: int) -> list[CloudEvent]:
        return [parse_event(line) for line in self.path.read_bytes().splitlines()]

    def too_large(self, publisher: Publisher) -> CloudEvent:
        return make_event("x" * 1_000_001)


# [end:all]
