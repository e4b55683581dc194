"""The guarantees of the outbox, checked against the history of a world."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from oms_events.outbox.records import UNROUTABLE
from oms_events.publishing import Plan
from tests.outbox.model.platforms import RULES
from tests.outbox.model.virtual import START
from tests.outbox.model.world import HORIZON, PROCESSOR, World, Written


def problems(world: World) -> list[str]:
    """Everything that is not as promised."""
    return [
        *world.violations,
        *_uncommitted(world),
        *_undelivered(world),
        *_changed(world),
        *_disordered(world),
        *_unjust_letters(world),
    ]


def report(world: World, found: Sequence[str]) -> str:
    """The problems, the counts, and the history of the events that the first problem names."""
    lines = [*found, summary(world)]
    for event_id in dict.fromkeys(re.findall(r"\bt\d+\.\d+\b", found[0])):
        lines += [f"--- {event_id}: {world.written[event_id]}", *world.history.get(event_id, ())]
    return "\n".join(lines)


def summary(world: World) -> str:
    committed = sum(written.applied is not None for written in world.written.values())
    stored = {name: len(platform.log) for name, platform in world.platforms.items()}
    counts = ", ".join(f"{what}: {number}" for what, number in sorted(world.counts.items()))
    return (
        f"{len(world.hosts)} hosts, {len(world.written)} events written, {committed} committed, stored {stored}, "
        f"{len(world.table.letters)} dead letters, {world.loop.now - START:.0f} s; {counts}"
    )


def _uncommitted(world: World) -> Iterator[str]:
    committed = {action["Put"]["Item"]["pk"]["S"] for action in world.table.committed}
    for written in world.written.values():
        if (written.applied is not None) != (f"t{written.transaction}" in committed):
            yield f"{written.id}: the event and its business write are not committed together"
    for name, platform in world.platforms.items():
        for event_id in platform.first:
            if world.written[event_id].applied is None:
                yield f"{event_id} is on {name} and was not committed"


def _undelivered(world: World) -> Iterator[str]:
    for written in world.written.values():
        if written.applied is None:
            continue
        if written.kind == "unroutable":
            if UNROUTABLE not in written.dead:
                yield f"{written.id} is unroutable and no dead letter"
        elif not any(_is_fulfilled(world, written, plan) for plan in _plans(written)):
            yield f"{written.id} is lost: plans {_plans(written)}, dead on {sorted(written.dead)}"


def _plans(written: Written) -> Sequence[Plan]:
    return (written.plan,) if written.plan is not None else [rules[written.kind] for rules in RULES]


def _is_fulfilled(world: World, written: Written, plan: Plan) -> bool:
    done = [written.id in world.platforms[name].first or name in written.dead for name in plan.platforms]
    return any(done) if plan.first_that_works else all(done)


def _changed(world: World) -> Iterator[str]:
    for name, platform in world.platforms.items():
        for acceptance in platform.log:
            if acceptance.json != world.written[acceptance.id].json:
                yield f"{acceptance.id} is another event on {name}"


def _disordered(world: World) -> Iterator[str]:
    by_key: defaultdict[str, list[Written]] = defaultdict(list)
    for written in world.written.values():
        if written.key is not None and written.applied is not None and not _is_excepted(world, written):
            by_key[written.key].append(written)
    for members in by_key.values():
        for first in members:
            for second in members:
                if _is_before(first, second):
                    yield from _overtaken(world, first, second)


def _is_excepted(world: World, written: Written) -> bool:
    """Dead letters that were passed over, requeued ones, and writers that slept on their numbers for too long."""
    # A FAILOVER platform that rejected an event holds nobody up while another one may still take it.
    holds = world.config.after_dead_letter == "hold" and written.kind != "failover"
    passed_over = bool(written.dead) and not holds
    too_late = written.applied_at - written.begun_at > min(HORIZON, PROCESSOR.drain_time)
    return passed_over or written.requeued_behind or too_late


def _is_before(first: Written, second: Written) -> bool:
    if first.transaction == second.transaction:
        return first.place < second.place
    return first.applied is not None and first.applied < second.begun


def _overtaken(world: World, first: Written, second: Written) -> Iterator[str]:
    for name, platform in world.platforms.items():
        mine, other = platform.first.get(first.id), platform.first.get(second.id)
        if mine is None or other is None or mine < other or not _is_owed(world, first, name):
            continue
        yield (
            f"{second.id} overtook {first.id} of {first.key} on {name}: committed at {first.applied} before "
            f"{second.begun}, stored at {mine} after {other}; states {first.plan}, {second.plan}"
        )


def _is_owed(world: World, written: Written, name: str) -> bool:
    """Whether it must have come here in order: by all rules, and with FAILOVER to no other platform before."""
    if not all(name in rules[written.kind].platforms for rules in RULES if written.kind in rules):
        return False
    if written.kind != "failover":
        return True
    stored = {
        other: platform.first[written.id]
        for other, platform in world.platforms.items()
        if written.id in platform.first
    }
    return min(stored, key=lambda other: stored[other]) == name


def _unjust_letters(world: World) -> Iterator[str]:
    if world.config.max_attempts is not None:
        return
    for letter in world.table.letters:
        if letter.event is None:
            yield f"{letter.id} cannot be read"
            continue
        written = world.written[letter.event.id]
        if letter.platform != UNROUTABLE and not set(letter.platforms) <= written.rejected_by | written.cured_of:
            yield f"{letter.id} is dead, and nobody rejected it: {letter.reason}"
