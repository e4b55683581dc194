"""What the contract says of dead letters: listed, requeued, freed and purged."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from oms_events.outbox.records import (
    NewRecord,
    RecordState,
    sequence_key,
)
from oms_events.outbox.store import OutboxStore
from oms_events.testing.outbox_contract.support import (
    DEAD,
    DELIVERED,
    HELD,
    KEYED,
    PLAN,
    buried,
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


class DeadLettersContract:
    """What the contract says of dead letters: listed, requeued, freed and purged."""

    @pytest.mark.parametrize("limit", [1, 7, 100])
    async def test_dead_letters_are_listed_by_platform_in_pages(self, store: OutboxStore, limit: int) -> None:
        platforms = ("nats", "nats2", "web-hook_2")
        records = [make_record(number) for number in range(30)]
        letters = [make_letter(record, platform=platforms[index % 3]) for index, record in enumerate(records)]
        await put(store, *records)
        for letter in reversed(letters):
            assert await store.bury(letter, None)
        assert [letter.id for letter in await read_letters(store, limit=limit)] == sorted(
            letter.id for letter in letters
        )
        for index, platform in enumerate(platforms):
            found = await read_letters(store, platform, limit=limit)
            assert [letter.id for letter in found] == [letter.id for letter in letters[index::3]]
        assert await read_letters(store, "nat") == []

    async def test_a_requeued_letter_becomes_a_record(self, store: OutboxStore) -> None:
        record = make_record(1)
        letter = await buried(store, record, None)
        again = NewRecord(
            KEYED, sequence_key(9), letter.key, record.event, letter.added, RecordState(PLAN), letter.history
        )
        assert await store.requeue(letter, again)
        assert await read_letters(store) == []
        assert [facts_of(found) for found in await read_all(store)] == [facts_of(again)]

    async def test_requeued_twice_at_once_one_wins(self, store: OutboxStore) -> None:
        letter = await buried(store, make_record(1), None)
        answers = await asyncio.gather(*(store.requeue(letter, make_record(number)) for number in (8, 9)))
        assert sorted(answers) == [False, True]
        assert sks(await read_all(store)) == [sequence_key((8, 9)[answers.index(True)])]
        assert not await store.requeue(letter, make_record(10))
        assert len(await read_all(store)) == 1

    async def test_freeing_a_held_record_begins_a_generation(self, store: OutboxStore) -> None:
        record = make_record(1)
        state = settled_as({"nats": HELD, "web-hook_2": DELIVERED}, last_error="nats: too_large: no")
        letter = await buried(store, record, state, held=True)
        assert await store.requeue(letter, None)
        freed = await state_of(store, record)
        # Its attempts begin anew too, or it would be dead again at the first failure.
        assert freed == RecordState(PLAN, {"web-hook_2": DELIVERED}, generation=1)
        assert await read_letters(store) == []
        assert await store.update(KEYED, record.sk, settled_as({"nats": DELIVERED})) is None
        assert not await store.bury(letter, settled_as({"nats": HELD}))
        assert await store.bury(letter, settled_as({"nats": HELD}, generation=1))

    async def test_freeing_a_held_record_adds_the_letters_history_to_its_own(self, store: OutboxStore) -> None:
        record = make_record(1)._replace(history=({"code": "oldest"},))
        held = {"nats": HELD, "web-hook_2": HELD}
        first = replace(make_letter(record, held=True), history=({"code": "oldest"}, {"code": "nats"}))
        second = make_letter(record, platform="web-hook_2", held=True)
        second = replace(second, history=({"code": "oldest"}, {"code": "web"}))
        await put(store, record)
        assert await store.bury(first, settled_as({"nats": HELD}))
        assert await store.bury(second, settled_as(held))
        assert await store.requeue(first, None)
        assert await store.requeue(second, None)
        (found,) = await read_all(store)
        assert [entry["code"] for entry in found.history] == ["oldest", "nats", "web"]

    async def test_of_letters_of_a_record_requeued_at_once_all_stay_in_its_history(
        self, store: OutboxStore
    ) -> None:
        record = make_record(1)
        names = [f"platform-{number}" for number in range(4)]
        plan = replace(PLAN, platforms=tuple(names))
        await put(store, record)
        letters = []
        for name in names:
            letters.append(replace(make_letter(record, platform=name, held=True), history=({"code": name},)))
            assert await store.bury(letters[-1], settled_as({name: HELD}, plan=plan))
        left = letters
        while left:
            done = await asyncio.gather(*(store.requeue(letter, None) for letter in left), return_exceptions=True)
            assert True in done
            left = [letter for letter, answer in zip(left, done, strict=True) if answer is not True]
        (found,) = await read_all(store)
        assert sorted(entry["code"] for entry in found.history) == names
        assert found.state == RecordState(plan, {}, generation=4)

    async def test_a_long_history_of_a_freed_record_keeps_the_newest_entries(self, store: OutboxStore) -> None:
        record = make_record(1)._replace(history=[{"attempt": -1}])
        history = tuple({"attempt": number, "error": "x" * 100} for number in range(200))
        letter = replace(make_letter(record, held=True), history=history)
        await put(store, record)
        assert await store.bury(letter, settled_as({"nats": HELD}))
        assert await store.requeue(letter, None)
        (found,) = await read_all(store)
        assert list(found.history) == list(history[-len(found.history) :])
        assert 20 < len(found.history) < 40

    async def test_an_old_reading_of_a_letter_changes_nothing(self, store: OutboxStore) -> None:
        record = make_record(1)
        old = await buried(store, record, settled_as({"nats": HELD}), held=True)
        assert await store.requeue(old, None)
        new = replace(old, failed=old.failed + 1)
        assert await store.bury(new, settled_as({"nats": HELD}, generation=1))
        assert not await store.requeue(old, None)
        assert not await store.purge(old)
        assert [facts_of(letter) for letter in await read_letters(store)] == [facts_of(new)]
        assert (await state_of(store, record)).states == {"nats": HELD}

    async def test_freed_twice_at_once_one_wins(self, store: OutboxStore) -> None:
        record = make_record(1)
        letter = await buried(store, record, settled_as({"nats": HELD}), held=True)
        answers = await asyncio.gather(store.requeue(letter, None), store.requeue(letter, None))
        assert sorted(answers) == [False, True]
        assert (await state_of(store, record)).generation == 1

    async def test_a_held_record_that_is_gone_cannot_be_freed(self, store: OutboxStore) -> None:
        record = make_record(1)
        letter = await buried(store, record, settled_as({"nats": HELD}), held=True)
        await store.remove(KEYED, [record.sk])
        assert not await store.requeue(letter, None)
        assert await read_all(store) == []
        assert len(await read_letters(store)) == 1

    async def test_a_purged_letter_is_gone(self, store: OutboxStore) -> None:
        record = make_record(1)
        letter = await buried(store, record, settled_as({"nats": DEAD}))
        assert await store.purge(letter)
        assert not await store.purge(letter)
        assert not await store.requeue(letter, make_record(2))
        assert await read_letters(store) == []
        assert (await state_of(store, record)).states == {"nats": DEAD}

    async def test_purging_a_held_letter_lets_its_key_go_on(self, store: OutboxStore) -> None:
        record = make_record(1)
        letter = await buried(store, record, settled_as({"nats": HELD, "web-hook_2": DELIVERED}), held=True)
        assert await store.purge(letter)
        assert await read_letters(store) == []
        state = await state_of(store, record)
        assert (state.plan, state.states) == (PLAN, {"nats": DEAD, "web-hook_2": DELIVERED})

    async def test_a_held_letter_can_be_purged_after_its_record(self, store: OutboxStore) -> None:
        record = make_record(1)
        letter = await buried(store, record, settled_as({"nats": HELD}), held=True)
        await store.remove(KEYED, [record.sk])
        assert await store.purge(letter)
        assert await read_letters(store) == []
        assert await read_all(store) == []

    async def test_of_requeue_and_purge_at_once_one_wins(self, store: OutboxStore) -> None:
        record = make_record(1)
        letter = await buried(store, record, settled_as({"nats": HELD}), held=True)
        freed, purged = await asyncio.gather(store.requeue(letter, None), store.purge(letter))
        assert freed is not purged
        assert (await state_of(store, record)).states == ({} if freed else {"nats": DEAD})
