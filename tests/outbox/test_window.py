from __future__ import annotations

from collections.abc import Sequence

from oms_events import build_event, encode
from oms_events.outbox.records import Bucket, Partition, PlatformState, RecordState, StoredRecord, sequence_key
from oms_events.outbox.window import Lane, Window
from oms_events.publishing import Plan

PARTITION = Partition(Bucket(1, 0), keyed=True)
EVENT = encode(build_event("order.created", "/orders", {"n": 1}))
NATS = Plan("r", "primary_only", ("nats",), first_that_works=False)
BOTH = Plan("r", "all", ("nats", "eventbridge"), first_that_works=False)
EITHER = Plan("r", "failover", ("nats", "eventbridge"), first_that_works=True)


def record(number: int, key: str | None = "a", **states: PlatformState) -> StoredRecord:
    state = RecordState(plan=BOTH if states else None, states=states)
    return StoredRecord(PARTITION, sequence_key(number), key, EVENT, 0, state, size=100)


def window(*, gated: Sequence[str] = ()) -> Window:
    made = Window(keyed=True)
    made.begin_pass(gated)
    return made


def load(
    made: Window, number: int, key: str | None = "a", plan: Plan = NATS, **states: PlatformState
) -> list[Lane]:
    lanes = list(made.load(record(number, key, **states), EVENT, plan))
    for lane in lanes:
        lane.in_flight = True
    return lanes


def numbers(lanes: Sequence[Lane]) -> list[int]:
    return [int(lane.entry.record.sk) for lane in lanes]


def test_only_the_first_record_of_a_key_may_go() -> None:
    made = window()
    (first,) = load(made, 1)
    assert load(made, 2) == []
    assert numbers(made.finish(first)) == [2]


def test_other_keys_and_records_without_one_never_wait() -> None:
    made = window()
    load(made, 1)
    assert numbers(load(made, 2, key="b")) == [2]
    assert numbers(load(made, 3, key=None)) == [3]
    assert numbers(load(made, 4, key=None)) == [4]


def test_each_platform_has_a_line_of_its_own() -> None:
    made = window()
    nats, eventbridge = load(made, 1, plan=BOTH)
    assert load(made, 2, plan=BOTH) == []
    assert [lane.platforms for lane in made.finish(nats)] == [("nats",)]
    assert [lane.platforms for lane in made.finish(eventbridge)] == [("eventbridge",)]


def test_failover_waits_for_the_lines_of_all_its_platforms() -> None:
    made = window()
    (nats,) = load(made, 1)
    assert load(made, 2, plan=EITHER) == []
    (failover,) = made.finish(nats)
    assert failover.platforms == ("nats", "eventbridge")
    assert load(made, 3, plan=BOTH) == []
    assert [lane.platforms for lane in made.finish(failover)] == [("nats",), ("eventbridge",)]


def test_what_follows_a_failure_is_left_in_the_table_until_a_new_pass() -> None:
    made = window()
    (first,) = load(made, 1)
    load(made, 2)
    made.fail(first)
    assert numbers([lane for entry in made.entries.values() for lane in entry.lanes]) == [1]
    assert load(made, 3) == []
    assert made.left == 2
    assert made.finish(first) == []
    # Still the same pass: record 2 is before it, and only in the table.
    assert load(made, 4) == []
    made.begin_pass(())
    assert numbers(load(made, 2)) == [2]


def test_a_failure_leaves_other_keys_alone() -> None:
    made = window()
    (first,) = load(made, 1)
    load(made, 2, key="b")
    made.fail(first)
    assert numbers(load(made, 3, key="c")) == [3]
    assert sorted(made.entries) == [sequence_key(1), sequence_key(2), sequence_key(3)]


def test_a_failure_of_one_platform_leaves_only_that_platforms_followers() -> None:
    made = window()
    nats, _ = load(made, 1, plan=BOTH)
    load(made, 2, plan=BOTH)
    made.fail(nats)
    second = made.entries[sequence_key(2)]
    assert [lane.platforms for lane in second.lanes] == [("eventbridge",)]


def test_what_is_left_behind_a_failover_lane_is_left_on_all_its_platforms() -> None:
    made = window()
    (first,) = load(made, 1)
    load(made, 2, plan=EITHER)
    load(made, 3, plan=Plan("r", "primary_only", ("eventbridge",), first_that_works=False))
    made.fail(first)
    assert sorted(made.entries) == [sequence_key(1)]


def test_a_gated_platform_takes_nothing_while_the_others_go_on() -> None:
    made = window(gated=["eventbridge"])
    (nats,) = load(made, 1, plan=BOTH)
    assert nats.platforms == ("nats",)
    assert made.left == 1


def test_a_platform_that_opens_in_the_middle_of_a_pass_waits_for_the_next() -> None:
    made = window()
    made.close_platform("eventbridge")
    load(made, 1, plan=BOTH)
    assert [lane.platforms for lane in load(made, 2, key="b", plan=BOTH)] == [("nats",)]
    made.begin_pass(())
    assert [lane.platforms for lane in load(made, 1, plan=BOTH)] == [("eventbridge",)]


def test_closing_a_platform_leaves_what_waits_and_keeps_what_is_on_the_wire() -> None:
    made = window()
    load(made, 1, plan=BOTH)
    load(made, 2, plan=BOTH)
    made.close_platform("eventbridge")
    first, second = made.entries[sequence_key(1)], made.entries[sequence_key(2)]
    assert [lane.platforms for lane in first.lanes] == [("nats",), ("eventbridge",)]
    assert [lane.platforms for lane in second.lanes] == [("nats",)]


def test_delivered_platforms_are_not_published_to_again() -> None:
    made = window()
    (lane,) = load(made, 1, plan=BOTH, nats=PlatformState.DELIVERED)
    assert lane.platforms == ("eventbridge",)


def test_a_held_dead_letter_stops_its_key_on_its_platform_only() -> None:
    made = window()
    load(made, 1, plan=BOTH, nats=PlatformState.DELIVERED, eventbridge=PlatformState.HELD)
    assert [lane.platforms for lane in load(made, 2, plan=BOTH)] == [("nats",)]
    assert len(load(made, 3, key="b", plan=BOTH)) == 2


def test_reading_a_record_twice_changes_nothing() -> None:
    made = window()
    load(made, 1, plan=BOTH)
    made.begin_pass(())
    assert load(made, 1, plan=BOTH) == []
    assert len(made.entries[sequence_key(1)].lanes) == 2


def test_memory_is_accounted_for() -> None:
    made = window()
    (first,) = load(made, 1)
    load(made, 2)
    assert made.bytes == 200
    made.fail(first)
    assert made.bytes == 100
    made.finish(first)
    assert (made.bytes, made.entries) == (0, {})


def test_the_keys_that_were_left_are_remembered_up_to_a_bound_and_beyond_it_all_count_as_left() -> None:
    made = window()
    for n in range(60_000):
        made.hold_key(f"k{n}", ("nats",))
    assert len(made._closed) <= 50_000
    assert load(made, 1, key="k1") == []
    assert load(made, 2, key="k59999") == []
    # Nobody knows any more whether it was left: better late than before an earlier one.
    assert load(made, 3, key="never left") == []
    assert numbers(load(made, 4, key=None)) == [4]
    made.begin_pass(())
    assert numbers(load(made, 3, key="never left")) == [3]


def test_a_bound_that_is_reached_for_one_platform_leaves_the_others_alone() -> None:
    made = window()
    for n in range(60_000):
        made.hold_key(f"k{n}", ("nats",))
    assert [lane.platforms for lane in load(made, 1, key="other", plan=BOTH)] == [("eventbridge",)]


def test_a_held_letter_is_heeded_while_its_record_is_in_memory_for_another_platform() -> None:
    made = window()
    load(made, 1, plan=BOTH)
    nats, _ = made.entries[sequence_key(1)].lanes
    nats.entry.states["nats"] = PlatformState.HELD
    made.leave(nats)
    made.begin_pass(())
    load(made, 1, plan=BOTH, nats=PlatformState.HELD)
    assert load(made, 2) == []


def test_a_record_whose_plan_was_taken_back_closes_its_key_until_its_last_lane_has_ended() -> None:
    made = window()
    nats, eventbridge = load(made, 1, plan=BOTH)
    nats.entry.obsolete = True
    made.leave(eventbridge)
    made.begin_pass(())
    assert load(made, 1, plan=BOTH) == []
    assert load(made, 2, plan=Plan("r", "primary_only", ("eventbridge",), first_that_works=False)) == []
    assert made.left == 2
