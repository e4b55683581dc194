"""The outbox on one DynamoDB table: layout, writing, reading, settling; letters and leases stand beside."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from oms_events.errors import (
    ConditionFailedError,
    EpochClosedError,
    StorageError,
    StorageRejectedError,
    StorageUnavailableError,
    TransactionCanceledError,
)
from oms_events.outbox import expressions, schema
from oms_events.outbox.dynamodb_calls import next_sk, refusal
from oms_events.outbox.dynamodb_leases import DynamoLeases
from oms_events.outbox.dynamodb_letters import DynamoLetters
from oms_events.outbox.records import (
    Bucket,
    Count,
    Layout,
    NewRecord,
    Page,
    Partition,
    RecordState,
    StoredRecord,
    as_tried_as,
    partition_key,
)
from oms_events.outbox.store import Action
from oms_events.resilience.backoff import RetryConfig

_MAX_PROBED: Final = 100
_COUNTED_PAGES: Final = 8
_BATCH: Final = 25
_REMOVERS: Final = 4
# Unprocessed removals: 0.05 s at first, about 6 s in all.
_UNPROCESSED: Final = RetryConfig(max_attempts=9, initial=0.05, maximum=2.0)


class DynamoDBOutboxStore(DynamoLetters, DynamoLeases):
    """The `OutboxStore` on a DynamoDB table; `oms_events.outbox.table` makes one.

    Give a `session` (aioboto3) or a `client` (its `dynamodb` client) to use your own; neither is ever closed. A
    session brings its own credentials, a client also its own region, endpoint and connections: those fields of
    `config` count for nothing then. Every call is sent once and ends within `connect_timeout` and `read_timeout`
    together; a transaction of the store's own whose answer is lost is sent once more with its token.
    """

    # ------------------------------------------------------------------ layout

    async def read_layout(self) -> Layout | None:
        item = await self._get(schema.LAYOUT_KEY)
        return None if item is None else schema.read_layout(item)

    async def write_layout(self, layout: Layout) -> bool:
        first = layout.revision == 1
        values = {} if first else {"ExpressionAttributeValues": {":old": expressions.number(layout.revision - 1)}}
        return await self._change(
            "PutItem",
            TableName=self.table,
            Item=schema.layout_item(layout),
            ConditionExpression=schema.NOT_THERE if first else expressions.SAME_REVISION,
            **values,
        )

    async def close_counter(self, bucket: Bucket) -> None:
        closing = self._update(schema.counter_key(bucket), "SET x = :yes", {":yes": {"BOOL": True}})
        await self._call("UpdateItem", **closing)

    # ------------------------------------------------------------------ writing

    async def reserve(self, bucket: Bucket, count: int) -> int:
        adding = self._update(
            schema.counter_key(bucket),
            "ADD n :count",
            {":count": expressions.number(count)},
            condition=expressions.NOT_CLOSED,
        )
        try:
            answer = await self._call("UpdateItem", **adding, ReturnValues="UPDATED_NEW")
        except ConditionFailedError as error:
            raise EpochClosedError(f"{bucket} takes no more reservations: read the layout again") from error
        return int(answer["Attributes"]["n"]["N"]) - count + 1

    def put_action(self, record: NewRecord) -> Action:
        return {
            "Put": {
                "TableName": self.table,
                "Item": schema.record_item(record),
                "ConditionExpression": schema.NOT_THERE,
            }
        }

    async def commit(self, actions: Sequence[Action], token: str) -> None:
        await self._call("TransactWriteItems", TransactItems=actions, ClientRequestToken=token)

    # ------------------------------------------------------------------ reading

    async def read(self, partition: Partition, *, after: str | None = None, limit: int = 100) -> Page:
        condition, values = "pk = :pk", {":pk": expressions.text(partition_key(partition))}
        if after is not None:
            condition, values = f"{condition} AND sk > :after", values | {":after": expressions.text(after)}
        page = await self._page(condition, values, limit=limit)
        return Page([schema.read_record(partition, item) for item in page["Items"]], next_sk(page))

    async def probe(self, partition: Partition, sks: Sequence[str]) -> Sequence[StoredRecord]:
        wanted = sorted(set(sks))
        if len(wanted) > _MAX_PROBED:
            raise StorageRejectedError(f"{len(wanted)} records probed at once; at most {_MAX_PROBED} are")
        return [schema.read_record(partition, item) for item in await self._get_together(partition, wanted)]

    async def count(self, partition: Partition, *, limit: int) -> Count:
        """See `OutboxStore.count`; of large records at most 8 MB are read, and `bounded` says so."""
        values = {":pk": expressions.text(partition_key(partition))}
        pending, oldest, start = 0, None, None
        for _ in range(_COUNTED_PAGES):
            page = await self._page("pk = :pk", values, start=start, limit=limit + 1, ProjectionExpression="a")
            if oldest is None and page["Items"]:
                oldest = schema.read_added(page["Items"][0])
            pending += page["Count"]
            start = page.get("LastEvaluatedKey")
            if start is None or pending > limit:
                break
        return Count(min(pending, limit), pending > limit or start is not None, oldest)

    # ------------------------------------------------------------------ settling

    async def remove(self, partition: Partition, sks: Sequence[str]) -> None:
        wanted = list(dict.fromkeys(sks))
        batches = iter([wanted[start : start + _BATCH] for start in range(0, len(wanted), _BATCH)])
        failures: list[StorageError] = []
        async with asyncio.TaskGroup() as group:
            for number in range(min(_REMOVERS, -(-len(wanted) // _BATCH))):
                work = self._remove_all(partition, batches, failures)
                group.create_task(work, name=f"oms-events-outbox-remove-{number}")
        if failures:
            raise failures[0]

    async def update(self, partition: Partition, sk: str, state: RecordState) -> RecordState | None:
        while True:
            expression = expressions.state_update(state)
            updating = self._update(
                schema.record_key(partition, sk),
                expression.update,
                expression.values,
                condition=f"{expressions.SAME_GENERATION} AND {expressions.NOT_MORE_TRIED}",
                names=expression.names,
            )
            try:
                answer = await self._call(
                    "UpdateItem",
                    **updating,
                    ReturnValues="ALL_NEW",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except ConditionFailedError as error:
                found = _state_found(error)
                if found is None or found.generation != state.generation:
                    return None
                state = as_tried_as(state, found)
            else:
                return schema.read_state(answer["Attributes"])

    async def forget_plan(self, partition: Partition, sk: str, *, generation: int) -> bool:
        forgetting = self._update(
            schema.record_key(partition, sk),
            "SET g = :next REMOVE p",
            {":g": expressions.number(generation), ":next": expressions.number(generation + 1)},
            condition=f"{expressions.SAME_GENERATION} AND {expressions.PLANNED}",
        )
        return await self._change("UpdateItem", **forgetting)

    # ------------------------------------------------------------------

    async def _get_together(self, partition: Partition, sks: Sequence[str]) -> list[Mapping[str, Any]]:
        if not sks:
            return []
        gets = [{"Get": {"TableName": self.table, "Key": schema.record_key(partition, sk)}} for sk in sks]
        try:
            answer = await self._call("TransactGetItems", TransactItems=gets)
        except (TransactionCanceledError, StorageRejectedError) as error:
            reason = refusal(error) if isinstance(error, TransactionCanceledError) else error
            if not isinstance(reason, StorageRejectedError) or len(sks) == 1:
                raise reason from error
            # More than 4 MB together. Each half is a serializable read of its own, which is all that is asked.
            half = len(sks) // 2
            first = await self._get_together(partition, sks[:half])
            return first + await self._get_together(partition, sks[half:])
        return [response["Item"] for response in answer["Responses"] if response.get("Item")]

    async def _remove_all(
        self, partition: Partition, batches: Iterator[Sequence[str]], failures: list[StorageError]
    ) -> None:
        for batch in batches:
            try:
                await self._remove(partition, batch)
            except StorageError as error:
                failures.append(error)

    async def _remove(self, partition: Partition, sks: Sequence[str]) -> None:
        requests: Sequence[Any] = [{"DeleteRequest": {"Key": schema.record_key(partition, sk)}} for sk in sks]
        for attempt in range(1, _UNPROCESSED.max_attempts + 1):
            answer = await self._call("BatchWriteItem", RequestItems={self.table: requests})
            requests = next(iter((answer.get("UnprocessedItems") or {}).values()), ())
            if not requests:
                return
            if attempt < _UNPROCESSED.max_attempts:
                await self._clock.sleep(_UNPROCESSED.delay(attempt, self._rng.random))
        raise StorageUnavailableError(
            f"table {self.table!r} left {len(requests)} removals unprocessed {_UNPROCESSED.max_attempts} times: "
            "it is throttled; give it more write capacity",
            code="UnprocessedItems",
        )


def _state_found(error: ConditionFailedError) -> RecordState | None:
    """The state of the record whose condition failed; None when there is none."""
    item = getattr(error.__cause__, "response", {}).get("Item")
    return schema.read_state(item) if item else None
