"""Who relays which bucket: what a processor has seen of the others, and the plan that all of them make. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from oms_events.outbox.records import Bucket, Coordination, Lease, Member

LEAVING: Final = "leaving"
"""The entry of `Member.info` with which a processor says that it takes no more buckets."""
NO_BEAT: Final = 0
"""A beat that no processor has."""

_LONGEST_STEP: Final = 1.5


class _Seen(NamedTuple):
    value: object
    since: float


class Watch:
    """What one processor has seen of the others, on its own monotonic clock; no two hosts' times are compared.

    Times are in seconds. Between two readings at most one and a half heartbeats count as watched: who did not
    look for a while, because it was paused or storage was down, has no right to say that the others were silent.
    """

    def __init__(self, *, lease: float, heartbeat: float) -> None:
        self._lease = lease
        self._longest_step = heartbeat * _LONGEST_STEP
        self._watched = 0.0
        self._last: float | None = None
        self._seen: Mapping[str | Bucket, _Seen] = {}
        self._joined: Mapping[str, float] = {}

    def observe(self, coordination: Coordination, now: float) -> None:
        """Takes a reading that had ended at `now`."""
        if self._last is not None:
            self._watched += min(now - self._last, self._longest_step)
        self._last = now
        values: dict[str | Bucket, object] = {name: member.beat for name, member in coordination.members.items()}
        values.update((bucket, (lease.owner, lease.version)) for bucket, lease in coordination.leases.items())
        self._seen = {key: self._still(key, value) for key, value in values.items()}
        self._joined = {name: self._joined.get(name, self._watched) for name in coordination.members}

    def silent(self, member_id: str) -> bool:
        """Whether a processor's beat was seen unchanged for a whole lease."""
        return self._unchanged(member_id) >= self._lease

    def abandoned(self, lease: Lease) -> bool:
        """Whether a lease was seen unchanged for a whole lease, and its owner is silent or gone."""
        owner = lease.owner
        if owner is None or self._unchanged(lease.bucket) < self._lease:
            return False
        return owner not in self._seen or self.silent(owner)

    def is_new(self, member_id: str) -> bool:
        """Whether a processor has been there for less than a lease, so that it cannot know who is silent."""
        return self._watched - self._joined.get(member_id, self._watched) < self._lease

    def next_silence(self) -> float | None:
        """Seconds from the last reading until somebody would be silent, or a lease abandoned; None for never."""
        left = [self._lease - (self._watched - seen.since) for seen in self._seen.values()]
        return min((seconds for seconds in left if seconds > 0), default=None)

    def _still(self, key: str | Bucket, value: object) -> _Seen:
        seen = self._seen.get(key)
        return seen if seen is not None and seen.value == value else _Seen(value, self._watched)

    def _unchanged(self, key: str | Bucket) -> float:
        seen = self._seen.get(key)
        return 0.0 if seen is None else self._watched - seen.since


class Take(NamedTuple):
    """A lease to be taken; `silent` is the owner that it is taken from, None when it is free."""

    lease: Lease
    silent: Member | None


class Steps(NamedTuple):
    """What one processor should do now, and whether there are `others` to relay what it gives up."""

    take: Sequence[Take]
    give_up: Sequence[Bucket]
    forget: Sequence[Member]
    others: bool


def fair_shares(
    members: Iterable[str], buckets: Iterable[Bucket], owners: Mapping[Bucket, str | None]
) -> Mapping[Bucket, str]:
    """Gives each member as many buckets as any other, or one more, with the fewest changes of owner.

    The same members, buckets and owners give the same answer, in whatever order they come.
    """
    # By number first: what moves is then a mixture of all epochs, and old ones are nearly empty.
    ordered = sorted(set(buckets), key=lambda bucket: (bucket.number, bucket.epoch))
    owned: dict[str, list[Bucket]] = {member: [] for member in sorted(members)}
    if not owned:
        return {}
    for bucket in ordered:
        owner = owners.get(bucket)
        if owner in owned:
            owned[owner].append(bucket)
    least, extra = divmod(len(ordered), len(owned))
    # The larger shares go to those that own most: each would otherwise give up one bucket more.
    by_size = sorted(owned, key=lambda member: (-len(owned[member]), member))
    quota = {member: least + (place < extra) for place, member in enumerate(by_size)}
    shares = {bucket: member for member in owned for bucket in owned[member][: quota[member]]}
    free = iter([bucket for bucket in ordered if bucket not in shares])
    for member in owned:
        for _ in range(quota[member] - len(owned[member])):
            shares[next(free)] = member
    return shares


def live_members(coordination: Coordination, watch: Watch) -> set[str]:
    """The processors that share the work: neither silent nor leaving."""
    members = coordination.members.items()
    return {name for name, member in members if not member.info.get(LEAVING) and not watch.silent(name)}


def plan_steps(
    member_id: str, buckets: Iterable[Bucket], coordination: Coordination, watch: Watch, *, leaving: bool = False
) -> Steps:
    """What processor `member_id` should do after a reading that `watch` has observed.

    It takes what is free or abandoned and its share, and gives up what is another's share, so that of several
    processors no two write the same lease. One that is `leaving` gives up everything.
    """
    members, leases = coordination.members, coordination.leases
    buckets = tuple(buckets)
    others = live_members(coordination, watch) - {member_id}
    live = others if leaving else others | {member_id}
    owners = {bucket: lease.owner for bucket, lease in leases.items()}
    shares = fair_shares(live, buckets, owners)
    # A newcomer cannot know yet that an owner is silent: what is abandoned need not wait until it does.
    settled = {name for name in live if name == member_id or not watch.is_new(name)}
    inherited = shares if settled == live else fair_shares(settled, buckets, owners)
    take = []
    for bucket in buckets:
        lease = leases.get(bucket) or Lease(bucket)
        if lease.owner is None and shares.get(bucket) == member_id:
            take.append(Take(lease, None))
        elif (
            lease.owner is not None
            and lease.owner != member_id
            and inherited.get(bucket) == member_id
            and watch.abandoned(lease)
        ):
            # An owner that is gone must still be gone, hence a beat that it cannot have.
            take.append(Take(lease, members.get(lease.owner, Member(lease.owner, NO_BEAT))))
    return Steps(
        take,
        [bucket for bucket, owner in owners.items() if owner == member_id and shares.get(bucket) != member_id],
        [members[name] for name in _forgotten(member_id, live, coordination, watch)],
        bool(others),
    )


def _forgotten(member_id: str, live: Iterable[str], coordination: Coordination, watch: Watch) -> Iterable[str]:
    """Silent processors that own nothing; only the first of the live ones forgets them."""
    if min(live, default=None) != member_id:
        return ()
    owners = {lease.owner for lease in coordination.leases.values()}
    others = coordination.members.keys() - owners - {member_id}
    return sorted(name for name in others if watch.silent(name))
