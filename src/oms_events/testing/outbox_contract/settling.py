"""What the contract says of removals, updates and burials."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from oms_events.outbox.records import (
    UNREADABLE,
    PlatformState,
    RecordState,
    sequence_key,
)
from oms_events.outbox.store import OutboxStore
from oms_events.testing.outbox_contract.support import (
    DEAD,
    DELIVERED,
    FAILOVER,
    HELD,
    KEYED,
    PLAN,
    REJECTED,
    UNKEYED,
    facts_of,
    make_letter,
    make_record,
    put,
    read_all,
    read_letters,
    settled_as,
    sks,
    state_of,
)


class SettlingContract:
    """What the contract says of removals, updates and burials."""

    # ------------------------------------------------------------------ settling

    async def test_removes_what_is_there_and_nothing_else(self, store: OutboxStore) -> None:
        await put(store, *(make_record(number) for number in range(60)), make_record(1, partition=UNKEYED))
        gone = [sequence_key(number) for number in range(3, 100)]
        await store.remove(KEYED, gone)
        await store.remove(KEYED, gone)
        await store.remove(KEYED, [])
        assert sks(await read_all(store)) == [sequence_key(number) for number in range(3)]
        assert len(await read_all(store, UNKEYED)) == 1

    async def test_an_update_adds_to_what_is_known(self, store: OutboxStore) -> None:
        record = make_record(1)
        await put(store, record)
        first = RecordState(PLAN, {"nats": DELIVERED}, attempts=1, tried_for=0.5)
        assert await store.update(KEYED, record.sk, first) == first
        other = RecordState(PLAN, {"web-hook_2": DEAD}, attempts=2, tried_for=1.75)
        both = replace(other, states={"nats": DELIVERED, "web-hook_2": DEAD})
        assert await store.update(KEYED, record.sk, other) == both
        assert facts_of((await read_all(store))[0]) == facts_of(record._replace(state=both))

    async def test_attempts_can_be_recorded_before_any_state(self, store: OutboxStore) -> None:
        record = make_record(1)
        await put(store, record)
        tried = RecordState(PLAN, {}, attempts=1, tried_for=3.0)
        assert await store.update(KEYED, record.sk, tried) == tried
        assert await state_of(store, record) == tried

    async def test_attempts_never_go_down(self, store: OutboxStore) -> None:
        record = make_record(1)
        await put(store, record)
        await store.update(KEYED, record.sk, RecordState(PLAN, {"nats": DELIVERED}, attempts=5, tried_for=9.5))
        late = RecordState(PLAN, {"web-hook_2": DELIVERED}, attempts=1, tried_for=0.5)
        all_of_it = RecordState(PLAN, {"nats": DELIVERED, "web-hook_2": DELIVERED}, attempts=5, tried_for=9.5)
        assert await store.update(KEYED, record.sk, late) == all_of_it
        assert await state_of(store, record) == all_of_it

    async def test_the_last_error_stays_until_there_is_a_newer_one(self, store: OutboxStore) -> None:
        record = make_record(1)
        await put(store, record)
        for given, kept in (("nats: denied: ü", "nats: denied: ü"), (None, "nats: denied: ü"), ("new", "new")):
            tried = RecordState(PLAN, {}, attempts=1, last_error=given)
            assert await store.update(KEYED, record.sk, tried) == replace(tried, last_error=kept)
            assert (await state_of(store, record)).last_error == kept

    async def test_updates_at_once_lose_nothing(self, store: OutboxStore) -> None:
        record = make_record(1)
        await put(store, record)
        names = [f"platform-{number}" for number in range(8)]
        plan = replace(PLAN, platforms=tuple(names))
        await asyncio.gather(
            *(store.update(KEYED, record.sk, RecordState(plan, {name: DELIVERED})) for name in names)
        )
        assert (await state_of(store, record)).states == dict.fromkeys(names, DELIVERED)

    async def test_a_recorded_plan_stays(self, store: OutboxStore) -> None:
        record = make_record(1)
        await put(store, record)
        await store.update(KEYED, record.sk, settled_as({"nats": REJECTED}, plan=FAILOVER))
        now = await store.update(KEYED, record.sk, settled_as({"web-hook_2": REJECTED}, plan=PLAN))
        assert now is not None
        assert now.plan == FAILOVER
        assert (await state_of(store, record)).plan == FAILOVER

    @pytest.mark.parametrize("settled", [DELIVERED, DEAD, HELD])
    async def test_a_settled_platform_stays_as_it_is(self, store: OutboxStore, settled: PlatformState) -> None:
        record = make_record(1)
        await put(store, record)
        await store.update(KEYED, record.sk, settled_as({"nats": settled}))
        for late in PlatformState:
            now = await store.update(KEYED, record.sk, settled_as({"nats": late}))
            assert now is not None
            assert now.states == {"nats": settled}

    async def test_a_late_update_does_not_make_a_record_anew(self, store: OutboxStore) -> None:
        record = make_record(1)
        await put(store, record)
        await store.remove(KEYED, [record.sk])
        assert await store.update(KEYED, record.sk, settled_as({"nats": DELIVERED})) is None
        assert await read_all(store) == []

    @pytest.mark.parametrize("generation", [1, 3])
    async def test_an_update_of_another_generation_does_nothing(self, store: OutboxStore, generation: int) -> None:
        record = make_record(1, state=RecordState(PLAN, generation=2))
        await put(store, record)
        late = settled_as({"nats": DELIVERED}, generation=generation)
        assert await store.update(KEYED, record.sk, late) is None
        assert await state_of(store, record) == record.state

    async def test_a_forgotten_plan_leaves_the_states(self, store: OutboxStore) -> None:
        record = make_record(1)
        await put(store, record)
        assert not await store.forget_plan(KEYED, record.sk, generation=0)
        old = settled_as({"nats": DELIVERED})
        await store.update(KEYED, record.sk, old)
        assert not await store.forget_plan(KEYED, record.sk, generation=1)
        assert await store.forget_plan(KEYED, record.sk, generation=0)
        assert not await store.forget_plan(KEYED, record.sk, generation=0)
        now = await state_of(store, record)
        assert (now.plan, now.states, now.generation) == (None, {"nats": DELIVERED}, 1)
        assert await store.update(KEYED, record.sk, old) is None
        again = await store.update(KEYED, record.sk, settled_as({}, plan=FAILOVER, generation=1))
        assert again is not None
        assert (again.plan, again.states) == (FAILOVER, {"nats": DELIVERED})

    async def test_the_plan_of_a_record_that_is_gone_cannot_be_forgotten(self, store: OutboxStore) -> None:
        record = make_record(1, state=settled_as({}))
        await put(store, record)
        await store.remove(KEYED, [record.sk])
        assert not await store.forget_plan(KEYED, record.sk, generation=0)
        assert await read_all(store) == []

    # ------------------------------------------------------------------ burying

    async def test_a_dead_letter_takes_the_place_of_its_record(self, store: OutboxStore) -> None:
        record = make_record(1, state=RecordState(PLAN, generation=2))
        letter = make_letter(record)
        await put(store, record)
        assert await store.bury(letter, None)
        assert await read_all(store) == []
        assert [facts_of(found) for found in await read_letters(store)] == [facts_of(letter)]

    async def test_a_dead_letter_comes_with_the_records_state(self, store: OutboxStore) -> None:
        record = make_record(1)
        await put(store, record)
        await store.update(KEYED, record.sk, settled_as({"web-hook_2": DELIVERED}))
        assert await store.bury(make_letter(record), settled_as({"nats": DEAD}, attempts=3))
        both = settled_as({"web-hook_2": DELIVERED, "nats": DEAD}, attempts=3)
        assert await state_of(store, record) == both
        assert [letter.id for letter in await read_letters(store)] == [make_letter(record).id]

    async def test_a_burial_never_lowers_what_was_tried(self, store: OutboxStore) -> None:
        record = make_record(1)
        await put(store, record)
        await store.update(KEYED, record.sk, RecordState(PLAN, {}, attempts=7, tried_for=2.5))
        assert await store.bury(make_letter(record), settled_as({"nats": DEAD}, attempts=2, tried_for=9.0))
        assert await state_of(store, record) == settled_as({"nats": DEAD}, attempts=7, tried_for=9.0)
        again = make_letter(record)
        assert not await store.bury(again, settled_as({"nats": DEAD}, attempts=1))
        assert len(await read_letters(store)) == 1

    async def test_platforms_that_all_rejected_become_dead_together(self, store: OutboxStore) -> None:
        record = make_record(1)
        await put(store, record)
        await store.update(KEYED, record.sk, settled_as({"nats": REJECTED}, plan=FAILOVER))
        letter = make_letter(record, platform="web-hook_2", platforms=FAILOVER.platforms, held=True)
        held = dict.fromkeys(FAILOVER.platforms, HELD)
        assert await store.bury(letter, settled_as(held, plan=FAILOVER))
        assert (await state_of(store, record)).states == held
        assert [facts_of(found) for found in await read_letters(store)] == [facts_of(letter)]

    async def test_an_unreadable_record_is_buried_as_it_is(self, store: OutboxStore) -> None:
        record = make_record(1)
        await put(store, record)
        raw = {"pk": {"S": "k#0001"}, "head": {"S": '{"ü'}, "n": {"N": "1"}}
        letter = replace(make_letter(record, platform=UNREADABLE), event=None, key=None, plan=None, raw=raw)
        assert await store.bury(letter, None)
        assert [facts_of(found) for found in await read_letters(store)] == [facts_of(letter)]

    async def test_nothing_is_buried_for_a_record_that_is_gone(self, store: OutboxStore) -> None:
        record = make_record(1)
        assert not await store.bury(make_letter(record), None)
        assert not await store.bury(make_letter(record), settled_as({"nats": DEAD}))
        assert await read_letters(store) == []
        assert await read_all(store) == []

    @pytest.mark.parametrize("generation", [0, 2])
    async def test_nothing_is_buried_for_another_generation(self, store: OutboxStore, generation: int) -> None:
        record = make_record(1, state=RecordState(PLAN, generation=1))
        await put(store, record)
        assert not await store.bury(make_letter(record), settled_as({"nats": DEAD}, generation=generation))
        assert await read_letters(store) == []
        assert await state_of(store, record) == record.state

    @pytest.mark.parametrize("settled", [DELIVERED, DEAD, HELD])
    async def test_nothing_is_buried_for_a_settled_platform(
        self, store: OutboxStore, settled: PlatformState
    ) -> None:
        record = make_record(1, state=settled_as({"web-hook_2": settled}))
        letter = make_letter(record, platforms=("nats", "web-hook_2"))
        await put(store, record)
        assert not await store.bury(letter, settled_as({"nats": DEAD, "web-hook_2": DEAD}))
        assert not await store.bury(letter, None)
        assert await read_letters(store) == []
        assert await state_of(store, record) == record.state

    @pytest.mark.parametrize("state", [None, settled_as({"nats": DEAD})])
    async def test_buried_twice_at_once_it_is_one_letter(
        self, store: OutboxStore, state: RecordState | None
    ) -> None:
        record = make_record(1)
        await put(store, record)
        answers = await asyncio.gather(*(store.bury(make_letter(record), state) for _ in range(2)))
        assert sorted(answers) == [False, True]
        assert len(await read_letters(store)) == 1
