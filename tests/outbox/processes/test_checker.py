"""The checker finds what it is there to find: each promise broken by hand in a round that was fine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.outbox.processes.checker import Findings, Message, check
from tests.outbox.processes.recorder import Acceptance


def message(name: str, identity: str | None = None, *, key: str = "k") -> Message:
    return Message(identity or f"{name}@/s", name, {"id": name, "key": key})


def acceptance(name: str, digest: str = "d") -> Acceptance:
    return Acceptance(f"{name}@/s", digest)


ITEMS = [
    {"pk": "k", "sk": "t1", "events": ["a", "b"], "after": []},
    {"pk": "k", "sk": "t2", "events": ["c"], "after": ["b"]},
    {"pk": "none", "sk": "t3", "events": ["u"], "after": []},
]
SEEN = [["read", "k#1 1", "a@/s", ""], ["accepted", "a@/s", "nats"], ["accepted", "a@/s", "recorder"]]
STREAM = [message("u", key="none"), message("a"), message("b"), message("c")]
TAKEN = [acceptance(name) for name in ("a", "b", "a", "c", "u")]
FINE = Findings(
    items=ITEMS,
    stream=STREAM,
    attempts=[*STREAM, message("b")],
    accepted=TAKEN,
    journals=[("p", [*SEEN, ["remove", "k#1 1"]])],
)


def test_a_round_that_was_fine_has_no_problems() -> None:
    report = check(FINE)
    assert report.problems == []
    assert (report.counts["events"], report.counts["duplicates on recorder"]) == (4, 1)


BROKEN = {
    "was committed and is not on nats": replace(FINE, stream=STREAM[:-1]),
    "was committed and is not on recorder": replace(FINE, accepted=TAKEN[:-1]),
    "was not committed and is on nats": replace(FINE, stream=[*STREAM, message("x")]),
    "was not committed and is on recorder": replace(FINE, accepted=[*TAKEN, acceptance("x")]),
    "stored 1 events twice": replace(FINE, stream=[*STREAM, message("a")]),
    "b of key k is on nats before a": replace(FINE, stream=[STREAM[0], STREAM[2], STREAM[1], STREAM[3]]),
    "c of key k is on recorder before b": replace(FINE, accepted=[TAKEN[0], TAKEN[3], TAKEN[1], TAKEN[4]]),
    "b has the identities": replace(FINE, attempts=[*STREAM, message("b", "other")]),
    "two events share one identity": replace(
        FINE,
        stream=[message(m.id, "same", key=m.data["key"]) for m in STREAM],
        attempts=[],
        accepted=[Acceptance("same", "d")],
    ),
    "a arrived as": replace(FINE, stream=[*STREAM[:1], message("a", key="z"), *STREAM[2:]]),
    "copies of a@/s differ": replace(FINE, accepted=[*TAKEN, acceptance("a", "e")]),
    "p removed k#1 1 and had seen ['', 'nats'] only": replace(
        FINE, journals=[("p", [*SEEN[:2], ["remove", "k#1 1"], SEEN[2]])]
    ),
    "p removed k#1 2": replace(FINE, journals=[("p", [*SEEN, ["remove", "k#1 2"]])]),
    "still in the table": replace(FINE, left=["k#1 1"]),
    "dead letter": replace(FINE, letters=["nats#1"]),
}


@pytest.mark.parametrize("problem", BROKEN)
def test_what_is_broken_is_found(problem: str) -> None:
    assert any(problem in found for found in check(BROKEN[problem]).problems)
