from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms_events.eventstore.schema import (
    AGGREGATE_ID,
    BY_TYPE,
    CHECKPOINTS,
    EVENT_SEQUENCE,
    EVENT_STORE,
    EVENT_TIME,
    READ_MODEL,
    SNAPSHOTS,
    TYPE_SHARD,
    TYPE_SHARDS,
    event_time,
    time_bound,
    type_shard,
    type_shards,
)

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
times = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=9))]))


def test_the_tables_have_the_keys_that_queries_need() -> None:
    assert EVENT_STORE.keys == ((AGGREGATE_ID, "S", "HASH"), (EVENT_SEQUENCE, "N", "RANGE"))
    [by_type] = EVENT_STORE.indexes
    assert (by_type.name, by_type.hash_key, by_type.range_key) == (BY_TYPE, TYPE_SHARD, EVENT_TIME)
    assert (by_type.projection, EVENT_STORE.stream) == ("all", "new_image")
    assert READ_MODEL.keys == (("AccountId", "S", "HASH"), ("ProjectionType", "S", "RANGE"))
    assert SNAPSHOTS.keys == EVENT_STORE.keys
    assert CHECKPOINTS.keys == (("CheckpointKey", "S", "HASH"), ("ProjectionName", "S", "RANGE"))


def test_events_of_one_type_go_to_all_shards_and_those_of_an_aggregate_to_one() -> None:
    found = Counter(type_shard("TransactionProcessed", f"account-{number}") for number in range(8_000))
    assert set(found) == set(type_shards("TransactionProcessed"))
    assert len(found) == TYPE_SHARDS
    assert max(found.values()) < 1.2 * 8_000 / TYPE_SHARDS
    # Stored keys: the same in every release.
    assert type_shard("AccountCreated", "account-123") == "AccountCreated#06"
    assert not set(type_shards("Account")) & set(type_shards("AccountCreated"))


@given(times, times, st.integers(1, 10**15), st.integers(1, 10**15))
def test_the_index_sorts_by_time_and_then_by_position(one: datetime, other: datetime, low: int, high: int) -> None:
    if one != other:
        earlier, later = sorted((one, other))
        assert event_time(earlier, "b", high) < time_bound(later) < event_time(later, "a", low)
    elif low != high:
        assert (event_time(one, "a", low) < event_time(other, "a", high)) is (low < high)


def test_events_of_the_same_time_have_keys_of_their_own() -> None:
    keys = {event_time(NOON, aggregate, sequence) for aggregate in ("a", "b") for sequence in (1, 2)}
    assert len(keys) == 4
    assert event_time(NOON, "a", 1) == "2026-01-31T12:00:00.000000Z#a#0000000000000001"


def test_a_time_without_its_zone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"give it with its zone"):
        time_bound(NOON.replace(tzinfo=None))
