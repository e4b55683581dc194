"""A writer as its own process has it: transactions of business items with events about them.

Each item names its events, in order, and the `after`: events of the same key that were known to be committed
before this transaction began to commit.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from oms_events import build_event
from oms_events._aio import cancel_and_wait
from oms_events._aws.config import AwsConfig
from oms_events._aws.dynamodb import DynamoClient
from oms_events._aws.marshal import from_item
from oms_events.errors import CommitOutcomeUnknownError, ConditionFailedError
from oms_events.outbox.dynamodb import DynamoDBOutboxStore
from oms_events.outbox.outbox import Outbox
from oms_events.outbox.store import Action
from tests.outbox.processes.gates import COMMITTED, RESERVED, Gates
from tests.outbox.processes.ground import SOURCE, TAKEN, TYPE, Ground, Journal
from tests.outbox.support import dynamo_client

_TASKS: Final = 4
_SHARED: Final = ("shared-0", "shared-1", "shared-2")
"""Keys that all writers write; each has keys of its own besides."""
_LONGEST_PAUSE: Final = 0.08


class WatchedStore(DynamoDBOutboxStore):
    """The store, with places to strike before and after each commit."""

    def __init__(self, ground: Ground, gates: Gates) -> None:
        super().__init__(ground.outbox)
        self._gates = gates

    async def commit(self, actions: Sequence[Action], token: str) -> None:
        await self._gates.at(RESERVED)
        await super().commit(actions, token)
        await self._gates.at(COMMITTED)


class SecondThoughtsError(Exception):
    """The service has thought better of it, inside its transaction."""


class Writer:
    """One of a writer's tasks: one transaction after the other, until it is stopped."""

    def __init__(self, name: str, ground: Ground, outbox: Outbox, dynamo: DynamoClient, journal: Journal) -> None:
        self._name = name
        self._ground = ground
        self._outbox = outbox
        self._dynamo = dynamo
        self._journal = journal
        self._rng = random.Random(name)
        self._number = 0
        # Per key: what comes before this task's last committed event, itself included, and that event.
        self._covered: defaultdict[str, set[str]] = defaultdict(set)
        self._last: dict[str, str] = {}

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._write()
            await asyncio.sleep(self._rng.uniform(0, _LONGEST_PAUSE))

    async def _write(self) -> None:
        self._number += 1
        name = f"{self._name}.{self._number}"
        kind = self._rng.choices(("plain", "refused", "changed"), (16, 3, 1))[0]
        items = [await self._item(name, key) for key in self._keys()]
        try:
            async with self._outbox.transaction() as tx:
                for item in items:
                    tx.put(self._ground.items, item, condition="attribute_not_exists(pk)")
                    for event in item["events"]:
                        tx.add(_event(event, item["pk"]))
                if kind == "refused":
                    tx.put(self._ground.items, TAKEN, condition="attribute_not_exists(pk)")
                elif kind == "changed":
                    raise SecondThoughtsError
        except (ConditionFailedError, SecondThoughtsError):
            self._journal.note("refused", *(event for item in items for event in item["events"]))
        except CommitOutcomeUnknownError:
            self._journal.note("unknown")
        else:
            self._journal.note("committed")
            self._remember(items)

    def _keys(self) -> Sequence[str]:
        mine = f"own-{self._name}"
        draw = self._rng.random()
        if draw < 0.2:
            return [""]
        if draw < 0.55:
            return [mine]
        if draw < 0.8:
            return [self._rng.choice(_SHARED)]
        return [mine, self._rng.choice((*_SHARED, ""))]

    async def _item(self, name: str, key: str) -> dict[str, Any]:
        count = self._rng.choice((1, 1, 2))
        events = [f"{name}.{key or 'none'}.{number}" for number in range(count)]
        # An empty attribute cannot be a key.
        return {"pk": key or "none", "sk": name, "events": events, "after": await self._known(key)}

    async def _known(self, key: str) -> list[str]:
        if not key:
            return []
        last = [self._last[key]] if key in self._last else []
        if key not in _SHARED:
            return last
        query = {
            "TableName": self._ground.items,
            "KeyConditionExpression": "pk = :key",
            "ExpressionAttributeValues": {":key": {"S": key}},
            "ConsistentRead": True,
        }
        answer = await self._dynamo.call("Query", query, table=self._ground.items)
        found = [event for item in answer["Items"] for event in from_item(item)["events"]]
        return last + [event for event in found if event not in self._covered[key]]

    def _remember(self, items: Sequence[dict[str, Any]]) -> None:
        for item in items:
            self._covered[item["pk"]].update(item["after"], item["events"])
            self._last[item["pk"]] = item["events"][-1]


def _event(event_id: str, key: str) -> Any:
    data = {"id": event_id, "key": key}
    extensions: dict[str, Any] = {} if key == "none" else {"partitionkey": key}
    return build_event(TYPE, SOURCE, data, id=event_id, **extensions)


@asynccontextmanager
async def writing(name: str, ground: Ground, gates: Gates) -> AsyncIterator[None]:
    """A writer that writes; at the end its last transactions are finished."""
    journal = ground.journal(name)
    store = WatchedStore(ground, gates)
    tasks: list[asyncio.Task[None]] = []
    try:
        async with Outbox(store, ground.outbox) as outbox, dynamo_client(AwsConfig(**ground.aws)) as dynamo:
            for number in range(_TASKS):
                writer = Writer(f"{name}.{number}", ground, outbox, dynamo, journal)
                tasks.append(asyncio.create_task(writer.run(gates.stop), name=f"writer-{number}"))
            yield
            await asyncio.gather(*tasks)
    finally:
        await cancel_and_wait(*tasks)
        journal.close()
