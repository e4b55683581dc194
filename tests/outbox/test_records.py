from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms_events.outbox.records import (
    Bucket,
    DeadLetter,
    Epoch,
    Layout,
    Partition,
    PlatformState,
    is_settled,
    open_platforms,
    partition_key,
    rest_of,
    sequence_key,
)
from oms_events.publishing import Plan

DELIVERED, REJECTED, DEAD, HELD = PlatformState
ALL = Plan("rule", "ALL_PLATFORMS", ("a", "b"), first_that_works=False)
FIRST = Plan("rule", "FAILOVER", ("a", "b"), first_that_works=True)


@pytest.mark.parametrize(
    ("plan", "states", "owed", "settled"),
    [
        (ALL, {}, ("a", "b"), False),
        (ALL, {"a": DELIVERED}, ("b",), False),
        (ALL, {"b": DEAD}, ("a",), False),
        (ALL, {"a": DELIVERED, "b": DEAD}, (), True),
        (ALL, {"a": DEAD, "b": DEAD}, (), True),
        (ALL, {"a": DELIVERED, "b": HELD}, (), False),
        (ALL, {"a": DELIVERED, "gone": DELIVERED}, ("b",), False),
        (FIRST, {}, ("a", "b"), False),
        (FIRST, {"a": REJECTED}, ("b",), False),
        (FIRST, {"a": REJECTED, "b": REJECTED}, (), False),
        (FIRST, {"b": DELIVERED}, (), True),
        (FIRST, {"a": REJECTED, "b": DELIVERED}, (), True),
        (FIRST, {"a": DEAD, "b": DEAD}, (), True),
        (FIRST, {"a": HELD, "b": HELD}, (), False),
    ],
)
def test_what_is_owed_and_when_nothing_is(
    plan: Plan, states: dict[str, PlatformState], owed: tuple[str, ...], settled: bool
) -> None:
    assert open_platforms(plan, states) == owed
    assert is_settled(plan, states) is settled


@given(
    st.sampled_from([ALL, FIRST]),
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(PlatformState)),
    st.sampled_from("ab"),
)
def test_what_is_settled_is_owed_nothing_and_a_delivery_never_unsettles(
    plan: Plan, states: dict[str, PlatformState], platform: str
) -> None:
    if is_settled(plan, states):
        assert open_platforms(plan, states) == ()
        assert is_settled(plan, {**states, platform: DELIVERED})


def test_the_rest_of_a_plan_keeps_what_it_is() -> None:
    assert rest_of(FIRST, ["b"]) == Plan("rule", "FAILOVER", ("b",), first_that_works=True)


@given(st.integers(0, 10**20 - 1), st.integers(0, 10**20 - 1))
def test_sequence_keys_sort_as_their_numbers(one: int, other: int) -> None:
    assert (sequence_key(one) < sequence_key(other)) is (one < other)


_partitions = st.builds(
    Partition, st.builds(Bucket, st.integers(1, 9999), st.integers(0, 1023)), keyed=st.booleans()
)


@given(_partitions, _partitions)
def test_no_two_partitions_share_a_key(one: Partition, other: Partition) -> None:
    assert (partition_key(one) == partition_key(other)) is (one == other)


def test_partition_keys_are_what_other_versions_read() -> None:
    assert partition_key(Partition(Bucket(2, 31), keyed=True)) == "k#0002#0031"
    assert partition_key(Partition(Bucket(2, 31), keyed=False)) == "u#0002#0031"


def _letter(platform: str, added: int, sk: str = sequence_key(1)) -> DeadLetter:
    origin = Partition(Bucket(1, 1), keyed=True)
    return DeadLetter(platform, (platform,), None, None, "reason", "code", 1, added, 0, origin, sk)


def test_dead_letters_sort_by_platform_then_by_when_they_were_added() -> None:
    in_order = [
        _letter("a", 999), _letter("a", 1_700_000_000_000), _letter("a", 1_700_000_000_000, sequence_key(2)),
        _letter("b", 1),
    ]  # fmt: skip
    assert sorted(in_order, key=lambda letter: letter.id) == in_order
    assert len({letter.id for letter in in_order}) == 4


def test_a_layout_shows_its_open_epoch_and_all_its_buckets() -> None:
    layout = Layout(2, (Epoch(1, 2, is_open=False), Epoch(2, 1, is_open=True)))
    assert layout.open_epoch == Epoch(2, 1, is_open=True)
    assert layout.buckets == (Bucket(1, 0), Bucket(1, 1), Bucket(2, 0))
    assert Layout(3, (Epoch(1, 2, is_open=False),)).open_epoch is None
