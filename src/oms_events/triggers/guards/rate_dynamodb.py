"""Quotas in a DynamoDB table: one item per name, one conditional write per start."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from oms_events._aio import Clock
from oms_events._aws.marshal import from_item, to_item
from oms_events._aws.table import DynamoTable
from oms_events.errors import ConditionFailedError, StorageError, StorageRejectedError
from oms_events.instrumentation.hooks import Hook, Hooks, QuotaUsedUp
from oms_events.triggers.config import Quota
from oms_events.triggers.guards.config import GuardTableConfig
from oms_events.triggers.guards.rate import check_taken, wait_for
from oms_events.triggers.guards.times import expiry, since_epoch, span
from oms_events.triggers.schema import RATE, TTL_ATTRIBUTE, rate_key

if TYPE_CHECKING:
    import aioboto3

_log = logging.getLogger("oms_events")

# `starts` has the stamps of the starts, newest first:
#
#     starts[0]  starts[1]  ...  starts[limit - count]  ...  starts[limit - 1]  ...
#   newest |---- at most `limit - count` in the window ----| left the window ---->

ROOM: Final = "(attribute_not_exists(starts[{place}]) OR starts[{place}] < :in_window)"
"""With `place` = limit - count: no more than that many starts before these are in the window. A missing index is
one that never was; the comparison alone would refuse it."""

NOT_COUNTED: Final = "NOT contains(starts, :stamp)"
"""The same request, sent again because its answer was lost, or arriving after it was given up, counts once."""

MAY_TAKE: Final = f"{ROOM} AND {NOT_COUNTED}"

THERE: Final = "attribute_exists(starts)"
"""Of a trim: without it, one that comes after TTL has deleted the item would make an empty one."""

TAKE: Final = "SET starts = list_append(:new, if_not_exists(starts, :none)), #ttl = :ttl"

_PARTS: Final = 1_000_000
"""A stamp is a time in microseconds with so many parts each, of which one is drawn: no two takes have the same."""
_SLACK: Final = 50
"""So many old starts may stay: each trim is a write."""
_TRIMMED: Final = 100
"""Indexes of one trim: an expression takes 4 KB (DynamoDB developer guide, "Quotas")."""


class DynamoDBRateLimiter(DynamoTable):
    """Counts starts in a DynamoDB table, exactly, however many instances take at the same time.

    Give a `session` (aioboto3) or a `client` (its `dynamodb` client) to use your own; neither is ever closed.
    Opens at the first use, or as `async with`. Needs `dynamodb:UpdateItem`, `GetItem` and, with `verify_table`,
    `DescribeTable`. Times are those of the instances: when their clocks differ by d, at most `limit` start in any
    `window - d` seconds.
    """

    def __init__(
        self,
        config: GuardTableConfig,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        hooks: Iterable[Hook] = (),
    ) -> None:
        super().__init__(config, config.table_name, RATE, session=session, client=client, clock=clock, rng=rng)
        self._hooks = Hooks(hooks)

    async def take(self, name: str, quota: Quota, *, count: int = 1) -> float:
        check_taken(name, quota, count)
        while True:
            now = since_epoch(self._clock.now())
            stamp = now * _PARTS + self._rng.randrange(_PARTS)
            try:
                answer = await self._take(name, quota, count, now, stamp)
            except ConditionFailedError as error:
                starts = await self._standing(error, name)
                if stamp in starts:
                    # By an earlier try, whose answer was lost.
                    return 0.0
                wait = _wait(starts, quota, count, now)
                if wait:
                    self._hooks(QuotaUsedUp(name, wait))
                    return wait
                # Read after the refusal, the item had changed.
                continue
            await self._trim(name, quota, len(_starts_of(answer.get("Attributes", {}), self.name)))
            return 0.0

    async def look(self, name: str, quota: Quota) -> float:
        check_taken(name, quota, 1)
        return _wait(await self._read(name), quota, 1, since_epoch(self._clock.now()))

    async def _take(self, name: str, quota: Quota, count: int, now: int, stamp: int) -> Mapping[str, Any]:
        window = span(quota.window)
        values = {
            ":new": [stamp] * count,
            ":none": [],
            ":stamp": stamp,
            # The parts of a microsecond make a stamp no later than its time.
            ":in_window": (now - window + 1) * _PARTS,
            ":ttl": expiry(now + window),
        }
        return await self.repeat(
            "UpdateItem",
            TableName=self.name,
            Key=to_item(rate_key(name)),
            UpdateExpression=TAKE,
            ConditionExpression=MAY_TAKE.format(place=quota.limit - count),
            ExpressionAttributeNames={"#ttl": TTL_ATTRIBUTE},
            ExpressionAttributeValues=to_item(values),
            ReturnValues="UPDATED_NEW",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )

    async def _standing(self, error: ConditionFailedError, name: str) -> Sequence[int]:
        # Endpoints and clients that do not know ReturnValuesOnConditionCheckFailure leave it out.
        item = getattr(error.__cause__, "response", {}).get("Item")
        return _starts_of(item, self.name) if item else await self._read(name)

    async def _read(self, name: str) -> Sequence[int]:
        answer = await self.repeat(
            "GetItem", TableName=self.name, Key=to_item(rate_key(name)), ConsistentRead=True
        )
        return _starts_of(answer.get("Item") or {}, self.name)

    async def _trim(self, name: str, quota: Quota, found: int) -> None:
        """Takes off what no window can have; whatever was taken meanwhile, indexes from `limit` on are old."""
        if found < quota.limit + _SLACK:
            return
        # From the end: some endpoints remove one after the other, and count anew.
        indexes = reversed(range(quota.limit, min(found, quota.limit + _TRIMMED)))
        try:
            await self.call(
                "UpdateItem",
                TableName=self.name,
                Key=to_item(rate_key(name)),
                UpdateExpression="REMOVE " + ", ".join(f"starts[{index}]" for index in indexes),
                ConditionExpression=THERE,
            )
        except StorageError as error:
            # The start is counted all the same, and the next one trims.
            _log.debug("old starts of %r stay for now: %s", name, error)


def _wait(starts: Sequence[int], quota: Quota, count: int, now: int) -> float:
    return wait_for([stamp // _PARTS for stamp in starts], quota, count, now)


def _starts_of(item: Mapping[str, Any], table: str) -> Sequence[int]:
    try:
        return [int(stamp) for stamp in from_item(item).get("starts", ())]
    except (TypeError, ValueError) as error:
        raise StorageRejectedError(
            f"an item of table {table!r} has no list of starts ({error!r}): give quotas a table of their own"
        ) from error
