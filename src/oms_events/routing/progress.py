"""Where the events of one publish call to one platform stand. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from oms_events.errors import FailureClass, OmsEventsError, PublishError, SkippedError, TransientError
from oms_events.events import EncodedEvent
from oms_events.publishing import Outcome, PublishResult, Receipt

Answer = Receipt | OmsEventsError

_RETRYABLE = (FailureClass.TRANSIENT, FailureClass.UNKNOWN)


def all_receipts(answers: Sequence[Answer]) -> bool:
    """Whether every event was delivered: the common case, told at the speed of C."""
    return set(map(type, answers)) == {Receipt}


class NotSentError(TransientError):
    """The publisher was not even asked: no time was left. No attempt is counted for it."""


class Progress:
    """The last answer of each event, its attempts, and whether one of them ended `unknown`."""

    def __init__(self, events: Sequence[EncodedEvent]) -> None:
        self.events = events
        self.has_failures = False
        self._answers: list[Answer | None] = [None] * len(events)
        self._attempts: dict[int, int] = {}
        self._unknown: set[int] = set()
        self._given_up: set[int] = set()

    def take(self, indices: Sequence[int], answers: Sequence[Answer]) -> None:
        """Takes the answers of one attempt."""
        if not self.has_failures and all_receipts(answers):
            # Nearly every call: all events at once, at the first attempt, without a failure.
            self._answers = list(answers)
            return
        for index, answer in zip(indices, answers, strict=True):
            self._take(index, answer)

    def _take(self, index: int, answer: Answer) -> None:
        if isinstance(answer, SkippedError):
            self._given_up.add(index)
            # What was attempted before was not skipped: its own failure is the truth, and stays.
            if self._answers[index] is None:
                self._answers[index] = answer
        elif isinstance(answer, NotSentError):
            if self._answers[index] is None:
                self._answers[index] = answer
        else:
            self._answers[index] = answer
            self._attempts[index] = self._attempts.get(index, 0) + 1
            if isinstance(answer, PublishError) and answer.failure is FailureClass.UNKNOWN:
                self._unknown.add(index)
        self.has_failures = self.has_failures or type(answer) is not Receipt

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
        waits = (answer.retry_after or 0.0 for answer in answers if isinstance(answer, PublishError))
        return max(waits, default=0.0)

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

    def _result(self, platform: str, latency: float, index: int, *, deduplicates: bool) -> PublishResult:
        answer = self._answers[index]
        attempts = self._attempts.get(index, 0)
        was_unknown = index in self._unknown
        doubt = was_unknown and not deduplicates and attempts > 1
        if isinstance(answer, Receipt):
            return PublishResult(platform, Outcome.DELIVERED, None, answer, latency, attempts, doubt)
        if isinstance(answer, SkippedError):
            outcome = Outcome.SKIPPED
        elif was_unknown:
            # One attempt that may have been stored is enough: what came later does not unsay it.
            outcome = Outcome.UNKNOWN
        elif isinstance(answer, PublishError) and answer.failure is FailureClass.EVENT_REJECTED:
            outcome = Outcome.REJECTED
        else:
            outcome = Outcome.FAILED
        return PublishResult(platform, outcome, answer, None, latency, attempts, doubt)
