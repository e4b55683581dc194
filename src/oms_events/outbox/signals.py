"""What an outbox tells the processors of its own process, at once and without I/O. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oms_events.outbox.records import Bucket, NewRecord


@dataclass(frozen=True, slots=True)
class Committed:
    """These records are in the outbox now."""

    records: Sequence[NewRecord]


@dataclass(frozen=True, slots=True)
class Voided:
    """These sequence numbers were reserved and their transaction certainly refused: nobody need look for them."""

    bucket: Bucket
    numbers: Sequence[int]


Listener = Callable[[Committed | Voided], None]
"""Called on the event loop, right after the fact: it must not block."""
