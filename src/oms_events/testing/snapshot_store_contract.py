"""The contract of `SnapshotStore` as tests: subclass it beside your own store's tests."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from oms_events.eventstore.aggregates.snapshots import Snapshot, SnapshotStore

_CROWD = 20
_TIMEOUT = 30.0
_NOON = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


def snapshot(aggregate_id: str, sequence: int, state: bytes = b"{}") -> Snapshot:
    """A snapshot at a sequence."""
    return Snapshot(
        aggregate_id=aggregate_id,
        sequence=sequence,
        event_id=f"event-{sequence}",
        aggregate="Account",
        version=1,
        state=state,
        time=_NOON,
    )


class SnapshotStoreContract:
    """Subclass as `class TestMine(SnapshotStoreContract)` and give it a fixture `store`: an open store."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def aggregate_id(self) -> str:
        """An aggregate that nobody has used."""
        return f"contract-{uuid.uuid4()}"

    async def test_gives_back_what_was_put(self, store: SnapshotStore, aggregate_id: str) -> None:
        assert await store.latest(aggregate_id) is None
        given = Snapshot(
            aggregate_id=aggregate_id,
            sequence=7,
            event_id="e-7",
            aggregate="Account ü#",
            version=12,
            state='{"name":"Ünal 😀","balance":"1.50","n":[null,0.1,9007199254740993]}'.encode(),
            time=_NOON.astimezone(timezone(timedelta(hours=9))),
        )
        await store.put(given)
        assert await store.latest(aggregate_id) == given

    async def test_the_latest_is_the_one_with_the_highest_sequence(
        self, store: SnapshotStore, aggregate_id: str
    ) -> None:
        # As numbers: as text 9 would come after 1000.
        for sequence in (100, 9, 1000, 999):
            await store.put(snapshot(aggregate_id, sequence))
        assert await store.latest(aggregate_id) == snapshot(aggregate_id, 1000)

    async def test_up_to_has_its_end_in_it(self, store: SnapshotStore, aggregate_id: str) -> None:
        for sequence in (100, 9, 1000):
            await store.put(snapshot(aggregate_id, sequence))
        wanted = {10_000: 1000, 1000: 1000, 999: 100, 100: 100, 99: 9, 9: 9, 8: None, 1: None, 0: None, -1: None}
        found = {up_to: await store.latest(aggregate_id, up_to=up_to) for up_to in wanted}
        assert {up_to: one and one.sequence for up_to, one in found.items()} == wanted

    async def test_another_at_the_same_sequence_takes_its_place(
        self, store: SnapshotStore, aggregate_id: str
    ) -> None:
        first = snapshot(aggregate_id, 5)
        await store.put(first)
        await store.put(first)
        second = replace(first, version=2, state=b'{"a":1}', event_id="other")
        await store.put(second)
        assert await store.latest(aggregate_id) == second
        assert await store.latest(aggregate_id, up_to=4) is None

    async def test_aggregates_do_not_see_each_other(self, store: SnapshotStore, aggregate_id: str) -> None:
        others = [f"{aggregate_id}{end}" for end in ("", "0", "#", " ", "\U0001f600")]
        for sequence, other in enumerate(others, 1):
            await store.put(snapshot(other, sequence))
        assert [await store.latest(other) for other in others] == [
            snapshot(other, sequence) for sequence, other in enumerate(others, 1)
        ]

    async def test_a_large_state_fits(self, store: SnapshotStore, aggregate_id: str) -> None:
        given = snapshot(aggregate_id, 1, b'"' + b"x" * 390_000 + b'"')
        await store.put(given)
        assert await store.latest(aggregate_id) == given

    async def test_many_at_once(self, store: SnapshotStore, aggregate_id: str) -> None:
        async with asyncio.timeout(_TIMEOUT):
            await asyncio.gather(*(store.put(snapshot(aggregate_id, 1 + n % 10)) for n in range(_CROWD)))
            found = await asyncio.gather(*(store.latest(aggregate_id, up_to=n) for n in range(1, 11)))
        assert found == [snapshot(aggregate_id, n) for n in range(1, 11)]

    async def test_opens_and_closes_as_often_as_it_is_asked(self, store: SnapshotStore, aggregate_id: str) -> None:
        await store.open()
        await store.put(snapshot(aggregate_id, 1))
        await store.close()
        await store.close()
        await store.open()
        assert await store.latest(aggregate_id) == snapshot(aggregate_id, 1)
