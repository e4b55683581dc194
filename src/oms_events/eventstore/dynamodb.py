"""The event store on a DynamoDB table."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from oms_events._aio import Clock
from oms_events._aws.table import DynamoTable, identity_of
from oms_events.errors import ConfigurationError
from oms_events.eventstore.append import Append
from oms_events.eventstore.config import EventStoreConfig
from oms_events.eventstore.history import ItemPage, Token
from oms_events.eventstore.items import Item
from oms_events.eventstore.personal.cipher import FieldCipher
from oms_events.eventstore.registry import EventRegistry, default_registry
from oms_events.eventstore.schema import AGGREGATE_ID, BY_TYPE, EVENT_SEQUENCE, EVENT_STORE, EVENT_TIME, TYPE_SHARD
from oms_events.eventstore.store import EventStore
from oms_events.outbox.dynamodb import DynamoDBOutboxStore
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.outbox import Outbox
from oms_events.outbox.store import Action

if TYPE_CHECKING:
    import aioboto3


class DynamoEventTable(DynamoTable):
    """The `EventTable` on DynamoDB."""

    async def commit(self, actions: Sequence[Action], token: str) -> None:
        await self.call("TransactWriteItems", TransactItems=actions, ClientRequestToken=token)

    async def read(
        self,
        aggregate_id: str,
        *,
        after: int,
        up_to: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> ItemPage:
        condition = f"{AGGREGATE_ID} = :id AND {EVENT_SEQUENCE} > :after"
        values = {":id": {"S": aggregate_id}, ":after": {"N": str(after)}}
        if up_to is not None:
            if up_to <= after:
                return ItemPage([], None)
            # A key condition takes one comparison of the sort key.
            condition = f"{AGGREGATE_ID} = :id AND {EVENT_SEQUENCE} BETWEEN :first AND :last"
            values = {":id": {"S": aggregate_id}, ":first": {"N": str(after + 1)}, ":last": {"N": str(up_to)}}
        return await self._query(condition, values, limit, newest_first=newest_first, ConsistentRead=True)

    async def read_shard(
        self,
        shard: str,
        *,
        since: str,
        until: str | None,
        start: Token | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> ItemPage:
        parameters: dict[str, Any] = {} if start is None else {"ExclusiveStartKey": start}
        condition, values = f"{TYPE_SHARD} = :shard", {":shard": {"S": shard}}
        if since and until is not None:
            # BETWEEN has its upper end in it: what is there is cut off below.
            condition += f" AND {EVENT_TIME} BETWEEN :since AND :until"
        elif since:
            condition += f" AND {EVENT_TIME} >= :since"
        elif until is not None:
            condition += f" AND {EVENT_TIME} < :until"
        if since:
            values[":since"] = {"S": since}
        if until is not None:
            values[":until"] = {"S": until}
        page = await self._query(
            condition, values, limit, newest_first=newest_first, IndexName=BY_TYPE, **parameters
        )
        if until is None:
            return page
        return page._replace(items=[item for item in page.items if item[EVENT_TIME]["S"] < until])

    async def scan(
        self, *, start: Token | None = None, segment: int = 0, segments: int = 1, limit: int | None = None
    ) -> ItemPage:
        parameters: dict[str, Any] = {} if start is None else {"ExclusiveStartKey": start}
        if limit is not None:
            parameters["Limit"] = limit
        if segments > 1:
            parameters |= {"Segment": segment, "TotalSegments": segments}
        answer = await self.repeat("Scan", TableName=self.name, ConsistentRead=True, **parameters)
        return ItemPage(answer["Items"], answer.get("LastEvaluatedKey"))

    async def get(self, key: Mapping[str, Any]) -> Item | None:
        answer = await self.repeat("GetItem", TableName=self.name, Key=key, ConsistentRead=True)
        return answer.get("Item")

    async def _query(
        self,
        condition: str,
        values: Mapping[str, Any],
        limit: int | None,
        *,
        newest_first: bool,
        **parameters: Any,
    ) -> ItemPage:
        if limit is not None:
            parameters["Limit"] = limit
        if newest_first:
            parameters["ScanIndexForward"] = False
        answer = await self.repeat(
            "Query",
            TableName=self.name,
            KeyConditionExpression=condition,
            ExpressionAttributeValues=values,
            **parameters,
        )
        return ItemPage(answer["Items"], answer.get("LastEvaluatedKey"))


class DynamoDBEventStore(EventStore):
    """The event store in a DynamoDB table, as the preset `event-sourcing` has it.

    Give a `session` (aioboto3) or a `client` (its `dynamodb` client) to use your own; neither is ever closed.
    Appends with an outbox go through the outbox's connection: it must lead to the same account and Region, which
    the first append makes sure of, unless `verify_table` is off. Needs `dynamodb:PutItem`, `ConditionCheckItem`,
    `GetItem`, `Query`, `Scan` for what reads all, and `DescribeTable`.
    """

    table: DynamoEventTable

    def __init__(
        self,
        config: EventStoreConfig,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
        outbox: Outbox | None = None,
        registry: EventRegistry = default_registry,
        cipher: FieldCipher | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        _check_arguments(config, outbox)
        table = DynamoEventTable(
            config, config.table_name, EVENT_STORE, session=session, client=client, clock=clock, rng=rng
        )
        super().__init__(table, config, outbox=outbox, registry=registry, cipher=cipher, clock=clock, rng=rng)
        self._is_same_place = outbox is None or not config.verify_table

    async def _commit(self, append: Append) -> None:
        if not self._is_same_place:
            await self._check_place()
        await super()._commit(append)

    async def _check_place(self) -> None:
        """Looks at the table through the outbox's connection too.

        In another Region or account a table of the same name may be there: appends would go to that one, and all
        reads to this one.
        """
        await self.ensure_open()
        outbox = self.outbox
        if outbox is not None and isinstance(store := outbox.store, DynamoDBOutboxStore):
            await outbox.open()
            found = identity_of(await self.table.retried(lambda: store.describe(self.table.name)))
            if found != self.table.identity:
                seen = "sees no such table" if found is None else "leads to another table of this name"
                problem = (
                    f"the connection of the outbox (table {store.table!r}) {seen}: give the outbox the Region and "
                    "the account of the event store"
                )
                raise ConfigurationError(f"table {self.table.name!r}", [problem])
        self._is_same_place = True


def _check_arguments(config: object, outbox: object) -> None:
    problems = []
    if not isinstance(config, EventStoreConfig):
        problems.append(f"config is {type(config).__name__}; give an EventStoreConfig(table_name=...)")
    if outbox is not None and not isinstance(outbox, Outbox):
        problems.append(f"outbox is {type(outbox).__name__}; give a DynamoDBOutbox, or leave it out")
    elif isinstance(outbox, Outbox) and isinstance(outbox.store, MemoryOutboxStore):
        problems.append(
            "outbox is one in memory, which would keep the events from the table: give a DynamoDBOutbox"
        )
    if problems:
        raise ConfigurationError("DynamoDBEventStore", problems)
