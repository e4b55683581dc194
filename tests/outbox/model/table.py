"""The shared table: a memory store whose reads are read-committed, as DynamoDB's queries are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from oms_events.errors import StorageOutcomeUnknownError, StorageUnavailableError
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.records import DeadLetter, Page, Partition, RecordState, StoredRecord, partition_key
from oms_events.outbox.schema import parse_partition, read_record
from oms_events.outbox.store import Action

if TYPE_CHECKING:
    from tests.outbox.model.world import Host, World


class Table(MemoryOutboxStore):
    """A transaction is done in one moment, but its items show in queries one by one until a moment later.

    A query that began before then may show any of them and not the others. `probe` is serializable: it shows all
    of them or none, or is refused because of the transaction.
    """

    def __init__(self, world: World) -> None:
        super().__init__(refuse=lambda action: "refused" in action["Put"]["Item"])
        self._world = world
        self._done: set[str] = set()
        self._ticks = 0
        self._being_written: set[tuple[Partition, str]] = set()
        self._shown_from: dict[tuple[Partition, str], int] = {}
        self._event_at: dict[tuple[Partition, str], str] = {}

    async def commit(self, actions: Sequence[Action], token: str) -> None:
        await super().commit(actions, token)
        world = self._world
        if token in self._done:
            world.count("token again")
            return
        self._done.add(token)
        step, places = world.next_step(), []
        for action in actions:
            item = action["Put"]["Item"]
            if action["Put"]["TableName"] == self.table:
                partition = parse_partition(item["pk"]["S"])
                event = read_record(partition, item).event
                if event is not None:
                    world.applied(event.id, step)
                    world.note(event.id, f"committed at {partition_key(partition)} {item['sk']['S']}")
                    places.append((partition, item["sk"]["S"]))
                    self._event_at[places[-1]] = event.id
        self._being_written.update(places)
        try:
            await asyncio.sleep(world.some_time())
        finally:
            self._being_written.difference_update(places)
            self._show(places)

    def _show(self, places: Iterable[tuple[Partition, str]]) -> None:
        """Seen once, an item is there for every query that begins later."""
        self._ticks += 1
        for place in places:
            self._shown_from.setdefault(place, self._ticks)

    async def read(self, partition: Partition, *, after: str | None = None, limit: int = 100) -> Page:
        world = self._world
        self._ticks += 1
        started = self._ticks
        await asyncio.sleep(world.some_time())
        page = await super().read(partition, after=after, limit=limit)
        shown = [record for record in page.records if self._is_shown(record, started)]
        self._show((partition, record.sk) for record in shown)
        if len(shown) == len(page.records):
            return page
        world.count("records not shown", len(page.records) - len(shown))
        if page.next is None:
            return Page(shown, None)
        return Page(shown, shown[-1].sk) if shown else page

    def _is_shown(self, record: StoredRecord, started: int) -> bool:
        place = record.partition, record.sk
        if place not in self._event_at or (place in self._shown_from and self._shown_from[place] < started):
            return True
        return self._world.rng.random() < 0.5

    async def probe(self, partition: Partition, sks: Sequence[str]) -> Sequence[StoredRecord]:
        found = await super().probe(partition, sks)
        if any((partition, sk) in self._being_written for sk in sks):
            self._world.count("probes in conflict")
            raise StorageUnavailableError("a transaction is writing it")
        self._world.count("probed and there", len(found))
        return found

    async def update(self, partition: Partition, sk: str, state: RecordState) -> RecordState | None:
        now = await super().update(partition, sk, state)
        self._world.count("updates" if now is not None else "late updates")
        if now is not None and now.plan is not None:
            self._world.written[self._event_at[partition, sk]].plan = now.plan
        return now

    async def bury(self, letter: DeadLetter, state: RecordState | None) -> bool:
        stored = await super().bury(letter, state)
        self._world.count("buried" if stored else "late burials")
        if stored and letter.event is not None:
            written = self._world.written[letter.event.id]
            written.dead.update(letter.platforms)
            written.plan = written.plan or letter.plan
        return stored

    def note(self, host: str, name: str, args: Sequence[Any], answer: Any) -> None:
        """Writes into the history of each event what a host did with its record."""
        records: Sequence[StoredRecord] = ()
        if name == "read":
            records = answer.records
        elif name == "probe":
            records = answer
        for record in records:
            self._note(record.partition, record.sk, f"{host} {name}: {record.state}")
        if name == "update":
            self._note(args[0], args[1], f"{host} update {args[2]} -> {answer}")
        elif name == "remove":
            for sk in args[1]:
                self._note(args[0], sk, f"{host} remove")
        elif name == "bury":
            letter, state = args
            text = f"{host} bury {letter.platforms} {letter.code} {state} -> {answer}"
            self._note(letter.origin, letter.origin_sk, text)

    def _note(self, partition: Partition, sk: str, text: str) -> None:
        event_id = self._event_at.get((partition, sk))
        if event_id is not None:
            self._world.note(event_id, text)

    def note_requeued(self, letter: DeadLetter, partition: Partition, sk: str) -> None:
        if letter.event is not None:
            self._event_at[partition, sk] = letter.event.id
            self._show([(partition, sk)])

    @property
    def pending(self) -> list[StoredRecord]:
        """All records that are in the table."""
        return [record for rows in self._rows.values() for record in rows.by_sk.values()]

    @property
    def letters(self) -> list[DeadLetter]:
        return list(self._letters.values())


_READS = frozenset(("read", "probe", "count", "read_coordination", "read_layout", "dead_letters"))


class HostStore:
    """The table as one host sees it: calls take time, are held by a pause, lost in a crash, and may fail."""

    def __init__(self, table: Table, host: Host) -> None:
        self.table = table.table
        self.put_action = table.put_action
        self._table = table
        self._host = host

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._table, name)

        async def call(*args: Any, **options: Any) -> Any:
            await self._host.hop()
            fault = self._host.next_fault(name)
            if fault == "refused" or (fault is not None and name in _READS):
                raise StorageUnavailableError("throttled")
            if fault == "not sent":
                raise StorageOutcomeUnknownError("sent, and never arrived")
            answer = await method(*args, **options)
            self._table.note(self._host.name, name, args, answer)
            if fault == "lost answer":
                raise StorageOutcomeUnknownError("done, and the answer was lost")
            await self._host.hop()
            return answer

        return call
