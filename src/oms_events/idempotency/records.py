"""What is stored of a run, and which record may replace which. Pure.

    |-- in progress: others wait or raise --|---- expired: whoever comes first takes over ---->
    start                                   start + in_progress_for

                |-- completed: others get the result --|-- expired: the function runs again --->
                completion                             completion + keep_for

One number, `expires_at`, ends both states: until then a record is live, and nobody but its own run changes it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from oms_events.errors import IdempotencyArgumentError, InvalidEventError
from oms_events.events import EncodedEvent, encode, load_json

# Together below the 2048 bytes of a DynamoDB hash key.
_LONGEST_PREFIX: Final = 255
_LONGEST_KEY: Final = 1024
_EXACT: Final = 2**53


class RunState(StrEnum):
    """Where a run stands."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The latest run of a key; `token` is the run's own, `expires_at` is in epoch seconds.

    `fingerprint` is the payload's, empty when it is not checked. `result` is JSON text; when it could not be
    stored, `problem` says why.
    """

    key: str
    token: str
    state: RunState
    expires_at: int
    fingerprint: str = ""
    result: str = "null"
    problem: str = ""

    def is_live(self, now: int) -> bool:
        """Whether the record still binds others, at `now` in epoch seconds."""
        return now < self.expires_at

    def yields_to(self, new: RunRecord, now: int) -> bool:
        """Whether `new` may take this record's place: always when it has expired, else only by its own run.

        A completed record does not go back: a start whose answer was lost may arrive after the completion.
        """
        if not self.is_live(now):
            return True
        return self.token == new.token and (self.state is RunState.IN_PROGRESS or new.state is RunState.COMPLETED)

    def contradicts(self, fingerprint: str) -> bool:
        """Whether the payload is another one; only where both were checked."""
        return bool(fingerprint and self.fingerprint) and fingerprint != self.fingerprint


def expiry(now: datetime, seconds: float) -> int:
    """`seconds` from now in epoch seconds, rounded up."""
    return math.ceil(now.timestamp() + seconds)


def prefix_problem(prefix: str) -> str:
    """What is wrong with a prefix; empty when it is fine."""
    fits = prefix and "#" not in prefix and len(prefix) <= _LONGEST_PREFIX
    return "" if fits else f"prefix = {prefix!r}: give up to {_LONGEST_PREFIX} characters without '#'"


def item_key(prefix: str, key: object) -> str:
    """The key under which a run is stored: `prefix#key`, the identity of an event, a digest of a long text.

    Raises `IdempotencyArgumentError` for anything but an event, text, a whole number or a UUID.
    """
    if problem := prefix_problem(prefix):
        raise IdempotencyArgumentError(problem)
    if isinstance(key, int | UUID) and not isinstance(key, bool):
        key = str(key)
    elif not isinstance(key, str):
        event = as_event(key)
        if event is None:
            raise IdempotencyArgumentError(
                f"the key of {prefix} is {type(key).__name__}: give an event, text, a whole number or a UUID"
            )
        key = event.identity
    if not key:
        raise IdempotencyArgumentError(f"the key of {prefix} is empty text: give what tells one call from another")
    raw = key.encode("utf-8", "surrogatepass")
    if len(raw) > _LONGEST_KEY or not key.isprintable():
        key = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    return f"{prefix}#{key}"


def as_event(value: object) -> EncodedEvent | None:
    """A value that is a CloudEvent, encoded; None for others. Raises `InvalidEventError` for an invalid event."""
    if value is None or isinstance(value, str | bytes | int | float | Mapping | list | tuple):
        return None
    try:
        return encode(value)
    except InvalidEventError as error:
        if error.field == "event":
            return None
        raise


def fingerprint(payload: object) -> str:
    """A digest of a payload: JSON values, bytes, or an event, of which its type and its data count.

    The order of members and the spelling of numbers (1, 1.0) do not matter: platforms write JSON anew.
    Raises `IdempotencyArgumentError` for anything else.
    """
    event = as_event(payload)
    if event is not None:
        data: Any = load_json(event.payload) if event.kind == "json" and event.payload else event.payload
        return _digest(event.type.encode(), b"\0", _canonical(data))
    return _digest(_canonical(payload))


def _canonical(payload: object) -> bytes:
    if isinstance(payload, bytes):
        return payload
    try:
        return json.dumps(_plain(payload), sort_keys=True, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise IdempotencyArgumentError(
            f"the payload to check is no JSON: {error}; give JSON values, bytes or an event"
        ) from error


def _plain(value: object) -> object:
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()
