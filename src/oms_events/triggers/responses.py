"""How a start ended, as one answer. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from oms_events.triggers.problems import Problem


class Status(StrEnum):
    """How a start ended; metrics have it as a label."""

    SUCCESS = "success"
    DUPLICATE = "duplicate"
    """It ran before: the answer is that of the first."""
    DELAYED = "delayed"
    """It came too fast, and runs later from the delay queue."""
    DRY_RUN = "dry_run"
    IGNORED = "ignored"
    """It asks for nothing, and is right to."""
    REJECTED = "rejected"
    """Broken or invalid: it is never tried again."""
    REFUSED = "refused"
    """A business rule says no: it is a dead letter."""
    LIMITED = "limited"
    """Too fast: try again after `retry_after` seconds."""
    BUSY = "busy"
    """The same start, or another one of an exclusive key, is at work."""
    STOPPED = "stopped"
    """The breaker of its domain and table is open."""
    FAILED = "failed"
    """Something here failed: try again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerResponse:
    """The answer to a start: an HTTP status code, how it ended, all problems, and what the handler gave.

    `retryable` says that the same input may go well later, after `retry_after` seconds where that is known.
    `results` has one answer per start of an input that held several.
    """

    status_code: int
    status: Status
    correlation_id: str | None = None
    problems: Sequence[Problem] = ()
    result: Any = None
    retry_after: float | None = None
    retryable: bool = False
    results: Sequence[TriggerResponse] = field(default=())
    dead_letter: bool = False
    """Whether it is a dead letter now, for somebody who starts it again."""

    @property
    def ok(self) -> bool:
        """Whether everything went on, now, before or soon."""
        if self.results:
            return all(one.ok for one in self.results)
        return self.status_code < 300

    @property
    def body(self) -> dict[str, Any]:
        """What it says, as JSON values."""
        said: dict[str, Any] = {"status": self.status.value, "correlation_id": self.correlation_id}
        if self.problems:
            said["problems"] = [problem.document() for problem in self.problems]
        if self.result is not None:
            said["result"] = self.result
        if self.retry_after is not None:
            said["retry_after"] = self.retry_after
        if self.results:
            said["results"] = [{"statusCode": one.status_code, **one.body} for one in self.results]
        return said

    def document(self) -> Mapping[str, Any]:
        """`{"statusCode", "body"}`, as Lambda's callers expect it: the body is JSON text."""
        return {"statusCode": self.status_code, "body": json.dumps(self.body, ensure_ascii=False)}
