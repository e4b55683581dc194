from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from oms_events.outbox.records import Bucket, Coordination, Lease, Member
from oms_events.outbox.shares import LEAVING, NO_BEAT, Steps, Take, Watch, fair_shares, plan_steps

MEMBERS = [f"p{number}" for number in range(7)]
BUCKETS = [Bucket(epoch, number) for epoch in (1, 2) for number in range(8)]

Owners = Mapping[Bucket, str | None]
members = st.sets(st.sampled_from(MEMBERS), min_size=1).map(sorted)
buckets = st.sets(st.sampled_from(BUCKETS)).map(sorted)
owners = st.dictionaries(st.sampled_from(BUCKETS), st.none() | st.sampled_from(MEMBERS))


# ------------------------------------------------------------------ fair shares


@given(members, buckets, owners)
def test_every_bucket_has_an_owner_and_no_member_two_more_than_another(
    members: list[str], buckets: list[Bucket], owners: Owners
) -> None:
    shares = fair_shares(members, buckets, owners)
    assert set(shares) == set(buckets)
    counts = Counter(shares.values())
    sizes = [counts[member] for member in members]
    assert sum(sizes) == len(buckets)
    assert max(sizes) - min(sizes) <= 1


@given(members, buckets, owners, st.randoms(use_true_random=False))
def test_the_order_of_what_was_read_changes_nothing(
    members: list[str], buckets: list[Bucket], owners: Owners, random: Random
) -> None:
    expected = fair_shares(members, buckets, owners)
    pairs = list(owners.items())
    for each in (members, buckets, pairs):
        random.shuffle(each)
    assert fair_shares(members, buckets, dict(pairs)) == expected


@given(members, buckets, owners)
def test_what_is_shared_fairly_stays_where_it_is(
    members: list[str], buckets: list[Bucket], owners: Owners
) -> None:
    shares = fair_shares(members, buckets, owners)
    assert fair_shares(members, buckets, shares) == shares


@given(members, buckets, owners)
def test_no_other_fair_plan_takes_less_from_its_owners(
    members: list[str], buckets: list[Bucket], owners: Owners
) -> None:
    shares = fair_shares(members, buckets, owners)
    moved = sum(owners.get(bucket) in members and owners[bucket] != shares[bucket] for bucket in buckets)
    counts = Counter(owners.get(bucket) for bucket in buckets)
    least, extra = divmod(len(buckets), len(members))
    fewest = min(
        sum(max(0, counts[member] - least - (member in larger)) for member in members)
        for larger in combinations(members, extra)
    )
    assert moved == fewest


@given(members, buckets, st.sampled_from(MEMBERS))
def test_a_join_only_moves_the_share_of_the_one_that_joined(
    members: list[str], buckets: list[Bucket], newcomer: str
) -> None:
    before = fair_shares(members, buckets, {})
    after = fair_shares({*members, newcomer}, buckets, before)
    assert all(after[bucket] == newcomer for bucket in buckets if after[bucket] != before[bucket])


@given(members, buckets)
def test_a_death_only_moves_what_the_dead_one_had(members: list[str], buckets: list[Bucket]) -> None:
    before = fair_shares(members, buckets, {})
    after = fair_shares(members[1:], buckets, before)
    assert all(before[bucket] == members[0] for bucket in after if after[bucket] != before[bucket])


def test_without_members_nothing_is_shared() -> None:
    assert fair_shares([], BUCKETS, {}) == {}


def test_each_member_gets_its_part_of_every_epoch() -> None:
    alone = fair_shares(["p0"], BUCKETS, {})
    counts = Counter((owner, bucket.epoch) for bucket, owner in fair_shares(["p0", "p1"], BUCKETS, alone).items())
    assert set(counts.values()) == {4}


# ------------------------------------------------------------------ the watch

LEASE, HEARTBEAT = 15.0, 3.0
BUCKET = Bucket(1, 0)


def reading(beats: Mapping[str, int], *leases: Lease, leaving: Sequence[str] = ()) -> Coordination:
    members = {name: Member(name, beat, {LEAVING: 1} if name in leaving else {}) for name, beat in beats.items()}
    return Coordination(members, {lease.bucket: lease for lease in leases})


def watched(coordination: Coordination, seconds: float, watch: Watch | None = None) -> Watch:
    """A watch that has seen the same reading at each heartbeat for so long."""
    watch = watch or Watch(lease=LEASE, heartbeat=HEARTBEAT)
    start = watch._last or 1000.0
    for step in range(int(seconds / HEARTBEAT) + 1):
        watch.observe(coordination, start + step * HEARTBEAT)
    return watch


def test_a_beat_is_silent_only_after_a_whole_lease_unchanged() -> None:
    watch = watched(reading({"p1": 7}), LEASE - HEARTBEAT)
    assert not watch.silent("p1")
    watch.observe(reading({"p1": 7}), 1000 + LEASE)
    assert watch.silent("p1")
    watch.observe(reading({"p1": 8}), 1000 + LEASE + 1)
    assert not watch.silent("p1")


def test_who_was_never_seen_is_not_silent() -> None:
    assert not Watch(lease=LEASE, heartbeat=HEARTBEAT).silent("p1")


def test_who_comes_back_is_watched_anew() -> None:
    watch = watched(reading({"p1": 7}), LEASE)
    watch.observe(reading({}), 1000 + LEASE)
    watch.observe(reading({"p1": 7}), 1000 + LEASE)
    assert not watch.silent("p1")


def test_time_in_which_nobody_looked_makes_nobody_silent() -> None:
    lease = Lease(BUCKET, "p1", 3)
    watch = Watch(lease=LEASE, heartbeat=HEARTBEAT)
    watch.observe(reading({"p1": 7}, lease), 0)
    watch.observe(reading({"p1": 7}, lease), 10 * LEASE)
    assert not watch.silent("p1")
    assert not watch.abandoned(lease)


def test_a_lease_is_abandoned_only_if_it_and_its_owner_are_unchanged() -> None:
    old, new = Lease(BUCKET, "p1", 3), Lease(BUCKET, "p1", 4)
    silent_owner = watched(reading({"p1": 7}, old), LEASE)
    assert silent_owner.abandoned(old)
    silent_owner.observe(reading({"p1": 7}, new), 1000 + LEASE)
    assert not silent_owner.abandoned(new)
    living_owner = watched(reading({"p1": 7}, old), LEASE)
    living_owner.observe(reading({"p1": 8}, old), 1000 + LEASE)
    assert not living_owner.abandoned(old)


def test_the_lease_of_an_owner_that_is_no_member_is_abandoned_after_a_lease() -> None:
    lease = Lease(BUCKET, "function", 3)
    assert not watched(reading({}, lease), LEASE - HEARTBEAT).abandoned(lease)
    assert watched(reading({}, lease), LEASE).abandoned(lease)


def test_a_woken_lease_is_no_sign_of_life() -> None:
    watch = watched(reading({"p1": 7}, Lease(BUCKET, "p1", 3, wake=1)), LEASE - HEARTBEAT)
    woken = Lease(BUCKET, "p1", 3, wake=2)
    watch.observe(reading({"p1": 7}, woken), 1000 + LEASE)
    assert watch.abandoned(woken)


def test_a_free_lease_is_never_abandoned() -> None:
    lease = Lease(BUCKET)
    assert not watched(reading({}, lease), LEASE).abandoned(lease)


def test_it_says_when_somebody_would_be_silent() -> None:
    watch = watched(reading({"p1": 7}), 6)
    assert watch.next_silence() == LEASE - 6
    watched(reading({"p1": 7}), LEASE - 6, watch)
    assert watch.next_silence() is None


# ------------------------------------------------------------------ the steps


def steps(
    coordination: Coordination,
    *,
    seconds: float = 0,
    me: str = "p0",
    watch: Watch | None = None,
    leaving: bool = False,
) -> Steps:
    watch = watch or watched(coordination, seconds)
    return plan_steps(me, BUCKETS[:4], coordination, watch, leaving=leaving)


def leases(*owners: str | None) -> list[Lease]:
    return [Lease(bucket, owner, 1) for bucket, owner in zip(BUCKETS, owners, strict=False)]


def test_the_only_processor_takes_everything_that_is_free() -> None:
    plan = steps(reading({"p0": 1}, *leases(None, None)))
    assert plan.take == [Take(lease, None) for lease in [*leases(None, None), *map(Lease, BUCKETS[2:4])]]
    assert not plan.others


def test_of_two_each_takes_its_own_half() -> None:
    coordination = reading({"p0": 1, "p1": 1})
    first, second = ({take.lease.bucket for take in steps(coordination, me=name).take} for name in ("p0", "p1"))
    assert len(first) == len(second) == 2
    assert first | second == set(BUCKETS[:4])


def test_a_join_makes_the_owner_give_up_half_and_the_newcomer_wait() -> None:
    coordination = reading({"p0": 1, "p1": 1}, *leases("p0", "p0", "p0", "p0"))
    assert steps(coordination).give_up == BUCKETS[2:4]
    assert not steps(coordination, me="p1").take


def test_who_leaves_gives_up_everything_and_the_others_take_it_at_once() -> None:
    owned = reading({"p0": 1, "p1": 1}, *leases("p0", "p0", "p1", "p1"), leaving=["p0"])
    plan = steps(owned, leaving=True)
    assert (plan.give_up, plan.take) == (BUCKETS[:2], [])
    freed = reading({"p0": 1, "p1": 1}, *leases(None, None, "p1", "p1"), leaving=["p0"])
    assert [take.lease.bucket for take in steps(freed, me="p1").take] == BUCKETS[:2]
    assert not steps(freed, leaving=True).take


def test_what_a_silent_owner_had_is_taken_on_condition_that_it_stays_silent() -> None:
    coordination = reading({"p0": 1, "p1": 9}, *leases("p0", "p0", "p1", "p1"))
    assert not steps(coordination, seconds=LEASE - HEARTBEAT).take
    plan = steps(coordination, seconds=LEASE)
    assert plan.take == [Take(lease, Member("p1", 9)) for lease in leases(None, None, "p1", "p1")[2:]]


def test_what_an_owner_without_a_heartbeat_had_is_taken_on_condition_that_it_stays_away() -> None:
    coordination = reading({"p0": 1}, *leases("p0", "p0", "p0", "function"))
    (take,) = steps(coordination, seconds=LEASE).take
    assert take.silent == Member("function", NO_BEAT)


def test_what_was_abandoned_does_not_wait_until_a_newcomer_knows_it() -> None:
    coordination = reading({"p0": 1, "p1": 9}, *leases("p0", "p0", "p1", "p1"))
    watch = watched(coordination, LEASE - HEARTBEAT)
    joined = reading({"p0": 1, "p1": 9, "p2": 1}, *leases("p0", "p0", "p1", "p1"))
    watch.observe(joined, 1000 + LEASE)
    assert [take.lease.bucket for take in steps(joined, watch=watch).take] == BUCKETS[2:4]


def test_a_bucket_that_the_layout_has_no_more_is_given_up() -> None:
    gone = Lease(Bucket(9, 0), "p0", 1)
    assert steps(reading({"p0": 1}, gone)).give_up == [gone.bucket]


def test_a_silent_processor_is_forgotten_by_one_and_only_when_it_owns_nothing() -> None:
    coordination = reading({"p0": 1, "p1": 1, "p2": 5}, *leases("p0", "p0", "p1", "p1"))
    alive = reading({"p0": 2, "p1": 2, "p2": 5}, *leases("p0", "p0", "p1", "p1"))
    watch = watched(coordination, LEASE)
    watch.observe(alive, 1000 + LEASE)
    assert steps(alive, watch=watch).forget == [Member("p2", 5)]
    assert not steps(alive, watch=watch, me="p1").forget
    owning = reading({"p0": 2, "p1": 2, "p2": 5}, *leases("p0", "p0", "p1", "p2"))
    assert not steps(owning, watch=watch).forget


@given(st.data())
def test_whatever_was_read_no_two_processors_write_the_same_free_lease(data: st.DataObject) -> None:
    names = data.draw(members)
    leaving = data.draw(st.sets(st.sampled_from(names)))
    owned = data.draw(st.dictionaries(st.sampled_from(BUCKETS[:4]), st.none() | st.sampled_from(MEMBERS)))
    coordination = reading(
        dict.fromkeys(names, 1), *(Lease(bucket, owner, 1) for bucket, owner in owned.items()), leaving=[*leaving]
    )
    plans = [steps(coordination, me=name, leaving=name in leaving) for name in names]
    taken = [take.lease.bucket for plan in plans for take in plan.take]
    assert len(taken) == len(set(taken))
    for name, plan in zip(names, plans, strict=True):
        assert all(owned.get(bucket) == name for bucket in plan.give_up)
        assert name not in leaving or {b for b, owner in owned.items() if owner == name} == set(plan.give_up)
