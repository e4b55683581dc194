"""Breakers in a DynamoDB table: one item per domain and table, changed by single conditional updates."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from oms_events._aio import Clock, seen_through
from oms_events._aws.marshal import from_item, to_item
from oms_events._aws.table import DynamoTable
from oms_events.errors import ConditionFailedError, StorageError, StorageRejectedError
from oms_events.instrumentation.hooks import Hook, Hooks, TriggerBreakerChanged
from oms_events.resilience.breaker import BreakerState
from oms_events.triggers.config import BreakerOptions
from oms_events.triggers.guards.breaker import (
    FAILED_AGAIN,
    RECOVERED,
    RECOVERING,
    RESET,
    BreakerRecord,
    BreakerView,
    Permit,
    check_breaker,
    opened_because,
    says_something,
)
from oms_events.triggers.guards.config import GuardTableConfig
from oms_events.triggers.guards.times import expiry, since_epoch, span
from oms_events.triggers.schema import BREAKER, PARTITION, TTL_ATTRIBUTE, breaker_key, breaker_of

if TYPE_CHECKING:
    import aioboto3

_log = logging.getLogger("oms_events")

# The fragments say in DynamoDB's words what `BreakerRecord` says in Python:
#
#      closed                     open                      half-open
#   |--- failures ---|--- opened_at ---------------|--- opened_at, trial ---|--- none of them, epoch + 1
#                 the threshold's failure    recovery time          the trial went well
#                 opens it                                          (or back to open: a new opened_at)

CLOSED: Final = "attribute_not_exists(opened_at)"
"""What ends while the breaker is open was admitted before: it must not make the breaker stay open longer."""

OF_ITS_TIME: Final = "(attribute_not_exists(epoch) OR epoch = :epoch)"
"""A start from before the breaker last closed is old news; without the attribute it never did."""

NOT_COUNTED: Final = "NOT contains(permits, :permit)"
"""The same failure, said or sent again, counts once."""

COUNTS: Final = f"{CLOSED} AND {OF_ITS_TIME} AND {NOT_COUNTED}"

ENOUGH: Final = "failures[{place}] > :in_window"
"""With `place` = threshold - 2: with this one, as many as open the breaker are in the window."""

NOT_ENOUGH: Final = "(attribute_not_exists(failures[{place}]) OR failures[{place}] <= :in_window)"

RECOVERY_OVER: Final = "opened_at <= :recovering"
"""Of a new trial: the breaker is open, and was not opened again since."""

NO_TRIAL: Final = "(attribute_not_exists(trial) OR trial_until <= :now OR trial = :trial)"
"""Nobody's trial, a crashed one's, or this one's, whose answer was lost."""

OUR_TRIAL: Final = "trial = :trial"
"""Of what a trial says: another may have taken its place, or somebody reset the breaker."""

SAYS_SOMETHING: Final = f"(attribute_exists(opened_at) OR {ENOUGH.format(place=0)})"
"""Of a reset: there is something to forget."""

THERE: Final = "attribute_exists(failures)"
"""Of a trim: without it, one that comes late would make an empty item. In a scan: of all that are breakers."""

OPENED: Final = "attribute_exists(opened_at)"

COUNT: Final = (
    "SET failures = list_append(:failure, if_not_exists(failures, :none)), "
    "permits = list_append(:token, if_not_exists(permits, :none)), #ttl = :ttl"
)
OPEN: Final = f"{COUNT}, opened_at = :now"
TRY: Final = "SET trial = :trial, trial_until = :until, #ttl = :ttl"
OPEN_AGAIN: Final = "SET opened_at = :now, #ttl = :ttl REMOVE trial, trial_until"
RELEASE: Final = "REMOVE trial, trial_until"
CLOSE: Final = (
    "SET epoch = if_not_exists(epoch, :zero) + :one, closed_by = :by, #ttl = :ttl "
    "REMOVE failures, permits, opened_at, trial, trial_until"
)

_SLACK: Final = 20
"""So many old failures may stay: each trim is a write."""
_TRIMMED: Final = 50
"""Failures of one trim."""


class DynamoDBBreakers(DynamoTable):
    """Breakers in a DynamoDB table, shared by all instances.

    Give a `session` (aioboto3) or a `client` (its `dynamodb` client) to use your own; neither is ever closed.
    Opens at the first use, or as `async with`. Needs `dynamodb:GetItem`, `UpdateItem` and, with `verify_table`,
    `DescribeTable`; `views` needs `Scan`. A start that goes well costs one strongly consistent read. Times are
    those of the instances: when their clocks differ by d, windows, recovery and trial times may be d shorter or
    longer.
    """

    def __init__(
        self,
        config: GuardTableConfig,
        options: BreakerOptions | None = None,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        hooks: Iterable[Hook] = (),
    ) -> None:
        super().__init__(config, config.table_name, BREAKER, session=session, client=client, clock=clock, rng=rng)
        self._options = options or BreakerOptions()
        self._hooks = Hooks(hooks)

    async def admit(self, domain: str, table_name: str) -> Permit | float:
        check_breaker(domain, table_name)
        record, token = await self._read(domain, table_name), self._token()
        while True:
            now = self._now()
            if wait := record.wait(self._options, now):
                return wait
            if record.opened_at is None:
                return Permit(domain, table_name, token=token, epoch=record.epoch)
            permit = Permit(domain, table_name, trial=token, token=token, epoch=record.epoch)
            refused_by = await self._take_trial(permit, token, now)
            if refused_by is None:
                self._tell(domain, table_name, BreakerState.OPEN, BreakerState.HALF_OPEN, RECOVERING)
                return permit
            record = refused_by

    async def look(self, domain: str, table_name: str) -> float:
        check_breaker(domain, table_name)
        return (await self._read(domain, table_name)).wait(self._options, self._now())

    async def succeeded(self, permit: Permit) -> None:
        if permit.trial is None:
            return
        if await self._close(permit.domain, permit.table_name, OUR_TRIAL, permit.trial, {":trial": permit.trial}):
            self._tell(permit.domain, permit.table_name, BreakerState.HALF_OPEN, BreakerState.CLOSED, RECOVERED)

    async def failed(self, permit: Permit) -> None:
        now = self._now()
        if permit.trial is not None:
            await self._fail_trial(permit, permit.trial, now)
            return
        # Most failures open nothing: that is tried first.
        is_last = self._options.failure_threshold == 1
        while True:
            refused_by = await self._count(permit, now, is_last=is_last)
            if refused_by is None:
                if is_last:
                    self._tell_opened(permit)
                return
            if not refused_by.takes(permit):
                if permit.token in refused_by.permits and refused_by.opened_at == now:
                    # By an earlier try, whose answer was lost.
                    self._tell_opened(permit)
                return
            is_last = refused_by.opens(self._options, now)

    async def released(self, permit: Permit) -> None:
        if permit.trial is None:
            return
        await self._update(
            permit.domain, permit.table_name, RELEASE, OUR_TRIAL, {":trial": permit.trial}, keeps_ttl=True
        )

    async def views(self) -> list[BreakerView]:
        """See `TriggerBreakers.views`. Reads the whole table: for people, not for programs."""
        now, found = self._now(), list[BreakerView]()
        start: Mapping[str, Any] | None = None
        while True:
            page = await self.repeat(
                "Scan",
                TableName=self.name,
                FilterExpression=f"{THERE} OR {OPENED}",
                ConsistentRead=True,
                **({} if start is None else {"ExclusiveStartKey": start}),
            )
            found += (
                _record(item, self.name).view(*names, self._options, now)
                for item in page.get("Items", ())
                if (names := breaker_of(item[PARTITION]["S"])) is not None
            )
            start = page.get("LastEvaluatedKey")
            if start is None:
                break
        return sorted(filter(says_something, found), key=lambda view: (view.domain, view.table_name))

    async def reset(self, domain: str, table_name: str) -> bool:
        check_breaker(domain, table_name)
        now = self._now()
        record = await self._read(domain, table_name)
        values = {":in_window": now - span(self._options.failure_window)}
        if not await self._close(domain, table_name, SAYS_SOMETHING, self._token(), values):
            return False
        if (old := record.state(self._options, now)) is not BreakerState.CLOSED:
            self._tell(domain, table_name, old, BreakerState.CLOSED, RESET)
        return True

    # ------------------------------------------------------------------ changes

    async def _take_trial(self, permit: Permit, trial: str, now: int) -> BreakerRecord | None:
        values = {
            ":trial": trial,
            ":now": now,
            ":until": now + span(self._options.trial_time),
            ":recovering": now - span(self._options.recovery_time),
        }
        condition = f"{RECOVERY_OVER} AND {NO_TRIAL}"
        taking = self._update(permit.domain, permit.table_name, TRY, condition, values)

        async def give_back(refused_by: BreakerRecord | None) -> None:
            if refused_by is None:
                await self.released(permit)

        name = f"take the trial of {permit.domain} {permit.table_name}"
        return await seen_through(taking, undo=give_back, name=name)

    async def _count(self, permit: Permit, now: int, *, is_last: bool) -> BreakerRecord | None:
        place = self._options.failure_threshold - 2
        values: dict[str, Any] = {
            ":failure": [now],
            ":token": [permit.token],
            ":permit": permit.token,
            ":none": [],
            ":epoch": permit.epoch,
        }
        condition = COUNTS
        if place >= 0:
            values[":in_window"] = now - span(self._options.failure_window)
            condition += f" AND {(ENOUGH if is_last else NOT_ENOUGH).format(place=place)}"
        if is_last:
            values[":now"] = now
        return await self._update(permit.domain, permit.table_name, OPEN if is_last else COUNT, condition, values)

    async def _fail_trial(self, permit: Permit, trial: str, now: int) -> None:
        values = {":trial": trial, ":now": now}
        refused_by = await self._update(permit.domain, permit.table_name, OPEN_AGAIN, OUR_TRIAL, values)
        if refused_by is None or refused_by.opened_at == now:
            self._tell(permit.domain, permit.table_name, BreakerState.HALF_OPEN, BreakerState.OPEN, FAILED_AGAIN)

    async def _close(
        self, domain: str, table_name: str, condition: str, by: str, values: Mapping[str, Any]
    ) -> bool:
        """Closes it unless the condition refuses that; true also when an earlier try did, unanswered."""
        values = {**values, ":zero": 0, ":one": 1, ":by": by}
        refused_by = await self._update(domain, table_name, CLOSE, condition, values)
        return refused_by is None or refused_by.closed_by == by

    # ------------------------------------------------------------------ calls

    async def _update(
        self,
        domain: str,
        table_name: str,
        update: str,
        condition: str,
        values: Mapping[str, Any],
        *,
        keeps_ttl: bool = False,
    ) -> BreakerRecord | None:
        """None when it was done; else what refused it. Sent again when that is not known: twice is as once."""
        options = self._options
        if not keeps_ttl:
            longest = span(max(options.failure_window, options.recovery_time + options.trial_time))
            values = {**values, ":ttl": expiry(self._now() + longest)}
        names = {} if keeps_ttl else {"ExpressionAttributeNames": {"#ttl": TTL_ATTRIBUTE}}
        try:
            answer = await self.repeat(
                "UpdateItem",
                TableName=self.name,
                Key=to_item(breaker_key(domain, table_name)),
                UpdateExpression=update,
                ConditionExpression=condition,
                ExpressionAttributeValues=to_item(values),
                ReturnValues="UPDATED_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **names,
            )
        except ConditionFailedError as error:
            # Endpoints and clients that do not know ReturnValuesOnConditionCheckFailure leave it out.
            item = getattr(error.__cause__, "response", {}).get("Item")
            return _record(item, self.name) if item else await self._read(domain, table_name)
        await self._trim(domain, table_name, len(_record(answer.get("Attributes", {}), self.name).failures))
        return None

    async def _read(self, domain: str, table_name: str) -> BreakerRecord:
        key = to_item(breaker_key(domain, table_name))
        answer = await self.repeat("GetItem", TableName=self.name, Key=key, ConsistentRead=True)
        return _record(answer.get("Item") or {}, self.name)

    async def _trim(self, domain: str, table_name: str, found: int) -> None:
        """Takes off what opens no breaker; whatever failed meanwhile, indexes from the threshold on are older."""
        kept = self._options.failure_threshold
        if found < kept + _SLACK:
            return
        # From the end: some endpoints remove one after the other, and count anew.
        indexes = reversed(range(kept, min(found, kept + _TRIMMED)))
        try:
            await self.call(
                "UpdateItem",
                TableName=self.name,
                Key=to_item(breaker_key(domain, table_name)),
                UpdateExpression="REMOVE " + ", ".join(f"failures[{at}], permits[{at}]" for at in indexes),
                ConditionExpression=THERE,
            )
        except StorageError as error:
            # The failure is counted all the same, and the next one trims.
            _log.debug("old failures of %s %s stay for now: %s", domain, table_name, error)

    def _now(self) -> int:
        return since_epoch(self._clock.now())

    def _token(self) -> str:
        return f"{self._rng.getrandbits(128):032x}"

    def _tell_opened(self, permit: Permit) -> None:
        why = opened_because(self._options)
        self._tell(permit.domain, permit.table_name, BreakerState.CLOSED, BreakerState.OPEN, why)

    def _tell(self, domain: str, table_name: str, old: BreakerState, new: BreakerState, reason: str) -> None:
        self._hooks(TriggerBreakerChanged(domain, table_name, old.value, new.value, reason))


def _record(item: Mapping[str, Any], table: str) -> BreakerRecord:
    try:
        values = from_item(item)
        return BreakerRecord(
            failures=tuple(int(failure) for failure in values.get("failures", ())),
            permits=tuple(values.get("permits", ())),
            opened_at=_whole(values.get("opened_at")),
            trial=values.get("trial"),
            trial_until=_whole(values.get("trial_until")),
            epoch=int(values.get("epoch", 0)),
            closed_by=values.get("closed_by"),
        )
    except (TypeError, ValueError) as error:
        raise StorageRejectedError(
            f"an item of table {table!r} is no breaker ({error!r}): give breakers a table of their own"
        ) from error


def _whole(number: Any) -> int | None:
    return None if number is None else int(number)
