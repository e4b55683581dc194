"""The hook: a function that is called with one frozen detail object per thing that happened."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from oms_events.errors import ConfigurationError, FailureClass
from oms_events.publishing import PublishResult

_log = logging.getLogger("oms_events")


@dataclass(frozen=True, slots=True)
class Decided:
    """Rules were asked for the events of one publish call; `counts` has (rule, strategy) to events."""

    counts: Mapping[tuple[str | None, str], int]


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A publisher was called once with `events` events; `capacity` is what a full call carries."""

    platform: str
    events: int
    capacity: int
    delivered: int
    failures: Mapping[FailureClass, int]
    throttled: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Retried:
    """`events` events will be sent again to `platform`, after `delay` seconds; `attempt` was the last one."""

    platform: str
    events: int
    attempt: int
    delay: float


@dataclass(frozen=True, slots=True)
class Settled:
    """The final results of one publish call to one platform, retries included."""

    platform: str
    results: Sequence[PublishResult]


@dataclass(frozen=True, slots=True)
class FailedOver:
    """FAILOVER moved `events` events from one platform to the next."""

    rule: str | None
    from_platform: str
    to_platform: str
    events: int


@dataclass(frozen=True, slots=True)
class BreakerChanged:
    """A platform's circuit breaker changed its state."""

    platform: str
    old: str
    new: str
    reason: str


@dataclass(frozen=True, slots=True)
class CheckEnded:
    """An active health check ended; `error` is None when the platform would take events."""

    platform: str
    error: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Relayed:
    """The outbox settled `events` records for good; `seconds` has each one's time from commit to now.

    It is the difference of two hosts' wall clocks, and never below 0.
    """

    events: int
    seconds: Sequence[float]


@dataclass(frozen=True, slots=True)
class RelayRetried:
    """The outbox will try `events` events again on `platform`."""

    platform: str
    events: int
    failures: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """An event became a dead letter of `platform`: it was refused for good, or ran out of attempts or time."""

    platform: str
    event_type: str | None
    event_id: str | None
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class LeaseChanged:
    """A processor's lease of a bucket was `taken`, `released`, `lost` (to another) or `expired`."""

    epoch: int
    bucket: int
    change: str
    held: int


@dataclass(frozen=True, slots=True)
class GapsProbed:
    """Sequence numbers that were missing below a record were looked for; `found` of them were there."""

    numbers: int
    found: int


@dataclass(frozen=True, slots=True)
class LateRecords:
    """Records showed behind others that had been read before: their transactions committed late."""

    count: int


@dataclass(frozen=True, slots=True)
class DuplicateAcks:
    """A platform had events already at their first attempt here: a takeover, or ids that are used twice.

    An id that is used for two events loses the second one without a word.
    """

    platform: str
    count: int


@dataclass(frozen=True, slots=True)
class BacklogMeasured:
    """What one processor's buckets hold. `available` is False when it could not be measured: the rest is then old.

    `pending` counts up to a limit (`bounded`: there is more); `oldest_age` is in seconds, None when empty;
    `dead_letters` is None for all processors but the one that has the first bucket.
    """

    pending: int
    bounded: bool
    oldest_age: float | None
    in_flight: int
    dead_letters: Mapping[str, int] | None
    buckets: int
    available: bool


@dataclass(frozen=True, slots=True)
class OutboxAlert:
    """Something an operator should know: `kind` is stable (docs/reference/metrics.md), `text` says what to do."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Appended:
    """A repository appended `events` events of one command, in `seconds` from the load to the commit."""

    events: int
    seconds: float


@dataclass(frozen=True, slots=True)
class AppendConflict:
    """Others appended to an aggregate first, and a repository decides anew; `attempt` was the refused one."""

    attempt: int


@dataclass(frozen=True, slots=True)
class SnapshotFailed:
    """A snapshot could not be read or written. Nothing is lost: the next load reads more of the history."""

    aggregate_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Projected:
    """A projection took `events` events; `lag` has each one's seconds from its own time to now.

    It is the difference of two hosts' wall clocks, and never below 0. `projection` is its full name, `Orders@1`.
    """

    projection: str
    events: int
    lag: Sequence[float]


@dataclass(frozen=True, slots=True)
class EventParked:
    """A projection cannot take the event at `position` (`<aggregate>@<sequence>`), and set it aside."""

    projection: str
    position: str
    event_type: str
    reason: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """The replay `name` published `events` more recorded events, and did not get `failed` others delivered."""

    name: str
    events: int
    failed: int


@dataclass(frozen=True, slots=True)
class Triggered:
    """One start ended with `status`, after `seconds` in the pipeline; a message that held several has one each.

    `domain` is "unknown" unless the request was valid: it is a label of metrics, and hostile input must not make
    new ones. `codes` are the codes of its problems. `correlation_id` is for logs, never a label.
    """

    trigger_type: str
    domain: str
    status: str
    codes: Sequence[str]
    seconds: float
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True)
class QuotaUsedUp:
    """The quota `name` had no room for a fresh start, or others wait; try again in `retry_after` seconds."""

    name: str
    retry_after: float


@dataclass(frozen=True, slots=True)
class TriggerBreakerChanged:
    """The breaker of a domain's table changed its state: `closed`, `open` or `half_open`."""

    domain: str
    table_name: str
    old: str
    new: str
    reason: str


@dataclass(frozen=True, slots=True)
class ApiRequested:
    """The outbound limiter `api` let `requests` requests through, after `waited` seconds for its quota."""

    api: str
    requests: int
    waited: float


@dataclass(frozen=True, slots=True)
class ChunksSent:
    """The queue took `chunks` chunks of one start's symbols, and refused `failed` others for good."""

    chunks: int
    failed: int


Detail = (
    Decided
    | CallEnded
    | Retried
    | Settled
    | FailedOver
    | BreakerChanged
    | CheckEnded
    | Relayed
    | RelayRetried
    | DeadLettered
    | LeaseChanged
    | GapsProbed
    | LateRecords
    | DuplicateAcks
    | BacklogMeasured
    | OutboxAlert
    | Appended
    | AppendConflict
    | SnapshotFailed
    | Projected
    | EventParked
    | Replayed
    | Triggered
    | QuotaUsedUp
    | TriggerBreakerChanged
    | ApiRequested
    | ChunksSent
)
Hook = Callable[[Detail], None]
"""Called on the event loop: it must not block. An error in a hook is logged and harms nothing."""


class Hooks:
    """Calls all hooks, keeping their errors from the events' way. Falsy when there are none."""

    def __init__(self, hooks: Iterable[Hook] = ()) -> None:
        self._hooks = tuple(hooks)
        for hook in self._hooks:
            if inspect.iscoroutinefunction(hook) or not callable(hook):
                problem = f"{hook!r} is no plain function; give one that takes a detail and does not block"
                raise ConfigurationError("hooks", [problem])

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def __call__(self, detail: Detail) -> None:
        for hook in self._hooks:
            try:
                hook(detail)
            except Exception:
                _log.exception("hook %r failed on %s", hook, type(detail).__name__)
