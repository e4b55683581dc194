"""The contract of what an append takes: ids, sizes and counts, and events that could not be read back."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, Field, field_serializer

from oms_events.errors import AppendLimitError, ConfigurationError, InvalidEventError, OutboxLimitError
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.store import EventStore
from oms_events.testing.event_store_contract.support import (
    Changed,
    after_event,
    check_outbox,
    fill,
    history,
    in_outbox,
    new_id,
    new_type,
    sequences,
    with_types,
)

_MAX_ACTIONS = 100
_LONGEST = 900

strange = EventRegistry()


@strange.event
class Measured(BaseModel):
    value: float = 0.0
    price: Decimal = Decimal(1)
    raw: bytes = b""


@strange.event
class Renamed(BaseModel):
    """Written under one name, and read under another."""

    name: str = Field(validation_alias="read_as", serialization_alias="written_as")


@strange.event
class Rounded(BaseModel):
    at: int = 0

    @field_serializer("at")
    def _as_text(self, value: int) -> str:
        return f"about {value}"


class Unknown(BaseModel):
    """Nobody registered it."""


_BROKEN = [
    (Measured(value=float("nan")), "NaN"),
    (Measured(value=float("inf")), "infinity"),
    (Measured(raw=b"\xff"), "has no JSON form"),
    (Measured().model_copy(update={"price": "much"}), r"Measured version 1 does not fit Measured: price"),
    (Renamed(read_as="x"), r"Renamed version 1 does not fit Renamed: read_as: Field required"),
    (Rounded(at=1), r"Rounded version 1 does not fit Rounded: at"),
]


class LimitsContract:
    # ------------------------------------------------------------------ ids

    @pytest.mark.parametrize(
        "name", ["ключ", "a#b", "a#0000000000000001", " ", "command", "Command#1", "a\u0000b", "🎟" * 200]
    )
    async def test_an_id_may_be_any_text(self, store: EventStore, name: str) -> None:
        unique = f"{name}{new_id()}"
        types, model, kind = new_type()
        writer = with_types(store, types)
        appended = await writer.append(unique, [model(), model()], expected_sequence=0, command_id=name)
        assert await sequences(store, unique) == [1, 2]
        assert await store.marker(unique, name) is not None
        found = [event async for event in writer.events_by_type(kind)]
        assert [(event.aggregate_id, event.sequence) for event in found] == [(unique, 1), (unique, 2)]
        assert found[0].event.get_subject() == unique
        await check_outbox(store, unique, appended)

    async def test_aggregates_whose_ids_begin_alike_are_others(self, store: EventStore) -> None:
        name = new_id()
        names = [name, f"{name}#1", f"{name}#1#1", f"{name} ", name.upper()]
        for count, one in enumerate(names, 1):
            await fill(with_types(store), one, count)
        assert [await store.last_sequence(one) for one in names] == [1, 2, 3, 4, 5]

    async def test_ids_have_900_bytes_at_most(self, store: EventStore) -> None:
        writer = with_types(store)
        longest = f"{new_id()}x{'ü' * 429}"
        assert len(longest.encode()) == _LONGEST
        await writer.append(longest, [Changed()], expected_sequence=0, command_id=longest)
        assert await sequences(store, longest) == [1]
        with pytest.raises(InvalidEventError, match=r"aggregate_id has 901 bytes of UTF-8; give at most 900"):
            await writer.append(f"{longest}x", [Changed()], expected_sequence=0)
        with pytest.raises(InvalidEventError, match=r"command_id has 901 bytes of UTF-8; give at most 900"):
            await writer.append(longest, [Changed()], expected_sequence=1, command_id=f"{longest}x")

    @pytest.mark.parametrize("name", ["", None, 7, b"a", "command#", "command#1#a#b", "\ud800"])
    async def test_what_is_no_id_is_refused(self, store: EventStore, name: Any) -> None:
        with pytest.raises(InvalidEventError, match="aggregate_id"):
            await with_types(store).append(name, [Changed()], expected_sequence=0)
        with pytest.raises(InvalidEventError, match="aggregate_id"):
            await store.last_sequence(name)
        with pytest.raises(InvalidEventError, match="aggregate_id"):
            await history(store, name)

    @pytest.mark.parametrize("name", ["", 7, b"a", "\ud800"])
    async def test_what_is_no_command_is_refused(self, store: EventStore, name: Any) -> None:
        aggregate = new_id()
        for arguments in ({"command_id": name}, {"command_id": "c", "fingerprint": name or None}):
            with pytest.raises(InvalidEventError, match=r"command_id|fingerprint"):
                await with_types(store).append(aggregate, [Changed()], expected_sequence=0, **arguments)
        assert await sequences(store, aggregate) == []

    # ------------------------------------------------------------------ what is appended

    @pytest.mark.parametrize(("event", "why"), _BROKEN, ids=lambda value: str(value)[:20])
    async def test_an_event_that_could_not_be_read_back_is_refused(
        self, store: EventStore, event: BaseModel, why: str
    ) -> None:
        aggregate = new_id()
        with pytest.raises(InvalidEventError, match=why):
            await with_types(store, strange).append(aggregate, [Measured(), event], expected_sequence=0)
        assert await sequences(store, aggregate) == []

    @pytest.mark.parametrize("events", [[Unknown()], [Changed(), Unknown()], ["text"], [{"number": 1}], [Changed]])
    async def test_what_is_no_registered_event_is_refused(self, store: EventStore, events: Any) -> None:
        aggregate = new_id()
        with pytest.raises(ConfigurationError, match="no domain event of this registry"):
            await with_types(store).append(aggregate, events, expected_sequence=0)
        assert await sequences(store, aggregate) == []

    @pytest.mark.parametrize("events", [Changed(), "text", None, {"number": 1}, 7])
    async def test_events_come_in_a_list(self, store: EventStore, events: Any) -> None:
        with pytest.raises(InvalidEventError, match="give a list of domain events"):
            await with_types(store).append(new_id(), events, expected_sequence=0)

    @pytest.mark.parametrize(
        "attributes",
        [{name: "x"} for name in ("type", "source", "id", "time", "subject", "sequence", "dataschema", "data")]
        + [{"partitionkey": ""}, {"partitionkey": 7}, {"UPPER": "x"}, {7: "x"}, {"big": 2**40}, {"some": [1]}],
    )
    async def test_attributes_that_cannot_be_are_refused(self, store: EventStore, attributes: Any) -> None:
        aggregate = new_id()
        with pytest.raises(InvalidEventError):
            await with_types(store).append(aggregate, [Changed()], expected_sequence=0, attributes=attributes)
        assert await sequences(store, aggregate) == []

    async def test_the_order_in_the_outbox_may_be_that_of_another_key(self, store: EventStore) -> None:
        key = new_id("order")
        appended = [
            (
                await with_types(store).append(
                    new_id(), [Changed(number=number)], expected_sequence=0, attributes={"partitionkey": key}
                )
            )[0]
            for number in range(3)
        ]
        await check_outbox(store, key, appended)

    # ------------------------------------------------------------------ how much

    @pytest.mark.parametrize(("expected", "command", "checks"), [(0, False, 0), (3, True, 2)])
    async def test_an_append_takes_as_many_events_as_its_transaction(
        self, store: EventStore, expected: int, command: bool, checks: int
    ) -> None:
        aggregate, other = new_id(), new_id()
        writer = with_types(store)
        there = await fill(writer, aggregate, expected)
        await fill(writer, other, checks)
        per_event = 1 if store.outbox is None else 2
        most = (_MAX_ACTIONS - checks - bool(expected) - command) // per_event
        options: dict[str, Any] = {
            "expected_sequence": expected,
            "command_id": "many" if command else None,
            "actions": [after_event(store, other, number + 1) for number in range(checks)],
        }
        with pytest.raises(AppendLimitError, match=f"append at most {most} events at once") as refused:
            await writer.append(aggregate, [Changed()] * (most + 1), **options)
        assert refused.value.limit == _MAX_ACTIONS < refused.value.actual
        assert len(await sequences(store, aggregate)) == expected
        there += await writer.append(aggregate, [Changed()] * most, **options)
        assert await sequences(store, aggregate) == list(range(1, expected + most + 1))
        await check_outbox(store, aggregate, there)

    async def test_an_event_may_be_large_but_not_too_large(self, store: EventStore) -> None:
        aggregate = new_id()
        writer = with_types(store)
        await writer.append(aggregate, [Changed(text="x" * 390_000)], expected_sequence=0)
        for size in (409_000, 500_000):
            with pytest.raises((AppendLimitError, OutboxLimitError), match="bytes") as refused:
                await writer.append(
                    aggregate, [Changed(), Changed(text="x" * size)], expected_sequence=1, command_id="large"
                )
            _check_numbers(refused.value)
        assert await sequences(store, aggregate) == [1]
        assert await store.marker(aggregate, "large") is None

    async def test_an_append_takes_4_megabytes_and_no_more(self, store: EventStore) -> None:
        aggregate = new_id()
        writer = with_types(store)
        # With an outbox each event is stored twice.
        large = [Changed(text="x" * 400_000)] * 10 if store.outbox is None else [Changed(text="x" * 390_000)] * 5
        with pytest.raises((AppendLimitError, OutboxLimitError), match="a transaction takes") as refused:
            await writer.append(aggregate, [*large, *large[:1]], expected_sequence=0)
        assert _check_numbers(refused.value) == 4 * 1024 * 1024
        assert await sequences(store, aggregate) == []
        assert await in_outbox(store, aggregate) == []
        await writer.append(aggregate, large, expected_sequence=0)
        assert await store.last_sequence(aggregate) == len(large)


def _check_numbers(error: Any) -> int:
    limit: int = error.limit
    assert limit < error.actual
    return limit
