from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from oms_events._aio import cancel_and_wait
from oms_events.outbox.records import Bucket, Epoch, Layout, Lease
from tests.outbox.fleet import HEARTBEAT, LEASE, STEP, Fleet, settle

BEAT = HEARTBEAT + STEP
"""A heartbeat, as time goes here."""
SOON = 2 * BEAT
"""Buckets are shared so soon after a join or a clean leave."""
TAKEOVER = LEASE + BEAT
MARGIN = 1.0


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    fleet = Fleet()
    await fleet.open()
    yield fleet
    await fleet.close()
    assert not fleet.publishes_twice


# ------------------------------------------------------------------ joining and leaving


async def test_the_first_processor_has_everything_when_join_returns(fleet: Fleet) -> None:
    first = await fleet.join("p1")
    assert len(first.publishing) == 8
    assert first.changes == {"taken": 8}
    assert first.keeper.seconds_left() == LEASE - MARGIN
    assert first.keeper.buckets == tuple(Bucket(1, number) for number in range(8))


async def test_nothing_is_valid_before_the_join(fleet: Fleet) -> None:
    assert fleet.add("p1").keeper.seconds_left() == 0


async def test_a_newcomer_has_its_share_within_two_heartbeats(fleet: Fleet) -> None:
    await fleet.join("p1")
    await fleet.advance(5)
    await fleet.join("p2")
    await fleet.until(lambda: fleet.sizes() == [4, 4], within=SOON)
    await fleet.advance(1)
    await fleet.join("p3")
    await fleet.until(lambda: sorted(fleet.sizes()) == [2, 3, 3], within=SOON)


async def test_a_new_owner_learns_what_the_old_one_had_seen(fleet: Fleet) -> None:
    await fleet.join("p1")
    second = await fleet.join("p2")
    await fleet.advance(SOON)
    assert {lease.low for lease in second.keeper.held.values()} == {104, 105, 106, 107}


async def test_what_a_clean_leave_frees_is_taken_at_the_next_heartbeat(fleet: Fleet) -> None:
    first, _ = await fleet.join("p1"), await fleet.join("p2")
    await fleet.advance(SOON)
    await first.keeper.leave(10)
    assert first.changes["released"] == 8
    assert not first.relaying
    assert "p1" not in (await fleet.store.read_coordination()).members
    first.is_running = False
    await fleet.until(lambda: fleet.sizes() == [8], within=BEAT)


async def test_while_a_processor_leaves_the_others_take_what_it_has_freed(fleet: Fleet) -> None:
    first, second = await fleet.join("p1"), await fleet.join("p2")
    await fleet.advance(SOON)
    finish, slow = asyncio.Event(), min(first.relaying)

    async def in_flight(bucket: Bucket) -> None:
        if bucket == slow:
            await finish.wait()

    first.in_flight = in_flight
    leaving = asyncio.create_task(first.keeper.leave(60))
    await fleet.until(lambda: len(second.publishing) == 7, within=BEAT)
    await fleet.advance(2 * LEASE)
    assert len(second.publishing) == 7
    finish.set()
    await leaving
    await fleet.until(lambda: len(second.publishing) == 8, within=BEAT)


async def test_leaving_ends_in_time_even_if_a_relay_does_not(fleet: Fleet) -> None:
    first, second = await fleet.join("p1"), await fleet.join("p2")
    await fleet.advance(2 * LEASE)

    async def stuck(bucket: Bucket) -> None:
        await asyncio.Event().wait()

    first.in_flight = stuck
    leaving = asyncio.create_task(first.keeper.leave(5))
    assert await fleet.until(leaving.done, within=6) >= 5
    assert first.keeper.seconds_left() == 0
    await fleet.until(lambda: len(second.publishing) == 8, within=BEAT)


async def test_leaving_without_storage_ends_in_time(fleet: Fleet) -> None:
    first = await fleet.join("p1")
    first.line.down = True
    leaving = asyncio.create_task(first.keeper.leave(5))
    await settle()
    assert not first.relaying
    await fleet.until(leaving.done, within=7)
    assert first.keeper.seconds_left() == 0


async def test_of_two_that_join_at_once_each_bucket_has_one(fleet: Fleet) -> None:
    both = [fleet.add("p1"), fleet.add("p2")]
    await asyncio.gather(*(processor.keeper.join() for processor in both))
    fleet.look()
    await fleet.until(lambda: fleet.sizes() == [4, 4], within=SOON)


async def test_join_returns_without_storage_and_starts_when_it_is_back(fleet: Fleet) -> None:
    first = fleet.add("p1")
    first.line.down = True
    await first.keeper.join()
    assert fleet.sizes() == [0]
    await fleet.advance(10)
    first.line.down = False
    await fleet.until(lambda: fleet.sizes() == [8], within=HEARTBEAT / 2)
    assert first.alerts == ["storage"]


async def test_a_layout_that_could_not_be_read_is_read_at_the_next_attempt(fleet: Fleet) -> None:
    first = fleet.add("p1")
    first.line.fails = {"read_layout"}
    await first.keeper.join()
    first.line.fails = set()
    await fleet.until(lambda: fleet.sizes() == [8], within=HEARTBEAT / 2)


async def test_leaving_while_it_takes_buckets_gives_up_those_and_takes_no_more() -> None:
    fleet = Fleet(buckets=20)
    first = await fleet.join("p1")
    await fleet.open()
    answer = first.line.late_answers["take"] = asyncio.Event()
    first.keeper.refresh()
    await settle()
    leaving = asyncio.create_task(first.keeper.leave(10))
    await settle()
    assert not leaving.done()
    answer.set()
    await fleet.until(leaving.done, within=1)
    owners = await fleet.owners()
    assert len(owners) == 8
    assert set(owners.values()) == {None}


async def test_taking_many_buckets_does_not_hold_up_the_heartbeat() -> None:
    fleet = Fleet(buckets=200)
    await fleet.open()
    first = fleet.add("p1")
    first.line.seconds = {"take": 1.0}
    joining = asyncio.create_task(first.keeper.join())
    await fleet.until(lambda: fleet.sizes() == [200], within=40)
    await joining
    assert first.line.calls["beat"] >= 8
    assert first.changes == {"taken": 200}
    await fleet.close()


# ------------------------------------------------------------------ a steady fleet


async def test_a_steady_fleet_beats_and_reads_and_has_no_write_refused(fleet: Fleet) -> None:
    for name in ("p1", "p2", "p3"):
        await fleet.join(name)
    await fleet.advance(3 * HEARTBEAT)
    for processor in fleet.processors:
        processor.line.calls.clear()
        processor.line.refused.clear()
    before = await fleet.owners()
    await fleet.advance(60)
    assert await fleet.owners() == before
    for processor in fleet.processors:
        calls = processor.line.calls
        assert processor.line.refused == []
        assert set(calls) == {"beat", "read_coordination", "read_layout"}
        assert 20 <= calls["beat"] == calls["read_coordination"] <= 24
        assert calls["read_layout"] <= calls["beat"] / 5 + 1
        assert processor.keeper.seconds_left() >= LEASE - MARGIN - HEARTBEAT - 1


async def test_joins_and_leaves_one_after_the_other_have_no_write_refused(fleet: Fleet) -> None:
    first = await fleet.join("p1")
    for name in ("p2", "p3"):
        await fleet.join(name)
        await fleet.advance(SOON)
    await first.keeper.leave(10)
    first.is_running = False
    await fleet.advance(SOON)
    assert fleet.sizes() == [4, 4]
    assert [processor.line.refused for processor in fleet.processors] == [[], [], []]


# ------------------------------------------------------------------ death


@pytest.mark.parametrize("apart", [0, 3600, -3600])
async def test_the_dead_are_replaced_in_a_lease_and_a_heartbeat_however_wrong_the_clocks_are(
    fleet: Fleet, apart: int
) -> None:
    first = await fleet.join("p1")
    second = await fleet.join("p2", wall=timedelta(seconds=apart), monotonic=abs(apart))
    await fleet.advance(SOON + 20)
    assert fleet.sizes() == [4, 4]
    left = first.keeper.seconds_left()
    await first.die()
    passed = await fleet.until(lambda: len(second.publishing) == 8, within=TAKEOVER)
    assert passed >= left
    await fleet.advance(SOON)
    assert set((await fleet.store.read_coordination()).members) == {"p2"}
    await fleet.join("p3")
    await fleet.until(lambda: fleet.sizes() == [4, 4], within=SOON)


async def test_the_dead_are_replaced_as_soon_as_their_silence_is_a_lease_long(fleet: Fleet) -> None:
    first, second = await fleet.join("p1"), await fleet.join("p2")
    await fleet.advance(LEASE)
    beats = first.line.calls["beat"]
    await fleet.until(lambda: first.line.calls["beat"] > beats, within=BEAT)
    await first.die()
    second.keeper.refresh()
    await fleet.until(lambda: len(second.publishing) == 8, within=LEASE + 3 * STEP)


async def test_what_the_dead_one_had_is_shared_by_the_living(fleet: Fleet) -> None:
    dead = await fleet.join("p1")
    for name in ("p2", "p3"):
        await fleet.join(name)
    await fleet.advance(SOON + 1)
    await dead.die()
    await fleet.until(lambda: fleet.sizes() == [4, 4], within=TAKEOVER)
    assert not any("lost" in processor.changes for processor in fleet.processors)


async def test_a_newcomer_does_not_delay_the_replacement_of_the_dead(fleet: Fleet) -> None:
    first, second = await fleet.join("p1"), await fleet.join("p2")
    await fleet.advance(SOON + 1)
    await first.die()
    await fleet.advance(LEASE - 2)
    third = await fleet.join("p3")
    await fleet.until(lambda: len(second.publishing | third.publishing) == 8, within=TAKEOVER - LEASE + 2)
    await fleet.until(lambda: fleet.sizes() == [4, 4], within=SOON)


async def test_a_lease_of_an_owner_without_heartbeat_is_taken_after_a_lease(fleet: Fleet) -> None:
    bucket = Bucket(1, 3)
    assert await fleet.store.take(Lease(bucket), "function")
    first = await fleet.join("p1")
    await fleet.advance(LEASE - 1)
    assert len(first.publishing) == 7
    await fleet.until(lambda: bucket in first.publishing, within=BEAT)


# ------------------------------------------------------------------ a pause


async def test_a_processor_that_was_paused_is_valid_only_after_a_beat_and_a_reading(fleet: Fleet) -> None:
    first, second = await fleet.join("p1"), await fleet.join("p2")
    await fleet.advance(SOON)
    had = set(first.publishing)
    first.is_running = False
    await fleet.until(lambda: len(second.publishing) == 8, within=TAKEOVER + LEASE)
    answer = first.line.late_answers["read_coordination"] = asyncio.Event()
    beats = first.line.calls["beat"]
    first.is_running = True
    await first.clock.jump(40)
    assert first.line.calls["beat"] == beats + 1
    assert first.relaying == had
    assert first.keeper.seconds_left() == 0
    assert first.changes["expired"] == len(had)
    fleet.look()
    answer.set()
    await settle()
    assert not first.relaying
    assert first.changes["lost"] == len(had)
    assert first.keeper.seconds_left() == LEASE - MARGIN
    await fleet.until(lambda: fleet.sizes() == [4, 4], within=2 * SOON)


@pytest.mark.parametrize("call", ["beat", "read_coordination"])
async def test_an_answer_that_was_under_way_during_a_pause_proves_nothing(fleet: Fleet, call: str) -> None:
    first, second = await fleet.join("p1"), await fleet.join("p2")
    await fleet.advance(SOON)
    answer = first.line.late_answers[call] = asyncio.Event()
    calls = first.line.calls[call]
    await fleet.until(lambda: first.line.calls[call] > calls, within=BEAT)
    first.is_running = False
    await fleet.until(lambda: len(second.publishing) == 8, within=TAKEOVER + LEASE)
    first.line.late_answers.clear()
    first.line.late_answers["beat"] = asyncio.Event()
    answer.set()
    await first.clock.jump(40)
    assert first.keeper.seconds_left() == 0


async def test_a_beat_that_arrives_after_another_took_the_buckets_proves_nothing(fleet: Fleet) -> None:
    first, second = await fleet.join("p1"), await fleet.join("p2")
    await fleet.advance(SOON)
    beats = first.line.calls["beat"]
    await fleet.until(lambda: first.line.calls["beat"] > beats, within=BEAT)
    second.keeper.refresh()
    first.line.down = True
    await fleet.until(lambda: first.keeper.seconds_left() < HEARTBEAT, within=LEASE)
    first.line.down = False
    arrives = first.line.late_requests["beat"] = asyncio.Event()
    first.line.late_answers["read_coordination"] = asyncio.Event()
    await fleet.until(lambda: len(second.publishing) == 8, within=2 * BEAT)
    first.line.late_requests.clear()
    readings = first.line.calls["read_coordination"]
    arrives.set()
    await fleet.until(lambda: first.line.calls["read_coordination"] > readings, within=BEAT)
    assert first.relaying
    assert first.keeper.seconds_left() == 0


async def test_a_pause_that_nobody_used_costs_no_bucket(fleet: Fleet) -> None:
    first = await fleet.join("p1")
    await first.clock.jump(60)
    assert len(first.publishing) == 8
    assert first.changes == {"taken": 8, "expired": 8}
    assert first.line.calls["take"] == 8


# ------------------------------------------------------------------ storage that does not work


async def test_after_an_outage_for_all_everybody_has_its_own_buckets_again(fleet: Fleet) -> None:
    processors = [await fleet.join("p1"), await fleet.join("p2")]
    await fleet.advance(SOON)
    before = [set(processor.publishing) for processor in processors]
    for processor in processors:
        processor.line.down = True
        processor.details.clear()
        processor.line.calls.clear()
    await fleet.advance(LEASE)
    assert fleet.sizes() == [0, 0]
    await fleet.advance(10 * LEASE)
    for processor in processors:
        assert processor.changes == {"expired": 4}
        assert processor.alerts == ["storage"]
        assert processor.line.calls["beat"] > 10 * LEASE / HEARTBEAT
        processor.line.down = False
    await fleet.advance(10 * HEARTBEAT)
    assert [processor.publishing for processor in processors] == before
    for processor in processors:
        assert processor.changes == {"expired": 4}
        assert processor.line.calls["take"] == 0


async def test_a_short_outage_ends_no_lease(fleet: Fleet) -> None:
    first = await fleet.join("p1")
    first.line.down = True
    await fleet.advance(LEASE - MARGIN - HEARTBEAT)
    assert fleet.sizes() == [8]
    first.line.down = False
    await fleet.advance(2 * LEASE)
    assert fleet.sizes() == [8]
    assert "expired" not in first.changes


async def test_who_alone_cannot_reach_the_storage_is_replaced_and_comes_back(fleet: Fleet) -> None:
    first, second = await fleet.join("p1"), await fleet.join("p2")
    await fleet.advance(SOON)
    first.line.down = True
    await fleet.until(lambda: len(second.publishing) == 8, within=TAKEOVER)
    assert first.relaying
    first.line.down = False
    await fleet.until(lambda: fleet.sizes() == [4, 4], within=2 * SOON)
    assert first.changes["lost"] == 4


async def test_each_streak_of_failures_is_told_once(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="oms_events")
    first = await fleet.join("p1")
    for _ in range(2):
        first.line.down = True
        await fleet.advance(5 * HEARTBEAT)
        first.line.down = False
        await fleet.advance(2 * HEARTBEAT)
    assert first.alerts == ["storage", "storage"]
    texts = [record.getMessage() for record in caplog.records]
    assert sum("cannot be used: no connection" in text for text in texts) == 2
    assert sum(text == "the outbox table outbox can be used again" for text in texts) == 2


async def test_a_heartbeat_without_an_answer_is_given_up_in_time_for_another(fleet: Fleet) -> None:
    first = await fleet.join("p1")
    first.line.late_answers["beat"] = asyncio.Event()
    await fleet.advance(2 * HEARTBEAT)
    first.line.late_answers.clear()
    await fleet.advance(2 * HEARTBEAT)
    assert first.keeper.seconds_left() > LEASE - MARGIN - HEARTBEAT - 1
    assert "expired" not in first.changes


async def test_beats_alone_keep_leases_that_have_not_ended(fleet: Fleet) -> None:
    first = await fleet.join("p1")
    first.line.late_answers["read_coordination"] = asyncio.Event()
    await fleet.advance(3 * LEASE)
    assert len(first.publishing) == 8


async def test_a_bucket_that_was_taken_without_an_answer_is_relayed_after_the_next_reading(fleet: Fleet) -> None:
    first = fleet.add("p1")
    first.line.loses_answers_of = {"take"}
    await first.keeper.join()
    assert fleet.sizes() == [0]
    assert first.alerts == ["storage"]
    first.line.loses_answers_of = set()
    await fleet.until(lambda: fleet.sizes() == [8], within=BEAT)
    assert first.changes == {"taken": 8}


async def test_a_bucket_that_was_given_up_without_an_answer_counts_as_released(fleet: Fleet) -> None:
    first = await fleet.join("p1")
    first.line.loses_answers_of = {"release"}
    await fleet.join("p2")
    await fleet.until(lambda: fleet.sizes() == [4, 4], within=SOON)
    await fleet.advance(BEAT)
    assert first.changes == {"taken": 8, "released": 4}


# ------------------------------------------------------------------ giving up


async def test_what_is_in_flight_may_finish_while_the_heartbeat_goes_on(fleet: Fleet) -> None:
    first = await fleet.join("p1")
    finish = asyncio.Event()

    async def in_flight(bucket: Bucket) -> None:
        await finish.wait()

    first.in_flight = in_flight
    second = await fleet.join("p2")
    await fleet.advance(2 * LEASE)
    assert fleet.sizes() == [4, 0]
    assert len(first.keeper.held) == 8
    assert first.keeper.seconds_left() > LEASE - MARGIN - HEARTBEAT - 1
    finish.set()
    await fleet.until(lambda: fleet.sizes() == [4, 4], within=BEAT)
    assert second.line.refused == []


async def test_a_request_to_look_again_reaches_the_owner(fleet: Fleet) -> None:
    first = await fleet.join("p1")
    bucket = Bucket(1, 2)
    await fleet.store.wake(bucket)
    await fleet.advance(BEAT)
    assert first.looks[bucket] == 2
    await fleet.advance(3 * HEARTBEAT)
    assert first.looks[bucket] == 2


async def test_the_last_processor_looks_again_before_it_leaves_when_asked_meanwhile(fleet: Fleet) -> None:
    first = await fleet.join("p1")
    bucket = Bucket(1, 2)

    async def in_flight(given_up: Bucket) -> None:
        if given_up == bucket and first.looks[bucket] == 1:
            await fleet.store.wake(bucket)

    first.in_flight = in_flight
    leaving = asyncio.create_task(first.keeper.leave(15))
    await fleet.advance(HEARTBEAT + 1)
    assert first.relaying == {bucket}
    await fleet.advance(BEAT)
    await leaving
    assert first.looks[bucket] == 2
    assert first.line.refused == ["release"]
    assert (await fleet.owners())[bucket] is None


async def test_constant_requests_to_look_again_do_not_keep_a_bucket_from_the_newcomer(fleet: Fleet) -> None:
    first = await fleet.join("p1")
    woken = [Bucket(1, number) for number in range(8)]

    async def in_flight(bucket: Bucket) -> None:
        await fleet.store.wake(bucket)

    first.in_flight = in_flight
    await fleet.join("p2")
    for _ in range(round(SOON)):
        for bucket in woken:
            await fleet.store.wake(bucket)
        await fleet.advance(1)
    assert fleet.sizes() == [4, 4]


async def test_a_relay_that_fails_to_stop_is_started_again_and_stopped_again(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    first = await fleet.join("p1")
    failed: list[Bucket] = []

    async def fails_once(bucket: Bucket) -> None:
        if bucket not in failed:
            failed.append(bucket)
            raise ValueError("not now")

    first.in_flight = fails_once
    await fleet.join("p2")
    await fleet.until(lambda: fleet.sizes() == [4, 4], within=4 * HEARTBEAT)
    assert "keeping the outbox's leases failed" in caplog.text
    assert first.alerts == []


# ------------------------------------------------------------------ layouts


async def test_a_new_epoch_is_shared_too_and_a_dropped_one_is_given_up(fleet: Fleet) -> None:
    processors = [await fleet.join("p1"), await fleet.join("p2")]
    await fleet.advance(SOON)
    old, new = Epoch(1, 8, is_open=False), Epoch(2, 4, is_open=True)
    await fleet.store.write_layout(Layout(2, (old, new)))
    await fleet.until(lambda: fleet.sizes() == [6, 6], within=6 * HEARTBEAT)
    for processor in processors:
        assert sum(bucket.epoch == 2 for bucket in processor.publishing) == 2
    await fleet.store.write_layout(Layout(3, (new,)))
    for processor in processors:
        processor.keeper.refresh()
    await fleet.advance(1)
    assert fleet.sizes() == [2, 2]
    assert processors[0].changes["released"] == 8


async def test_without_a_layout_there_is_nothing_to_relay_until_there_is_one() -> None:
    fleet = Fleet()
    first = await fleet.join("p1")
    await fleet.open()
    assert fleet.sizes() == [0]
    first.keeper.refresh()
    await fleet.advance(STEP)
    assert fleet.sizes() == [8]
    await fleet.close()


# ------------------------------------------------------------------ hygiene


async def test_nothing_runs_on_after_leaving(fleet: Fleet) -> None:
    before = asyncio.all_tasks()
    first = await fleet.join("p1")
    names = {task.get_name() for task in asyncio.all_tasks() - before}
    assert {"oms-events-outbox-heartbeat", "oms-events-outbox-lease-expiry"} <= names
    await first.keeper.leave(10)
    assert asyncio.all_tasks() == before


async def test_a_cancelled_leave_ends_the_heartbeat(fleet: Fleet) -> None:
    before = asyncio.all_tasks()
    first = await fleet.join("p1")

    async def stuck(bucket: Bucket) -> None:
        await asyncio.Event().wait()

    first.in_flight = stuck
    leaving = asyncio.create_task(first.keeper.leave(60))
    await settle()
    await cancel_and_wait(leaving)
    assert asyncio.all_tasks() == before
    assert first.keeper.seconds_left() == 0
