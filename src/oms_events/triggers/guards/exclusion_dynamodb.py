"""Leases in a DynamoDB table: one item per key, which is never deleted, as it has the fence."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from oms_events._aio import Clock
from oms_events._aws.marshal import from_item, to_item
from oms_events._aws.table import DynamoTable
from oms_events.errors import ConditionFailedError, StorageRejectedError
from oms_events.triggers.guards.config import GuardTableConfig
from oms_events.triggers.guards.exclusion import Lease, check_lease
from oms_events.triggers.guards.times import seconds_of, since_epoch, span
from oms_events.triggers.schema import BREAKER, lease_key

if TYPE_CHECKING:
    import aioboto3

FREE: Final = "attribute_not_exists(holder)"
"""Nobody took it yet, or the last one released it."""

EXPIRED: Final = "held_until <= :now"
"""Its holder crashed, or could not renew it: it may be at work yet, under a lower fence."""

OURS_AS_TAKEN: Final = "(holder = :holder AND held_until = :until)"
"""A take sent again because its answer was lost; not over a renewal, which it would shorten."""

MAY_TAKE: Final = f"{FREE} OR {EXPIRED} OR {OURS_AS_TAKEN}"

OURS: Final = "holder = :holder"
"""Of a release: another may have taken the key."""

OURS_SHORTER: Final = f"{OURS} AND held_until <= :until"
"""Of a renewal, also after its time when nobody took the key; one that arrives late must not shorten the lease."""

TAKE: Final = "SET holder = :holder, held_until = :until ADD fence :one"
RENEW: Final = "SET held_until = :until"
RELEASE: Final = "REMOVE holder, held_until"


class DynamoDBLeases(DynamoTable):
    """Leases in a DynamoDB table, which may be that of the breakers. Items stay for ever, without TTL.

    Give a `session` (aioboto3) or a `client` (its `dynamodb` client) to use your own; neither is ever closed.
    Opens at the first use, or as `async with`. Needs `dynamodb:UpdateItem`, `GetItem` and, with `verify_table`,
    `DescribeTable`. Each call is one write.
    """

    def __init__(
        self,
        config: GuardTableConfig,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(config, config.table_name, BREAKER, session=session, client=client, clock=clock, rng=rng)

    async def take(self, key: str, *, seconds: float) -> Lease | float:
        check_lease(key, seconds)
        token = f"{self._rng.getrandbits(128):032x}"
        while True:
            now = since_epoch(self._clock.now())
            values = {":holder": token, ":until": now + span(seconds), ":now": now, ":one": 1}
            try:
                answer = await self._update(key, TAKE, MAY_TAKE, values)
            except ConditionFailedError as error:
                until = _number(await self._standing(error, key), "held_until", self.name)
                if until > now:
                    return seconds_of(until - now)
                # Read after the refusal, it was free.
                continue
            # A take that was done twice raised it twice: it rises all the same.
            return Lease(key, token, _number(answer.get("Attributes", {}), "fence", self.name))

    async def renew(self, lease: Lease, *, seconds: float) -> bool:
        check_lease(lease.key, seconds)
        until = since_epoch(self._clock.now()) + span(seconds)
        try:
            await self._update(lease.key, RENEW, OURS_SHORTER, {":holder": lease.token, ":until": until})
        except ConditionFailedError as error:
            # Ours and longer: renewed by an earlier try, or by a clock that went back.
            return (await self._standing(error, lease.key)).get("holder") == {"S": lease.token}
        return True

    async def release(self, lease: Lease) -> None:
        try:
            await self._update(lease.key, RELEASE, OURS, {":holder": lease.token})
        except ConditionFailedError:
            return

    async def _update(self, key: str, update: str, condition: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Sent again when it is not known whether it was done: twice is as once."""
        return await self.repeat(
            "UpdateItem",
            TableName=self.name,
            Key=to_item(lease_key(key)),
            UpdateExpression=update,
            ConditionExpression=condition,
            ExpressionAttributeValues=to_item(values),
            ReturnValues="UPDATED_NEW",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )

    async def _standing(self, error: ConditionFailedError, key: str) -> Mapping[str, Any]:
        # Endpoints and clients that do not know ReturnValuesOnConditionCheckFailure leave it out.
        item = getattr(error.__cause__, "response", {}).get("Item")
        if item:
            return dict(item)
        answer = await self.repeat(
            "GetItem", TableName=self.name, Key=to_item(lease_key(key)), ConsistentRead=True
        )
        return dict(answer.get("Item") or {})


def _number(item: Mapping[str, Any], name: str, table: str) -> int:
    try:
        return int(from_item(item).get(name, 0))
    except (TypeError, ValueError) as error:
        raise StorageRejectedError(
            f"an item of table {table!r} is no lease ({error!r}): give leases the breakers' table, or their own"
        ) from error
