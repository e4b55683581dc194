"""The contract of appends: what was expected, what is refused, and what is there then."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from oms_events.errors import (
    ConcurrencyError,
    ConditionFailedError,
    DuplicateCommandError,
    InvalidEventError,
    StorageRejectedError,
)
from oms_events.eventstore.records import CommandMarker
from oms_events.eventstore.store import EventStore
from oms_events.testing.clock import ManualClock
from oms_events.testing.event_store_contract.support import (
    START,
    Changed,
    Opened,
    after_event,
    check_outbox,
    fill,
    history,
    in_outbox,
    new_id,
    sequences,
    with_types,
)

_CROWD = 50
_TRIES = 3


class AppendingContract:
    @pytest.fixture
    def aggregate(self) -> str:
        """An aggregate without events."""
        return new_id()

    # ------------------------------------------------------------------ what is stored

    async def test_what_was_appended_is_read_back(self, store: EventStore, aggregate: str) -> None:
        given = [Opened(tags=("a", "ü")), Changed(number=1), Changed(number=2)]
        appended = await with_types(store).append(aggregate, given, expected_sequence=0)
        assert [event.domain_event for event in appended] == given
        found = await history(with_types(store), aggregate)
        for event, like in zip(found, appended, strict=True):
            for name in (
                "aggregate_id",
                "sequence",
                "type",
                "version",
                "position",
                "id",
                "time",
                "payload",
                "data",
            ):
                assert getattr(event, name) == getattr(like, name), name
            assert event.encoded.json == like.encoded.json
            assert event.domain_event == like.domain_event
        assert [event.sequence for event in found] == [1, 2, 3]
        assert len({event.id for event in found}) == 3
        await check_outbox(store, aggregate, found)

    async def test_events_are_cloudevents(self, store: EventStore, aggregate: str) -> None:
        writer = with_types(store, clock=ManualClock(START))
        await fill(writer, aggregate, 9)
        await writer.append(
            aggregate,
            [Opened()],
            expected_sequence=9,
            correlation_id="order-7",
            causation_id="command-1",
            attributes={"tenant": "ü", "attempt": 2, "test": True, "due": datetime(2027, 1, 1, tzinfo=UTC)},
        )
        [event] = await history(store, aggregate, after=9)
        attributes = dict(event.event.get_attributes())
        assert attributes.pop("id") == event.id
        assert str(attributes.pop("due")).startswith("2027-01-01")
        assert attributes == {
            "type": "contract.Opened",
            "source": store.config.source or store.config.table_name,
            "specversion": "1.0",
            "subject": aggregate,
            "time": START,
            "sequence": "0000000000000010",
            "partitionkey": aggregate,
            "dataschema": "urn:oms-events:schema:contract.Opened:3",
            "datacontenttype": "application/json",
            "correlationid": "order-7",
            "causationid": "command-1",
            "tenant": "ü",
            "attempt": 2,
            "test": True,
        }
        assert event.event.get_data() == {
            "owner": "ü",
            "limit": "10.50",
            "since": "2026-03-01T00:00:00Z",
            "tags": [],
        }

    async def test_an_append_of_the_same_event_twice_is_two_events(
        self, store: EventStore, aggregate: str
    ) -> None:
        same = Changed(number=7)
        appended = await with_types(store).append(aggregate, [same, same], expected_sequence=0)
        found = await history(with_types(store), aggregate)
        assert [event.id for event in found] == [event.id for event in appended]
        assert len({event.id for event in found}) == 2
        assert [event.domain_event for event in found] == [same, same]

    async def test_events_and_actions_may_be_generators(self, store: EventStore, aggregate: str) -> None:
        writer = with_types(store)
        await writer.append(aggregate, (Changed(number=number) for number in range(3)), expected_sequence=0)
        other = new_id()
        checks = (after_event(store, aggregate, number) for number in (2, 3))
        await writer.append(other, iter([Changed()]), expected_sequence=0, actions=checks)
        assert await sequences(store, aggregate) == [1, 2, 3]
        assert await sequences(store, other) == [1]

    # ------------------------------------------------------------------ expectations

    @pytest.mark.parametrize("expected", [0, 1, 2, 4, 5, 100])
    async def test_a_wrong_expectation_writes_nothing(
        self, store: EventStore, aggregate: str, expected: int
    ) -> None:
        writer = with_types(store)
        there = await fill(writer, aggregate, 3)
        with pytest.raises(ConcurrencyError, match="load it again") as refused:
            await writer.append(aggregate, [Changed(), Changed()], expected_sequence=expected, command_id="late")
        error = refused.value
        assert (error.aggregate_id, error.expected, error.actual) == (aggregate, expected, 3)
        assert await sequences(store, aggregate) == [1, 2, 3]
        assert await store.marker(aggregate, "late") is None
        await check_outbox(store, aggregate, there)

    async def test_an_aggregate_without_events_is_at_0(self, store: EventStore, aggregate: str) -> None:
        with pytest.raises(ConcurrencyError) as refused:
            await with_types(store).append(aggregate, [Changed()], expected_sequence=1)
        assert refused.value.actual == 0
        assert await sequences(store, aggregate) == []
        assert await in_outbox(store, aggregate) == []

    async def test_the_right_expectation_goes_on_without_gaps(self, store: EventStore, aggregate: str) -> None:
        there = await fill(with_types(store), aggregate, 1)
        for count in (1, 2, 3):
            there += await with_types(store).append(
                aggregate, [Changed()] * count, expected_sequence=there[-1].sequence
            )
        assert await sequences(store, aggregate) == [1, 2, 3, 4, 5, 6, 7]
        await check_outbox(store, aggregate, there)

    @pytest.mark.parametrize("expected", [-1, True, 1.0, "1", None, 10**16])
    async def test_what_is_no_sequence_is_refused(self, store: EventStore, aggregate: str, expected: Any) -> None:
        with pytest.raises(InvalidEventError, match="expected_sequence"):
            await with_types(store).append(aggregate, [Changed()], expected_sequence=expected)

    async def test_nothing_at_all_is_appended_at_once(self, store: EventStore, aggregate: str) -> None:
        assert await with_types(store).append(aggregate, [], expected_sequence=0) == []
        assert await store.last_sequence(aggregate) == 0

    async def test_of_a_crowd_no_event_is_lost_and_every_refused_append_told_so(
        self, store: EventStore, aggregate: str
    ) -> None:
        writer = with_types(store)
        refusals: list[ConcurrencyError] = []
        appended: list[str] = []

        async def work(number: int) -> None:
            expected = 0
            for _ in range(_TRIES):
                try:
                    events = await writer.append(aggregate, [Changed(number=number)], expected_sequence=expected)
                except ConcurrencyError as error:
                    refusals.append(error)
                    expected = error.actual or 0
                else:
                    appended.extend(event.id for event in events)
                    return

        await asyncio.gather(*(work(number) for number in range(_CROWD)))
        found = await history(writer, aggregate)
        assert [event.sequence for event in found] == list(range(1, len(found) + 1))
        assert sorted(event.id for event in found) == sorted(appended)
        # Each try has won, or was refused; and in each round of tries somebody wins.
        assert len(refusals) >= _TRIES * (_CROWD - len(found))
        assert len(found) >= _TRIES
        assert all(error.actual is not None and error.actual > error.expected for error in refusals)
        await check_outbox(store, aggregate, found)

    # ------------------------------------------------------------------ commands

    async def test_a_command_is_carried_out_once(self, store: EventStore, aggregate: str) -> None:
        writer = with_types(store)
        there = await fill(writer, aggregate, 2)
        there += await writer.append(
            aggregate, [Changed(), Changed()], expected_sequence=2, command_id="c#1 ü", fingerprint="f"
        )
        assert await store.marker(aggregate, "c#1 ü") == CommandMarker(3, 2, "f")
        # Also where its expectation is wrong now: it was carried out.
        for expected in (2, 4):
            with pytest.raises(DuplicateCommandError, match="carried out on aggregate") as refused:
                await writer.append(
                    aggregate, [Changed()], expected_sequence=expected, command_id="c#1 ü", fingerprint="g"
                )
            error = refused.value
            assert (error.aggregate_id, error.command_id) == (aggregate, "c#1 ü")
            assert (error.first_sequence, error.events, error.fingerprint) == (3, 2, "f")
        assert await sequences(store, aggregate) == [1, 2, 3, 4]
        await check_outbox(store, aggregate, there)

    async def test_commands_of_other_aggregates_are_others(self, store: EventStore) -> None:
        name = new_id()
        # Joined without their lengths, some of these would be one.
        pairs = [(name, "1#a"), (f"{name}#1", "a"), (f"{name}#1#a", "x"), (name, "x")]
        writer = with_types(store)
        for aggregate, command in pairs:
            expected = await store.last_sequence(aggregate)
            await writer.append(aggregate, [Changed()], expected_sequence=expected, command_id=command)
        assert [await store.last_sequence(aggregate) for aggregate, _ in pairs] == [2, 1, 1, 2]

    async def test_a_command_without_events_is_remembered_too(self, store: EventStore, aggregate: str) -> None:
        writer = with_types(store)
        for expected in (0, 2):
            command = f"nothing at {expected}"
            assert await writer.append(aggregate, [], expected_sequence=expected, command_id=command) == []
            assert await store.marker(aggregate, command) == CommandMarker(expected + 1, 0, "")
            with pytest.raises(DuplicateCommandError):
                await writer.append(aggregate, [Changed()], expected_sequence=expected, command_id=command)
            if not expected:
                await fill(writer, aggregate, 2)
        assert await sequences(store, aggregate) == [1, 2]

    @pytest.mark.parametrize("expected", [0, 1, 3])
    async def test_a_command_without_events_depends_on_the_state_it_saw(
        self, store: EventStore, aggregate: str, expected: int
    ) -> None:
        writer = with_types(store)
        await fill(writer, aggregate, 2)
        with pytest.raises(ConcurrencyError) as refused:
            await writer.append(aggregate, [], expected_sequence=expected, command_id="stale")
        assert refused.value.actual == 2
        assert await store.marker(aggregate, "stale") is None

    async def test_of_equal_commands_at_once_one_is_carried_out(self, store: EventStore, aggregate: str) -> None:
        writer = with_types(store)

        async def carry_out() -> Any:
            return await writer.append(aggregate, [Changed()], expected_sequence=0, command_id="once")

        answers = await asyncio.gather(*(carry_out() for _ in range(10)), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, BaseException)]
        assert len(refused) == 9
        assert {type(error) for error in refused} == {DuplicateCommandError}
        assert await sequences(store, aggregate) == [1]

    # ------------------------------------------------------------------ actions of one's own

    async def test_an_action_of_ones_own_refuses_the_whole(self, store: EventStore, aggregate: str) -> None:
        writer = with_types(store)
        other = new_id()
        await fill(writer, other, 2)
        check = after_event(store, other, 2)
        await writer.append(aggregate, [Changed()], expected_sequence=0, actions=[check])
        with pytest.raises(ConditionFailedError):
            await writer.append(
                aggregate,
                [Changed()],
                expected_sequence=1,
                command_id="never",
                actions=[after_event(store, other, 2), after_event(store, other, 3)],
            )
        assert await sequences(store, aggregate) == [1]
        assert await store.marker(aggregate, "never") is None
        assert len(await in_outbox(store, aggregate)) == (0 if store.outbox is None else 1)

    async def test_actions_of_ones_own_never_write_to_the_event_store(
        self, store: EventStore, aggregate: str
    ) -> None:
        writer = with_types(store)
        name = store.table.name
        key = {"AggregateId": {"S": aggregate}, "EventSequence": {"N": "1"}}
        for table in (name, f"arn:aws:dynamodb:us-east-1:123456789012:table/{name}"):
            for action in (
                {"Put": {"TableName": table, "Item": key}},
                {"Delete": {"TableName": table, "Key": key}},
                {"Update": {"TableName": table, "Key": key, "UpdateExpression": "REMOVE x"}},
            ):
                with pytest.raises(StorageRejectedError, match=r"actions\[1\]: .* on the event store's table"):
                    await writer.append(
                        aggregate,
                        [Changed()],
                        expected_sequence=0,
                        actions=[after_event(store, "other", 1), action],
                    )
        assert await sequences(store, aggregate) == []

    @pytest.mark.parametrize(
        "action", [{}, {"Get": {}}, {"Put": {"TableName": "t"}}, {"Put": None}, "Put", {"Put": {}, "Delete": {}}]
    )
    async def test_what_is_no_action_is_refused(self, store: EventStore, aggregate: str, action: Any) -> None:
        with pytest.raises(StorageRejectedError, match=r"actions\[0\]"):
            await with_types(store).append(aggregate, [Changed()], expected_sequence=0, actions=[action])
        assert await sequences(store, aggregate) == []
