"""The words that all layers share: publisher, receipt, outcome, result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

from cloudevents.core.v1.event import CloudEvent

from oms_events.errors import OmsEventsError, PublishError
from oms_events.events import EncodedEvent

ROUTER = "router"
"""The name under which the router itself reports an item that is no event; no platform may have it."""


class Platform(StrEnum):
    """The platforms that the package knows by name. Any other lower-case name is as good a platform."""

    NATS = "nats"
    EVENTBRIDGE = "eventbridge"
    WEBHOOK = "webhook"


class Outcome(StrEnum):
    """What became of one event on one platform."""

    DELIVERED = "delivered"
    REJECTED = "rejected"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


# Receipts and results are named tuples: one of each is made per event and platform, at half the cost of frozen
# dataclasses, and the garbage collector need not look at them.
class Receipt(NamedTuple):
    """The platform's word that it stored the event: JetStream's stream and sequence, EventBridge's event id.

    `duplicate` says that the platform had it already and dropped this copy.
    """

    id: str | None = None
    stream: str | None = None
    sequence: int | None = None
    duplicate: bool = False


class PublishResult(NamedTuple):
    """What became of one event on one platform, why, after how many attempts and seconds.

    `duplicate_possible` says that an attempt before the last ended `unknown` and the platform does not
    deduplicate: consumers may see the event twice, with the same `(source, id)`.
    """

    platform: str
    outcome: Outcome
    error: OmsEventsError | None = None
    receipt: Receipt | None = None
    latency: float = 0.0
    attempts: int = 0
    duplicate_possible: bool = False

    @property
    def success(self) -> bool:
        """Whether the platform has the event."""
        return self.outcome is Outcome.DELIVERED


class PublishResults(Mapping[str, PublishResult]):
    """One event's results by platform, and whether its plan is fulfilled.

    Holds the platforms that were tried or are owed; backups that were not needed are absent. An item that is
    no event, or that no rule and no primary takes, has one `rejected` result under the name `router`.
    """

    __slots__ = ("_results", "delivered", "rule", "strategy")

    def __init__(
        self, results: Mapping[str, PublishResult], *, delivered: bool, rule: str | None, strategy: str | None
    ) -> None:
        self._results = results
        self.delivered = delivered
        self.rule = rule
        self.strategy = strategy

    def __getitem__(self, platform: str) -> PublishResult:
        return self._results[platform]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        outcomes = ", ".join(f"{name}={result.outcome}" for name, result in self._results.items())
        return f"<PublishResults delivered={self.delivered} rule={self.rule!r} {outcomes}>"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the rules decided for one event: its platforms in order, all of them or the first that works."""

    rule: str | None
    strategy: str
    platforms: tuple[str, ...]
    first_that_works: bool


@dataclass(frozen=True, slots=True)
class PublisherTraits:
    """What the layers above need to know of a platform.

    `gather`: concurrent single publishes are gathered into calls of `max_batch` events and about
    `max_batch_bytes` bytes, each waiting `linger` seconds at most. `deduplicates`: sending the same event
    again stores it once.
    """

    gather: bool = False
    max_batch: int = 1
    max_batch_bytes: int = 1_000_000
    linger: float = 0.002
    deduplicates: bool = False


@runtime_checkable
class Publisher(Protocol):
    """The adapter to one platform: it knows the wire, and no policy. It makes one attempt and never retries.

    The shipped contract suite, `oms_events.testing.PublisherContract`, says all this as tests.
    """

    @property
    def traits(self) -> PublisherTraits:
        """Constant for the life of the object."""
        ...

    async def open(self) -> None:
        """Makes the publisher ready; idempotent, may be called again after it failed or was cancelled.

        Raises a `PublishError` when the platform cannot be reached or denies us. No constructor does I/O.
        """
        ...

    async def close(self) -> None:
        """Releases what the publisher owns, never what it borrowed; idempotent, and works at any time."""
        ...

    async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Sequence[Receipt | PublishError]:
        """Tries each event once, in order, and gives per event its receipt or its `PublishError`.

        Aligned with `events`; any number of them, packed into calls as the platform likes it. Answers within
        `timeout` seconds: what was sent without an answer by then is `UnknownOutcomeError`, what was not sent
        is `TransientError`. Safe to call concurrently. Raises nothing but `CancelledError`, after which each
        event may or may not have been stored.
        """
        ...

    async def check(self) -> None:
        """Proves end to end that the platform would take events now, or raises a `PublishError`."""
        ...


class EventPublisher(Protocol):
    """What publishes through rules: the router, as the outbox and the domain services see it."""

    async def publish_event(self, event: CloudEvent, *, timeout: float | None = None) -> PublishResults: ...

    async def publish_events(
        self, events: Sequence[CloudEvent], *, timeout: float | None = None
    ) -> list[PublishResults]: ...


class PlanPublisher(EventPublisher, Protocol):
    """What decides and delivers in two steps: the router, as the outbox's relay sees it."""

    @property
    def is_open(self) -> bool:
        """Whether events can be published now."""
        ...

    @property
    def platforms(self) -> Sequence[str]:
        """The platforms that are configured, in registration order."""
        ...

    def is_available(self, platform: str) -> bool:
        """Whether a platform is configured, enabled, and its breaker closed."""
        ...

    def plan_event(self, event: EncodedEvent) -> Plan:
        """What the rules decide for an event now. Raises `UnroutableEventError` when no rule takes it."""
        ...

    async def publish_planned(
        self, deliveries: Sequence[tuple[EncodedEvent, Plan]], *, timeout: float
    ) -> list[PublishResults]:
        """Carries out the given plans, whatever the rules say now: one attempt per platform, never retried here.

        Results are aligned with `deliveries`. Raises nothing but `RouterClosedError` and `CancelledError`.
        """
        ...


class OutboxWriter(Protocol):
    """What stores events to be delivered later: the outbox, as the domain services see it."""

    async def add(self, event: CloudEvent) -> None: ...
