"""Dead letters on DynamoDB: each change of a letter is one transaction with its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oms_events._aws.marshal import from_value, to_value
from oms_events.errors import ConditionFailedError, StorageRejectedError
from oms_events.outbox import expressions, schema
from oms_events.outbox.dynamodb_calls import DynamoCalls, next_sk
from oms_events.outbox.records import DeadLetter, NewRecord, PlatformState, RecordState
from oms_events.outbox.store import DeadPage


class DynamoLetters(DynamoCalls):
    """The part of the store that has the dead letters."""

    async def bury(self, letter: DeadLetter, state: RecordState | None) -> bool:
        item = schema.letter_item(letter)
        if letter.raw is not None:
            item["raw"] = to_value(letter.raw, path="raw")
        put = {"Put": {"TableName": self.table, "Item": item}}
        return await self._transact_if(self._settle(letter, state), put)

    async def dead_letters(
        self, *, platform: str | None = None, after: str | None = None, limit: int = 100
    ) -> DeadPage:
        condition, values = expressions.letters_query(platform, after)
        page = await self._page(condition, values, limit=limit)
        return DeadPage([_read_letter(item) for item in page["Items"]], next_sk(page))

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
        states = ", ".join(f"s.#p{index}" for index in range(len(letter.platforms)))
        freeing = self._free(letter, f"SET g = g + :one REMOVE n, f, {states}", {":one": expressions.number(1)})
        return await self._transact_if(self._take_away(letter), freeing)

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
        condition = " AND ".join((expressions.SAME_GENERATION, *open_still))
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
        return {
            "Delete": {
                "TableName": self.table,
                "Key": schema.letter_key(letter),
                "ConditionExpression": expressions.SAME_LETTER,
                "ExpressionAttributeValues": {":failed": expressions.number(letter.failed)},
            }
        }

    def _free(self, letter: DeadLetter, update: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """A change of the record that a letter holds."""
        held = [expressions.is_held(index) for index in range(len(letter.platforms))]
        return {
            "Update": self._update(
                schema.record_key(letter.origin, letter.origin_sk),
                update,
                {**values, ":held": expressions.text(PlatformState.HELD.value)},
                condition=" AND ".join((expressions.THERE, *held)),
                names=expressions.platform_names(letter.platforms),
            )
        }


def _read_letter(item: Mapping[str, Mapping[str, Any]]) -> DeadLetter:
    try:
        raw = from_value(item["raw"]) if "raw" in item else None
        return schema.read_letter(item, raw)
    except (KeyError, ValueError) as error:
        raise StorageRejectedError(
            f"the dead letter {item['sk']['S']!r} cannot be read ({error!r}): use the release that wrote it"
        ) from error
