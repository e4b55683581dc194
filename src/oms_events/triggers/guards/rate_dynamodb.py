"""Quotas in a DynamoDB table: one item per name, one conditional write per start."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from oms_events._aio import Clock
from oms_events._aws.marshal import from_item, to_item
from oms_events._aws.table import DynamoTable
from oms_events.errors import (
    ConditionFailedError,
    StorageError,
    StorageOutcomeUnknownError,
    StorageRejectedError,
    StorageUnavailableError,
)
from oms_events.instrumentation.hooks import Hook, Hooks, QuotaUsedUp
from oms_events.triggers.config import Quota
from oms_events.triggers.guards.config import GuardTableConfig
from oms_events.triggers.guards.rate import (
    MAX_MARK,
    check_name,
    check_taken,
    mark_until,
    superfluous,
    used_of,
    wait_for,
)
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

NONE_WAIT: Final = "(attribute_not_exists(waiting_until) OR waiting_until <= :now)"
"""Of a fresh start: none is marked as waiting that has to go first."""

MAY_TAKE: Final = f"{ROOM} AND {NOT_COUNTED}"
MAY_TAKE_FRESH: Final = f"{MAY_TAKE} AND {NONE_WAIT}"

LONGER: Final = "(attribute_not_exists(waiting_until) OR waiting_until < :until)"
"""Of a mark: whoever waits longest counts."""

THERE: Final = "attribute_exists(starts)"
"""Of a trim: without it, one that comes after TTL has deleted the item would make an empty one."""

SAYS_SOMETHING: Final = "attribute_exists(starts) OR attribute_exists(waiting_until)"
"""Of a reset."""

TAKE: Final = "SET starts = list_append(:new, if_not_exists(starts, :none)), #ttl = :ttl"
MARK: Final = "SET waiting_until = :until, #ttl = :ttl"
RESET: Final = "REMOVE starts, waiting_until"

_PARTS: Final = 1_000_000
"""A stamp is a time in microseconds with so many parts each, of which one is drawn: no two takes have the same."""
_LATE: Final = 0.25
"""A start that is let through later than this part of its window, after the time that it is counted at, ..."""
_LATEST: Final = 5.0
"""... or after so many seconds, is counted again: else more could start in a window than its limit."""
_TRIMMED: Final = 100
"""Indexes of one trim: an expression takes 4 KB (DynamoDB developer guide, "Quotas")."""


class DynamoDBRateLimiter(DynamoTable):
    """Counts starts in a DynamoDB table, exactly, however many instances take at the same time.

    Give a `session` (aioboto3) or a `client` (its `dynamodb` client) to use your own; neither is ever closed.
    Opens at the first use, or as `async with`. Needs `dynamodb:UpdateItem`, `GetItem` and, with `verify_table`,
    `DescribeTable`. Times are those of the instances: when their clocks differ by d, at most `limit` start in any
    `window - d` seconds, less the time that DynamoDB takes to answer. An answer that takes a quarter of the
    window, or 5 s, does not let a start through: it is counted again, which may leave fewer. All attempts
    together are those of `config.retry`; then a `StorageError` is raised.
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

    async def take(self, name: str, quota: Quota, *, count: int = 1, waited: bool = False) -> float:
        check_taken(name, quota, count)
        await self.ready()
        stamp, attempt = self._stamp(quota), 0
        while True:
            attempt += 1
            try:
                found = await self._take(name, quota, count, stamp, waited=waited)
            except ConditionFailedError as error:
                standing = await self._standing(error, name)
                # Counted it was by an earlier attempt, whose answer was lost.
                if stamp.value not in standing.starts:
                    wait = standing.wait(quota, count, stamp.time, waited=waited)
                    if wait:
                        if not waited:
                            self._hooks(QuotaUsedUp(name, wait))
                        return wait
                    # Read after the refusal, the item had changed.
                    stamp = self._next_stamp(attempt, name, quota)
                    continue
                found = len(standing.starts)
            except (StorageUnavailableError, StorageOutcomeUnknownError) as error:
                is_unknown = isinstance(error, StorageOutcomeUnknownError)
                stamp = stamp._replace(may_count=stamp.may_count or is_unknown)
                await self.pause_after(error, attempt)
                if not stamp.may_count or self._is_late(stamp):
                    stamp = self._stamp(quota)
                continue
            if self._is_late(stamp):
                stamp = self._next_stamp(attempt, name, quota)
                continue
            await self._trim(name, quota, found)
            return 0.0

    async def look(self, name: str, quota: Quota, *, waited: bool = False) -> float:
        check_taken(name, quota, 1)
        standing = await self._read(name)
        return standing.wait(quota, 1, since_epoch(self._clock.now()), waited=waited)

    async def used(self, name: str, quota: Quota) -> int:
        check_name("name", name)
        standing = await self._read(name)
        return used_of(standing.times, quota, since_epoch(self._clock.now()))

    async def reset(self, name: str) -> bool:
        check_name("name", name)
        try:
            await self.repeat(
                "UpdateItem",
                TableName=self.name,
                Key=to_item(rate_key(name)),
                UpdateExpression=RESET,
                ConditionExpression=SAYS_SOMETHING,
            )
        except ConditionFailedError:
            return False
        return True

    async def mark_waiting(self, name: str, seconds: float) -> None:
        now = since_epoch(self._clock.now())
        # No take, of whatever window, lets the item expire before the longest mark does, nor this one its starts.
        values = {":until": mark_until(name, seconds, now), ":ttl": expiry(now + span(MAX_MARK))}
        try:
            await self.repeat(
                "UpdateItem",
                TableName=self.name,
                Key=to_item(rate_key(name)),
                UpdateExpression=MARK,
                ConditionExpression=LONGER,
                ExpressionAttributeNames={"#ttl": TTL_ATTRIBUTE},
                ExpressionAttributeValues=to_item(values),
            )
        except ConditionFailedError:
            return

    def _stamp(self, quota: Quota) -> _Stamp:
        now = since_epoch(self._clock.now())
        late = self._clock.monotonic() + min(quota.window * _LATE, _LATEST)
        return _Stamp(now, now * _PARTS + self._rng.randrange(_PARTS), late)

    def _is_late(self, stamp: _Stamp) -> bool:
        return self._clock.monotonic() > stamp.late

    def _next_stamp(self, attempt: int, name: str, quota: Quota) -> _Stamp:
        if attempt >= self._config.retry.max_attempts:
            raise StorageUnavailableError(
                f"table {self.name!r} answers too late to count starts of {name!r} within {quota.window:g} s: "
                "nothing may start; try again, or give the quota a longer window"
            )
        return self._stamp(quota)

    async def _take(self, name: str, quota: Quota, count: int, stamp: _Stamp, *, waited: bool) -> int:
        """Counts at most once per stamp; how many starts there are then."""
        window = span(quota.window)
        values = {
            ":new": [stamp.value] * count,
            ":none": [],
            ":stamp": stamp.value,
            # The parts of a microsecond make a stamp no later than its time.
            ":in_window": (stamp.time - window + 1) * _PARTS,
            ":ttl": expiry(stamp.time + window),
        }
        answer = await self.call(
            "UpdateItem",
            TableName=self.name,
            Key=to_item(rate_key(name)),
            UpdateExpression=TAKE,
            ConditionExpression=(MAY_TAKE if waited else MAY_TAKE_FRESH).format(place=quota.limit - count),
            ExpressionAttributeNames={"#ttl": TTL_ATTRIBUTE},
            ExpressionAttributeValues=to_item(values if waited else {**values, ":now": stamp.time}),
            ReturnValues="UPDATED_NEW",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
        return len(_standing_of(answer.get("Attributes", {}), self.name).starts)

    async def _standing(self, error: ConditionFailedError, name: str) -> _Standing:
        # Endpoints and clients that do not know ReturnValuesOnConditionCheckFailure leave it out.
        item = getattr(error.__cause__, "response", {}).get("Item")
        return _standing_of(item, self.name) if item else await self._read(name)

    async def _read(self, name: str) -> _Standing:
        answer = await self.repeat(
            "GetItem", TableName=self.name, Key=to_item(rate_key(name)), ConsistentRead=True
        )
        return _standing_of(answer.get("Item") or {}, self.name)

    async def _trim(self, name: str, quota: Quota, found: int) -> None:
        """Takes off what the quota does not need; whatever is taken meanwhile, indexes from `limit` on are old."""
        if not superfluous(found, quota):
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


class _Stamp(NamedTuple):
    """What a start is counted as."""

    time: int
    value: int
    late: float
    """The monotonic time from which on the start would be another time's."""
    may_count: bool = False
    """An attempt with it went unanswered: another stamp could count the start twice."""


class _Standing(NamedTuple):
    """What an item says."""

    starts: Sequence[int]
    waiting_until: int

    @property
    def times(self) -> Sequence[int]:
        """When they were counted, in microseconds."""
        return [stamp // _PARTS for stamp in self.starts]

    def wait(self, quota: Quota, count: int, now: int, *, waited: bool) -> float:
        return wait_for(self.times, quota, count, now, behind=0 if waited else self.waiting_until)


def _standing_of(item: Mapping[str, Any], table: str) -> _Standing:
    try:
        said = from_item(item)
        return _Standing([int(stamp) for stamp in said.get("starts", ())], int(said.get("waiting_until", 0)))
    except (TypeError, ValueError) as error:
        raise StorageRejectedError(
            f"an item of table {table!r} has no list of starts ({error!r}): give quotas a table of their own"
        ) from error
