"""Snapshots in a DynamoDB table of their own."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from oms_events._aio import Clock
from oms_events._aws.table import DynamoTable
from oms_events.errors import StorageRejectedError
from oms_events.eventstore.aggregates.snapshots import Snapshot
from oms_events.eventstore.config import SnapshotConfig
from oms_events.eventstore.schema import AGGREGATE_ID, EVENT_SEQUENCE, SNAPSHOTS
from oms_events.outbox.schema import ITEM_LIMIT, item_size

if TYPE_CHECKING:
    import aioboto3

_EVENT_ID: Final = "EventId"
_AGGREGATE: Final = "AggregateName"
_VERSION: Final = "SnapshotVersion"
_STATE: Final = "State"
_TIME: Final = "SnapshotTime"


class DynamoDBSnapshotStore(DynamoTable):
    """Snapshots in a DynamoDB table, as the preset `event-sourcing` has it. One item takes 400 KB.

    Give a `session` (aioboto3) or a `client` (its `dynamodb` client) to use your own; neither is ever closed.
    Opens at the first use, or as `async with`. Needs `dynamodb:Query`, `PutItem` for who writes, and
    `DescribeTable`.
    """

    def __init__(
        self,
        config: SnapshotConfig,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(
            config, config.table_name, SNAPSHOTS, session=session, client=client, clock=clock, rng=rng
        )

    async def latest(self, aggregate_id: str, *, up_to: int | None = None) -> Snapshot | None:
        """See `SnapshotStore.latest`: one item is read, strongly consistent."""
        condition, values = f"{AGGREGATE_ID} = :id", {":id": {"S": aggregate_id}}
        if up_to is not None:
            condition += f" AND {EVENT_SEQUENCE} <= :up_to"
            values[":up_to"] = {"N": str(up_to)}
        answer = await self.repeat(
            "Query",
            TableName=self.name,
            KeyConditionExpression=condition,
            ExpressionAttributeValues=values,
            ConsistentRead=True,
            ScanIndexForward=False,
            Limit=1,
        )
        items = answer["Items"]
        return _read(items[0]) if items else None

    async def put(self, snapshot: Snapshot) -> None:
        """See `SnapshotStore.put`. Raises `StorageRejectedError` for a state that is too large."""
        item = _item(snapshot)
        size = item_size(item)
        if size > ITEM_LIMIT:
            raise StorageRejectedError(
                f"the snapshot of {snapshot.aggregate_id!r} at {snapshot.sequence} has {size} bytes, but a "
                f"DynamoDB item takes {ITEM_LIMIT}: keep in the state only what `decide` needs"
            )
        await self.repeat("PutItem", TableName=self.name, Item=item)


def _item(snapshot: Snapshot) -> dict[str, dict[str, Any]]:
    return {
        AGGREGATE_ID: {"S": snapshot.aggregate_id},
        EVENT_SEQUENCE: {"N": str(snapshot.sequence)},
        _EVENT_ID: {"S": snapshot.event_id},
        _AGGREGATE: {"S": snapshot.aggregate},
        _VERSION: {"N": str(snapshot.version)},
        _STATE: {"S": snapshot.state.decode()},
        _TIME: {"S": snapshot.time.isoformat()},
    }


def _read(item: Mapping[str, Any]) -> Snapshot:
    try:
        return Snapshot(
            aggregate_id=item[AGGREGATE_ID]["S"],
            sequence=int(item[EVENT_SEQUENCE]["N"]),
            event_id=item[_EVENT_ID]["S"],
            aggregate=item[_AGGREGATE]["S"],
            version=int(item[_VERSION]["N"]),
            state=item[_STATE]["S"].encode(),
            time=datetime.fromisoformat(item[_TIME]["S"]),
        )
    except KeyError as error:
        raise ValueError(f"the item has no attribute {error}") from error
