"""Where the events of one publish call to one platform stand. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from oms_events.errors import (
    FailureClass,
    OmsEventsError,
    PublishError,
    SkippedError,
    TransientError,
    UnknownOutcomeError,
)
from oms_events.events import EncodedEvent
from oms_events.publishing import Outcome, PublishResult, Receipt

_RETRYABLE = (FailureClass.TRANSIENT, FailureClass.UNKNOWN)


class Progress:
    """The last answer of each event, its attempts, and whether one of them ended `unknown`."""

    def __init__(self, events: Sequence[EncodedEvent]) -> None:
        self.events = events
        self.on_wire: Sequence[int] = ()
        self._answers: list[Receipt | OmsEventsError | None] = [None] * len(events)
        self._more_attempts: dict[int, int] = {}
        self._unknown: set[int] = set()
        self._given_up: set[int] = set()
        self.has_failures = False

    def take(self, indices: Sequence[int], answers: Sequence[Receipt | OmsEventsError]) -> None:
        """Takes the answers of one attempt."""
        if len(indices) == len(self._answers) and not self.has_failures:
            self._answers = list(answers)
            self.has_failures = any(type(answer) is not Receipt for answer in answers)
            if self.has_failures:
                self._note_unknown(indices)
            return
        for index, answer in zip(indices, answers, strict=True):
            before = self._answers[index]
            # What was attempted before was not skipped: its own failure is the truth, and stays.
            if isinstance(answer, SkippedError) and before is not None:
                self._given_up.add(index)
                continue
            self._answers[index] = answer
            self._more_attempts[index] = self._more_attempts.get(index, 0) + (before is not None)
            self.has_failures = self.has_failures or type(answer) is not Receipt
        self._note_unknown(indices)

    def retryable(self) -> list[int]:
        """The events, in order, that another attempt may deliver."""
        return [
            index
            for index, answer in enumerate(self._answers)
            if isinstance(answer, PublishError) and answer.failure in _RETRYABLE and index not in self._given_up
        ]

    def retry_after(self, indices: Sequence[int]) -> float:
        """The longest wait in seconds that the platform asked for."""
        answers = (self._answers[index] for index in indices)
        return max(
            (answer.retry_after or 0.0 for answer in answers if isinstance(answer, PublishError)), default=0.0
        )

    def interrupt(self, *, closing: bool) -> None:
        """The call ended from outside: what was on the wire is unknown, the rest keeps what it has."""
        reason = "the router was closed" if closing else "the deadline passed"
        for index in self.on_wire:
            self._answers[index] = UnknownOutcomeError(f"{reason} before the platform answered")
            self._unknown.add(index)
        unsent = SkippedError if closing else TransientError
        for index, answer in enumerate(self._answers):
            if answer is None:
                self._answers[index] = unsent(f"{reason} before the event was sent")
        self.has_failures = True

    def results(self, platform: str, latency: float, *, deduplicates: bool) -> list[PublishResult]:
        """The final results, aligned with the events."""
        if not self.has_failures:
            delivered = Outcome.DELIVERED
            return [
                PublishResult(platform, delivered, None, answer, latency, 1)  # type: ignore[arg-type]
                for answer in self._answers
            ]
        return [
            self._result(platform, latency, index, deduplicates=deduplicates)
            for index in range(len(self._answers))
        ]

    def _note_unknown(self, indices: Sequence[int]) -> None:
        for index in indices:
            answer = self._answers[index]
            if isinstance(answer, PublishError) and answer.failure is FailureClass.UNKNOWN:
                self._unknown.add(index)

    def _result(self, platform: str, latency: float, index: int, *, deduplicates: bool) -> PublishResult:
        answer = self._answers[index]
        attempts = 1 + self._more_attempts.get(index, 0)
        was_unknown = index in self._unknown
        doubt = was_unknown and not deduplicates
        if isinstance(answer, Receipt):
            return PublishResult(platform, Outcome.DELIVERED, None, answer, latency, attempts, doubt)
        if isinstance(answer, SkippedError):
            return PublishResult(platform, Outcome.SKIPPED, answer, None, latency, 0)
        if isinstance(answer, PublishError) and answer.failure is FailureClass.EVENT_REJECTED:
            outcome = Outcome.REJECTED
        else:
            # One attempt that may have been stored is enough: a later failure does not unsay it.
            outcome = Outcome.UNKNOWN if was_unknown else Outcome.FAILED
        return PublishResult(platform, outcome, answer, None, latency, attempts, doubt and attempts > 1)
