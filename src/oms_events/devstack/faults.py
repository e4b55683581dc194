"""The faults of an AWS service that the proxy can play, and the plan of when to play which. Pure."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from oms_events.errors import ConfigurationError

PUT_EVENTS = "PutEvents"
SEND_MESSAGES = "SendMessageBatch"
PARTLY = frozenset((PUT_EVENTS, SEND_MESSAGES))
"""The operations of which a part may fail."""


@dataclass(frozen=True, slots=True)
class Forward:
    """No fault: fills the place of a call that shall go well in a script."""


@dataclass(frozen=True, slots=True)
class Throttle:
    """The whole request is refused with HTTP 400, nothing is forwarded."""

    code: str = "ThrottlingException"
    message: str = "Rate exceeded"


@dataclass(frozen=True, slots=True)
class Denied:
    """The whole request is refused for good, nothing is forwarded."""

    code: str = "AccessDeniedException"
    message: str = "User is not authorized to perform this operation"
    status: int = 400


@dataclass(frozen=True, slots=True)
class ServerError:
    """The service answers with a 5xx status, nothing is forwarded (which the caller cannot know)."""

    status: int = 500
    code: str = "InternalException"
    message: str = "An internal error occurred"


@dataclass(frozen=True, slots=True)
class PartialFailure:
    """Some entries of a PutEvents call fail, the others are forwarded; other operations are left alone.

    With `operation="SendMessageBatch"`, messages of such a call to SQS, and through no fault of the sender.
    Give the `indices` of the entries that fail (those the call does not have are ignored), or a `count` of
    entries from the first on.
    """

    indices: tuple[int, ...] = ()
    count: int = 0
    code: str = "InternalFailure"
    message: str = "Unable to process the event"

    def __post_init__(self) -> None:
        if bool(self.indices) == (self.count > 0) or self.count < 0 or min(self.indices, default=0) < 0:
            raise ConfigurationError(
                "PartialFailure",
                [f"indices={self.indices!r}, count={self.count!r}: give indices from 0, or a count from 1"],
            )

    def failing(self, entries: int) -> frozenset[int]:
        """The indices that fail in a call of so many entries."""
        return frozenset(self.indices or range(self.count)) & frozenset(range(entries))


@dataclass(frozen=True, slots=True)
class Hang:
    """No answer, nothing is forwarded; the connection drops after `seconds`, or at `release` or the end."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection breaks after the request was read, before anything is forwarded.

    `orderly` ends it with FIN instead of RST; clients may report the two as different errors.
    """

    orderly: bool = False


@dataclass(frozen=True, slots=True)
class LoseAnswer:
    """The request is forwarded and succeeds, then the connection breaks (as in Reset) instead of an answer."""

    orderly: bool = False


@dataclass(frozen=True, slots=True)
class Delay:
    """The request is forwarded after so many seconds."""

    seconds: float


Fault = Forward | Throttle | Denied | ServerError | PartialFailure | Hang | Reset | LoseAnswer | Delay


@dataclass(frozen=True, slots=True)
class _Mix:
    choices: tuple[tuple[Fault, float], ...]
    operation: str | None
    generator: random.Random = field(compare=False)

    def draw(self) -> Fault | None:
        rest = self.generator.random()
        for fault, probability in self.choices:
            rest -= probability
            if rest < 0:
                return fault
        return None


class FaultPlan:
    """Says for each call which fault it meets: the script first, then what is set for always, then the mix.

    May be changed from any thread while calls come in.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._script: list[tuple[str | None, Fault]] = []
        self._always: dict[str | None, Fault] = {}
        self._mix: _Mix | None = None

    def script(self, faults: Iterable[Fault], operation: str | None) -> None:
        """Appends faults, one for each coming call of the operation (None: of any)."""
        steps = [(_scope(fault, operation), fault) for fault in faults]
        with self._lock:
            self._script += steps

    def always(self, fault: Fault, operation: str | None) -> None:
        """Sets the fault of every call that the script does not cover; the named operation goes before any."""
        with self._lock:
            self._always[_scope(fault, operation)] = fault

    def seeded(self, seed: int, mix: Mapping[Fault, float], operation: str | None) -> None:
        """Draws from the mix for each call that nothing else covers, in the order of arrival."""
        if min(mix.values(), default=0) < 0 or sum(mix.values()) > 1 + 1e-9:
            raise ConfigurationError(
                "FaultProxy.seeded", [f"mix={dict(mix)!r}: probabilities are positive and add up to at most 1"]
            )
        for fault in mix:
            _scope(fault, operation)
        # The same faults for the same seed are the point, so no secure source of randomness.
        generator = random.Random(seed)  # noqa: S311
        with self._lock:
            self._mix = _Mix(tuple(mix.items()), operation, generator)

    def clear(self) -> None:
        """Forgets script, always and mix."""
        with self._lock:
            self._script.clear()
            self._always.clear()
            self._mix = None

    @property
    def pending(self) -> int:
        """How many faults of the script no call has met yet."""
        with self._lock:
            return len(self._script)

    def next(self, operation: str) -> Fault | None:
        """The fault of one call of the operation that has just arrived."""
        with self._lock:
            for index, (scope, fault) in enumerate(self._script):
                if scope in (None, operation):
                    del self._script[index]
                    return fault
            fault_always = self._always.get(operation) or self._always.get(None)
            if fault_always is not None:
                return fault_always
            if self._mix is None or self._mix.operation not in (None, operation):
                return None
            drawn = self._mix.draw()
            return None if isinstance(drawn, PartialFailure) and operation not in PARTLY else drawn


def _scope(fault: Fault, operation: str | None) -> str | None:
    if not isinstance(fault, PartialFailure):
        return operation
    if operation is None:
        return PUT_EVENTS
    if operation not in PARTLY:
        known = " and ".join(sorted(PARTLY))
        raise ConfigurationError("PartialFailure", [f"operation={operation!r}: it exists only for {known}"])
    return operation


@dataclass(frozen=True, slots=True)
class Call:
    """One request that came to the proxy, in the order in which its fate was settled.

    `operation` is the AWS operation, or method and path where the protocol names none; `entries` the number
    of entries of a PutEvents or SendMessageBatch call, else 0; `size` the bytes of the request body; `status`
    what was answered, None when nothing was (a hanging call is there as soon as it hangs).
    """

    operation: str
    entries: int
    size: int
    fault: Fault | None
    status: int | None
    body: bytes = field(repr=False, default=b"")
