"""The event store on a DynamoDB table."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from oms_events._aio import Clock
from oms_events.eventstore.config import EventStoreConfig
from oms_events.eventstore.history import ItemPage, Token
from oms_events.eventstore.items import Item
from oms_events.eventstore.personal import FieldCipher
from oms_events.eventstore.registry import EventRegistry, default_registry
from oms_events.eventstore.schema import AGGREGATE_ID, BY_TYPE, EVENT_SEQUENCE, EVENT_STORE, EVENT_TIME, TYPE_SHARD
from oms_events.eventstore.store import EventStore
from oms_events.eventstore.table import DynamoTable
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
        limit: int | None = None,
        newest_first: bool = False,
    ) -> ItemPage:
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
        page = await self._query(condition, values, limit, newest_first=newest_first, IndexName=BY_TYPE)
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
    The outbox must be in the same account and region. Needs `dynamodb:PutItem`, `ConditionCheckItem`, `GetItem`,
    `Query`, `Scan` for what reads all, and `DescribeTable`.
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
        table = DynamoEventTable(
            config, config.table_name, EVENT_STORE, session=session, client=client, clock=clock, rng=rng
        )
        super().__init__(table, config, outbox=outbox, registry=registry, cipher=cipher, clock=clock, rng=rng)
