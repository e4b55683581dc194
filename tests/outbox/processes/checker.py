"""Proves from what is on the platforms, in the tables and in the journals that the outbox did what it promises."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.outbox.processes.ground import PLATFORMS
from tests.outbox.processes.recorder import Acceptance

_SHOWN = 20


class Message(NamedTuple):
    """A copy of an event on JetStream: its id for deduplication, and the event as it arrived."""

    identity: str
    id: str
    data: Any


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was found when everything had ended.

    `items` are the business items; `stream` is what JetStream stored, `attempts` what was sent to it; both and
    `accepted`, what the recorder took, in order. `left` are the keys of records in the table.
    """

    items: Sequence[Mapping[str, Any]] = ()
    stream: Sequence[Message] = ()
    attempts: Sequence[Message] = ()
    accepted: Sequence[Acceptance] = ()
    journals: Sequence[tuple[str, Sequence[Sequence[str]]]] = ()
    left: Sequence[str] = ()
    letters: Sequence[str] = ()


@dataclass(slots=True)
class Report:
    """What is wrong, and the counts that say how much was looked at."""

    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        counts = ", ".join(f"{what}: {number}" for what, number in self.counts.items())
        shown = "".join(f"\n  {problem}" for problem in self.problems[:_SHOWN])
        return f"{counts}; problems: {len(self.problems)}{shown}"


def check(findings: Findings) -> Report:
    """Looks at everything that is promised."""
    report = Report()
    counts = report.counts
    committed = {event: item for item in findings.items for event in item["events"]}
    by_platform = {
        "nats": [(message.identity, message.id) for message in findings.stream],
        "recorder": [(one.identity, one.identity.partition("@")[0]) for one in findings.accepted],
    }
    counts["transactions"] = len({item["sk"] for item in findings.items})
    counts["events"] = len(committed)
    counts["without key"] = sum(item["pk"] == "none" for item in committed.values())
    for platform, acceptances in by_platform.items():
        ids = [event for _, event in acceptances]
        counts[f"on {platform}"] = len(set(ids))
        counts[f"duplicates on {platform}"] = len(ids) - len(set(ids))
        report.problems += _not_exact(platform, committed, ids)
        report.problems += _disordered(platform, findings.items, ids, counts)
    if counts["duplicates on nats"]:
        report.problems.append(f"JetStream stored {counts['duplicates on nats']} events twice")
    counts["sent to nats"] = len(findings.attempts)
    report.problems += _changed(findings, committed)
    for name, lines in findings.journals:
        report.problems += _rash_removals(name, lines, counts)
    report.problems += [f"still in the table: {key}" for key in findings.left]
    report.problems += [f"dead letter: {letter}" for letter in findings.letters]
    counts["pending"] = len(findings.left)
    counts["dead letters"] = len(findings.letters)
    return report


def _not_exact(platform: str, committed: Iterable[str], ids: Iterable[str]) -> Iterator[str]:
    """What committed must be there, and nothing else."""
    found, wanted = set(ids), set(committed)
    yield from (f"{event} was committed and is not on {platform}" for event in sorted(wanted - found))
    yield from (f"{event} was not committed and is on {platform}" for event in sorted(found - wanted))


def _disordered(
    platform: str, items: Iterable[Mapping[str, Any]], ids: Sequence[str], counts: Counter[str]
) -> Iterator[str]:
    """First acceptances per key: after all that was known to be committed, and as the transaction has them."""
    first: dict[str, int] = {}
    for place, event in enumerate(ids):
        first.setdefault(event, place)
    for item in items:
        if item["pk"] == "none":
            continue
        begin, *rest = item["events"]
        pairs = [(before, begin) for before in item["after"]]
        pairs += zip(item["events"], rest, strict=False)
        for before, after in pairs:
            counts[f"pairs in order on {platform}"] += 1
            if first.get(before, -1) > first.get(after, -1):
                yield f"{after} of key {item['pk']} is on {platform} before {before}, which was committed before"


def _changed(findings: Findings, committed: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """All copies of an event are the same, under one identity of its own."""
    names: defaultdict[str, set[str]] = defaultdict(set)
    for message in (*findings.stream, *findings.attempts):
        names[message.id].add(message.identity)
        item = committed.get(message.id)
        if item is not None and message.data != {"id": message.id, "key": item["pk"]}:
            yield f"{message.id} arrived as {message.data}"
    digests: defaultdict[str, set[str]] = defaultdict(set)
    for acceptance in findings.accepted:
        names[acceptance.identity.partition("@")[0]].add(acceptance.identity)
        digests[acceptance.identity].add(acceptance.digest)
    yield from (f"{event} has the identities {found}" for event, found in names.items() if len(found) > 1)
    yield from (f"copies of {name} differ" for name, found in digests.items() if len(found) > 1)
    if len({identity for found in names.values() for identity in found}) < len(names):
        yield "two events share one identity"


def _rash_removals(name: str, lines: Iterable[Sequence[str]], counts: Counter[str]) -> Iterator[str]:
    """A process removes only what it saw delivered everywhere: by itself, or in the record's state."""
    events: dict[str, str] = {}
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for line in lines:
        if line[0] == "read":
            _, record, identity, platforms = line
            events[record] = identity
            seen[identity].update(platforms.split(","))
        elif line[0] == "accepted":
            _, identity, platform = line
            seen[identity].add(platform)
        elif line[0] == "remove":
            counts["removals"] += 1
            record = line[1]
            if not seen[events.get(record, "")].issuperset(PLATFORMS):
                yield f"{name} removed {record} and had seen {sorted(seen[events.get(record, '')])} only"
        elif line[0] == "refused":
            counts["events of refused transactions"] += len(line) - 1
        elif line[0] in ("late", "probed"):
            counts["records late" if line[0] == "late" else "numbers looked for"] += int(line[1])
