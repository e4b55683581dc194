from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from oms_events.outbox.gaps import REACH, Gaps


def gaps(*, low: int = 1, horizon: float = 60.0) -> Gaps:
    return Gaps(low=low, horizon=horizon)


def test_an_unbroken_row_leaves_nothing_to_look_for() -> None:
    assert gaps().see([1, 2, 3], 0.0) == []


def test_a_missing_number_is_looked_for_before_each_later_record() -> None:
    row = gaps()
    assert row.see([1, 3], 0.0) == [2]
    row.looked([])
    assert row.see([4], 1.0) == [2]


def test_what_was_found_is_not_looked_for_again() -> None:
    row = gaps()
    row.see([1, 3], 0.0)
    row.looked([2])
    assert row.see([4], 1.0) == []


def test_a_page_that_could_not_be_looked_for_is_due_the_next_time() -> None:
    row = gaps()
    assert row.see([1, 3], 0.0) == [2]
    # The page was not taken, and is read again: nothing in it is new.
    assert row.see([1, 3], 1.0) == [2]


def test_at_most_so_many_numbers_below_a_record_are_looked_for() -> None:
    assert gaps().see([1000], 0.0) == list(range(1000 - REACH, 1000))


def test_a_relay_that_knows_nothing_looks_below_its_first_record() -> None:
    assert Gaps(horizon=60.0).see([5], 0.0) == [1, 2, 3, 4]


def test_a_new_owner_does_not_look_below_what_the_last_one_had_seen() -> None:
    assert gaps(low=41).see([43], 0.0) == [41, 42]


def test_a_number_is_not_looked_for_beyond_the_horizon() -> None:
    row = gaps(horizon=10.0)
    row.see([1, 3], 0.0)
    row.looked([])
    assert row.see([4], 11.0) == []


def test_a_late_record_is_counted_and_looked_below_again() -> None:
    row = gaps()
    row.see([1, 5], 0.0)
    row.looked([])
    assert row.see([1, 4, 5], 1.0) == [2, 3]
    assert row.late == 1


def test_a_refused_transaction_leaves_no_gap_whenever_it_is_told() -> None:
    before, after = gaps(), gaps()
    before.void([2])
    assert before.see([1, 3], 0.0) == []
    after.see([1, 3], 0.0)
    after.looked([])
    after.void([2])
    assert after.see([4], 0.0) == []


def test_a_record_follows_only_when_nothing_is_missing_below_it() -> None:
    row = gaps()
    row.see([1], 0.0)
    assert row.follows(2, 0.0)
    assert not row.follows(3, 0.0)
    row.void([2])
    assert row.follows(3, 0.0)
    row.see([5], 0.0)
    assert not row.follows(6, 0.0)


def test_nothing_follows_for_a_relay_that_knows_nothing() -> None:
    assert not Gaps(horizon=60.0).follows(1, 0.0)


def test_a_large_gap_in_a_page_hides_no_older_one_below_it() -> None:
    row = gaps()
    row.see([*range(1, 50), *range(51, 101)], 0.0)
    row.looked([])
    assert 50 in row.see([101, 300], 1.0)


def test_what_is_remembered_of_refused_transactions_is_bounded() -> None:
    old, new = gaps(), gaps()
    for row in (old, new):
        row.void(range(1, 10_001))
        assert len(row._void) <= 2000
    assert new.see([10_001], 0.0) == []
    # The older ones are gaps like others.
    assert old.see([8000], 0.0) == list(range(7900, 8000))


@given(st.sets(st.integers(1, REACH)), st.data())
def test_low_never_passes_a_number_that_was_not_seen(numbers: set[int], data: st.DataObject) -> None:
    row, seen = gaps(), set[int]()
    left = sorted(numbers)
    while left:
        page = left[: data.draw(st.integers(1, len(left)))]
        left = left[len(page) :]
        row.see(page, 0.0)
        row.looked([])
        seen.update(page)
        assert seen.issuperset(range(1, row.low))
