from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from oms_events.publishers.eventbridge.entries import Entry, entry_size, pack

sizes = st.lists(st.integers(1, 400), max_size=60)


def entries(of: list[int]) -> list[Entry]:
    return [Entry(index, {}, size) for index, size in enumerate(of)]


@given(sizes, st.integers(1, 10), st.integers(1, 1000))
def test_packing_keeps_order_and_limits(of: list[int], most: int, limit: int) -> None:
    calls = list(pack(entries(of), max_entries=most, max_bytes=limit))
    assert [entry.index for call in calls for entry in call] == list(range(len(of)))
    assert all(1 <= len(call) <= most for call in calls)
    assert all(sum(entry.size for entry in call) < limit or len(call) == 1 for call in calls)


@given(sizes, st.integers(1, 10), st.integers(401, 1000))
def test_packing_is_greedy(of: list[int], most: int, limit: int) -> None:
    calls = list(pack(entries(of), max_entries=most, max_bytes=limit))
    for call, following in pairwise(calls):
        assert len(call) == most or sum(e.size for e in call) + following[0].size >= limit


def test_the_sum_stays_below_the_limit_and_may_not_reach_it() -> None:
    assert [len(call) for call in pack(entries([50, 50]), max_entries=10, max_bytes=100)] == [1, 1]
    assert [len(call) for call in pack(entries([50, 49]), max_entries=10, max_bytes=100)] == [2]


def test_the_size_is_counted_as_aws_does() -> None:
    assert entry_size("oms", "Made", b"{}", (), timed=False) == 3 + 4 + 2
    assert entry_size("ö", "漢", '"ü"'.encode(), ("arn:a", "ß"), timed=True) == 14 + 2 + 3 + 4 + 5 + 2
