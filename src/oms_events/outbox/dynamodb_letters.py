"""Dead letters on DynamoDB: each change of a letter is one transaction with its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oms_events.errors import ConditionFailedError
from oms_events.outbox import expressions, schema
from oms_events.outbox.dynamodb_calls import DynamoCalls, next_sk
from oms_events.outbox.records import DeadLetter, NewRecord, PlatformState, RecordState, as_tried_as
from oms_events.outbox.store import DeadPage


class DynamoLetters(DynamoCalls):
    """The part of the store that has the dead letters."""

    async def bury(self, letter: DeadLetter, state: RecordState | None) -> bool:
        put = {"Put": {"TableName": self.table, "Item": schema.letter_item(letter)}}
        while not await self._transact_if(self._settle(letter, state), put):
            if state is None:
                return False
            item = await self._get(schema.record_key(letter.origin, letter.origin_sk))
            found = state if item is None else schema.read_record(letter.origin, item).state
            tried = as_tried_as(state, found)
            if found.generation != state.generation or tried == state:
                return False
            # Another owner has tried more often meanwhile.
            state = tried
        return True

    async def dead_letters(
        self, *, platform: str | None = None, after: str | None = None, limit: int = 100
    ) -> DeadPage:
        condition, values = expressions.letters_query(platform, after)
        page = await self._page(condition, values, limit=limit)
        return DeadPage([schema.read_letter(item) for item in page["Items"]], next_sk(page))

    async def requeue(self, letter: DeadLetter, record: NewRecord | None) -> bool:
        if record is not None:
            put = {
                "TableName": self.table,
                "Item": schema.record_item(record),
                "ConditionExpression": schema.NOT_THERE,
            }
            return await self._transact_if(self._take_away(letter), {"Put": put})
        if not letter.held:
            return False
        key = schema.record_key(letter.origin, letter.origin_sk)
        item = await self._get(key)
        while item is not None:
            if await self._transact_if(self._take_away(letter), self._freeing(letter, item)):
                return True
            latest = await self._get(key)
            if latest is None or latest.get("h") == item.get("h"):
                return False
            item = latest
        return False

    async def purge(self, letter: DeadLetter) -> bool:
        if letter.held:
            states = ", ".join(f"s.#p{index} = :dead" for index in range(len(letter.platforms)))
            going_on = self._free(letter, f"SET {states}", {":dead": expressions.text(PlatformState.DEAD.value)})
            if await self._transact_if(self._take_away(letter), going_on):
                return True
        # Nothing is held, or not any more.
        return await self._transact_if(self._take_away(letter))

    # ------------------------------------------------------------------

    async def _transact_if(self, *actions: Mapping[str, Any]) -> bool:
        """A transaction: False when a condition did not hold."""
        try:
            await self._transact(*actions)
        except ConditionFailedError:
            return False
        return True

    def _settle(self, letter: DeadLetter, state: RecordState | None) -> dict[str, Any]:
        """What becomes of the record of a letter."""
        key = schema.record_key(letter.origin, letter.origin_sk)
        names = expressions.platform_names(letter.platforms)
        open_still = [expressions.not_settled(index) for index in range(len(letter.platforms))]
        rejected = {":rejected": expressions.text(PlatformState.REJECTED.value)}
        if state is None:
            return {
                "Delete": {
                    "TableName": self.table,
                    "Key": key,
                    "ConditionExpression": " AND ".join((expressions.THERE, *open_still)),
                    "ExpressionAttributeNames": names,
                    "ExpressionAttributeValues": rejected,
                }
            }
        expression = expressions.state_update(state, dead=letter.platforms)
        condition = " AND ".join((expressions.SAME_GENERATION, expressions.NOT_MORE_TRIED, *open_still))
        return {
            "Update": self._update(
                key,
                expression.update,
                expression.values | rejected,
                condition=condition,
                names=expression.names | names,
            )
        }

    def _take_away(self, letter: DeadLetter) -> dict[str, Any]:
        failed: Mapping[str, Any] | None = expressions.number(letter.failed)
        if letter.problem is not None:
            failed = (letter.raw or {}).get("f")
        delete = {"TableName": self.table, "Key": schema.letter_key(letter)}
        if failed is None:
            return {"Delete": {**delete, "ConditionExpression": expressions.NOT_READ}}
        same = {
            "ConditionExpression": expressions.SAME_LETTER,
            "ExpressionAttributeValues": {":failed": failed},
        }
        return {"Delete": {**delete, **same}}

    def _freeing(self, letter: DeadLetter, item: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Frees a held record, which was read: the letter's history goes on in it."""
        values: dict[str, Any] = {":one": expressions.number(1)}
        changes = ["g = g + :one"]
        condition = expressions.NO_HISTORY
        if "h" in item:
            condition, values[":history"] = expressions.SAME_HISTORY, item["h"]
        if history := schema.history_with(item, letter.history):
            values[":h"] = history["h"]
            changes.append("h = :h")
        states = ", ".join(f"s.#p{index}" for index in range(len(letter.platforms)))
        return self._free(letter, f"SET {', '.join(changes)} REMOVE n, f, m, {states}", values, condition)

    def _free(
        self, letter: DeadLetter, update: str, values: Mapping[str, Any], *conditions: str
    ) -> dict[str, Any]:
        """A change of the record that a letter holds."""
        held = [expressions.is_held(index) for index in range(len(letter.platforms))]
        return {
            "Update": self._update(
                schema.record_key(letter.origin, letter.origin_sk),
                update,
                {**values, ":held": expressions.text(PlatformState.HELD.value)},
                condition=" AND ".join((expressions.THERE, *held, *conditions)),
                names=expressions.platform_names(letter.platforms),
            )
        }
