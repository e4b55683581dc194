"""The correlation id of the start that is being handled, in every log line that is written meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

ATTRIBUTE: Final = "correlation_id"
"""The attribute of log records; `%(correlation_id)s` in a format."""

_current: ContextVar[str | None] = ContextVar("oms_events_correlation_id", default=None)


def current_correlation_id() -> str | None:
    """The id of what is being handled here; None outside."""
    return _current.get()


@contextmanager
def correlated(correlation_id: str | None) -> Iterator[None]:
    """Until its end `correlation_id` is the current one, also in tasks and threads (`to_thread`) begun inside.

    Nested, the inner one counts; afterwards the outer one does again. Concurrent tasks do not see each other's.
    """
    token = _current.set(correlation_id)
    try:
        yield
    finally:
        _current.reset(token)


class CorrelationFilter(logging.Filter):
    """Gives every record the attribute `correlation_id`: its own, else the current one, else `missing`.

    Add it to handlers: `handler.addFilter(CorrelationFilter())`. On a logger it would not see the records of the
    loggers below. It drops nothing.
    """

    def __init__(self, *, missing: str = "-") -> None:
        super().__init__()
        self._missing = missing

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, ATTRIBUTE, None) is None:
            setattr(record, ATTRIBUTE, _current.get() or self._missing)
        return True
