"""A processor as its own process has it, with a journal of what it saw and what it did to the table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from cloudevents.core.v1.event import CloudEvent

from oms_events import EventRouter
from oms_events.events import EncodedEvent
from oms_events.instrumentation.hooks import GapsProbed, LateRecords
from oms_events.outbox.dynamodb import DynamoDBOutboxStore
from oms_events.outbox.outbox import Outbox
from oms_events.outbox.processor import OutboxProcessor
from oms_events.outbox.records import Page, Partition, PlatformState, StoredRecord, partition_key
from oms_events.publishing import Plan, PublishResults
from tests.outbox.processes.gates import PUBLISHING, REMOVED, REMOVING, Gates
from tests.outbox.processes.ground import Ground, Journal


class WatchedStore(DynamoDBOutboxStore):
    """Notes what each record was when it was read, and what is removed, before it is."""

    def __init__(self, ground: Ground, journal: Journal, gates: Gates | None) -> None:
        super().__init__(ground.outbox)
        self._journal = journal
        self._gates = gates
        self._noted: set[tuple[str, ...]] = set()

    async def read(self, partition: Partition, *, after: str | None = None, limit: int = 100) -> Page:
        page = await super().read(partition, after=after, limit=limit)
        self._note(page.records)
        return page

    async def probe(self, partition: Partition, sks: Sequence[str]) -> Sequence[StoredRecord]:
        records = await super().probe(partition, sks)
        self._note(records)
        return records

    async def remove(self, partition: Partition, sks: Sequence[str]) -> None:
        if self._gates is not None:
            await self._gates.at(REMOVING)
        for sk in sks:
            self._journal.note("remove", f"{partition_key(partition)} {sk}")
        await super().remove(partition, sks)
        if self._gates is not None:
            await self._gates.at(REMOVED)

    def _note(self, records: Sequence[StoredRecord]) -> None:
        for record in records:
            if record.event is None:
                continue
            place, states = f"{partition_key(record.partition)} {record.sk}", record.state.states.items()
            done = sorted(name for name, state in states if state is PlatformState.DELIVERED)
            line = ("read", place, record.event.identity, ",".join(done))
            if line not in self._noted:
                self._noted.add(line)
                self._journal.note(*line)


class WatchedRouter:
    """Notes what this process saw accepted, before anybody else in it knows."""

    def __init__(self, router: EventRouter, journal: Journal, gates: Gates | None) -> None:
        self._router = router
        self._journal = journal
        self._gates = gates

    @property
    def is_open(self) -> bool:
        return self._router.is_open

    @property
    def platforms(self) -> Sequence[str]:
        return self._router.platforms

    def is_available(self, platform: str) -> bool:
        return self._router.is_available(platform)

    def plan_event(self, event: EncodedEvent) -> Plan:
        return self._router.plan_event(event)

    async def publish_event(self, event: CloudEvent, *, timeout: float | None = None) -> PublishResults:
        return await self._router.publish_event(event, timeout=timeout)

    async def publish_events(
        self, events: Sequence[CloudEvent], *, timeout: float | None = None
    ) -> list[PublishResults]:
        return await self._router.publish_events(events, timeout=timeout)

    async def publish_planned(
        self, deliveries: Sequence[tuple[EncodedEvent, Plan]], *, timeout: float
    ) -> list[PublishResults]:
        if self._gates is not None:
            await self._gates.at(PUBLISHING)
        answers = await self._router.publish_planned(deliveries, timeout=timeout)
        for (event, _), results in zip(deliveries, answers, strict=True):
            for platform, result in results.items():
                if result.success:
                    self._journal.note("accepted", event.identity, platform)
        return answers


@asynccontextmanager
async def relaying(name: str, ground: Ground, gates: Gates | None) -> AsyncIterator[OutboxProcessor]:
    """A processor that runs; its id is its name."""
    journal = ground.journal(name)

    def count(detail: Any) -> None:
        if isinstance(detail, LateRecords):
            journal.note("late", str(detail.count))
        elif isinstance(detail, GapsProbed):
            journal.note("probed", str(detail.numbers), str(detail.found))

    try:
        async with (
            ground.router(seed=name) as router,
            Outbox(WatchedStore(ground, journal, gates), ground.outbox) as outbox,
            OutboxProcessor(
                outbox,
                WatchedRouter(router, journal, gates),
                config=ground.processor,
                hooks=[count],
                processor_id=name,
            ) as processor,
        ):
            yield processor
    finally:
        journal.close()
