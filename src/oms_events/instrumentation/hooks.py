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


Detail = Decided | CallEnded | Retried | Settled | FailedOver | BreakerChanged | CheckEnded
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
