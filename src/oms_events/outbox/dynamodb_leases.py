"""Heartbeats and leases on DynamoDB: one partition that every processor reads as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from oms_events.errors import ConditionFailedError
from oms_events.outbox import expressions, schema
from oms_events.outbox.dynamodb_calls import DynamoCalls
from oms_events.outbox.records import Bucket, Coordination, Lease, Member


class DynamoLeases(DynamoCalls):
    """The part of the store that coordinates processors."""

    async def read_coordination(self) -> Coordination:
        members: dict[str, Member] = {}
        leases: dict[Bucket, Lease] = {}
        values = {":pk": expressions.text(schema.COORDINATION)}
        page: Mapping[str, Any] = {}
        while not page or "LastEvaluatedKey" in page:
            page = await self._page("pk = :pk", values, start=page.get("LastEvaluatedKey"))
            for item in page["Items"]:
                sk = item["sk"]["S"]
                if sk.startswith(schema.MEMBER):
                    member = schema.read_member(item)
                    members[member.id] = member
                elif sk.startswith(schema.LEASE):
                    lease = schema.read_lease(item)
                    leases[lease.bucket] = lease
        return Coordination(members, leases)

    async def beat(self, member: Member) -> None:
        await self._call("PutItem", TableName=self.table, Item=schema.member_item(member))

    async def forget(self, member: Member) -> bool:
        return await self._change(
            "DeleteItem",
            TableName=self.table,
            Key=schema.member_key(member),
            ConditionExpression=expressions.SAME_BEAT,
            ExpressionAttributeValues={":beat": expressions.number(member.beat)},
        )

    async def take(self, lease: Lease, owner: str, *, silent: Member | None = None) -> Lease | None:
        """See `OutboxStore.take`. With `silent`, `wake` is what it was when the lease was read."""
        condition, values = expressions.lease_condition(lease)
        taking = self._update(
            schema.lease_key(lease.bucket),
            "SET o = :owner ADD n :one",
            {**values, ":owner": expressions.text(owner), ":one": expressions.number(1)},
            condition=condition,
        )
        try:
            if silent is None:
                answer = await self._call("UpdateItem", **taking, ReturnValues="ALL_NEW")
                return schema.read_lease(answer["Attributes"])
            await self._transact({"Update": taking}, {"ConditionCheck": self._is_silent(silent)})
        except ConditionFailedError:
            return None
        return replace(lease, owner=owner, version=lease.version + 1)

    async def release(self, lease: Lease, *, low: int = 0) -> bool:
        condition, values = expressions.lease_condition(lease, wake=True)
        releasing = self._update(
            schema.lease_key(lease.bucket),
            "SET l = :low REMOVE o",
            {**values, ":low": expressions.number(low)},
            condition=condition,
        )
        return await self._change("UpdateItem", **releasing)

    async def wake(self, bucket: Bucket) -> None:
        waking = self._update(schema.lease_key(bucket), "ADD w :one", {":one": expressions.number(1)})
        await self._call("UpdateItem", **waking)

    def _is_silent(self, member: Member) -> dict[str, Any]:
        return {
            "TableName": self.table,
            "Key": schema.member_key(member),
            "ConditionExpression": expressions.SILENT,
            "ExpressionAttributeValues": {":beat": expressions.number(member.beat)},
        }
