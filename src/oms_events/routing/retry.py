"""Retries in place, by tenacity, inside the caller's deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from oms_events._aio import Clock
from oms_events.instrumentation.hooks import Hooks, Retried
from oms_events.resilience.backoff import RetryConfig
from oms_events.resilience.health import Health
from oms_events.routing.progress import Progress


async def retry(
    again: Callable[[Sequence[int]], Awaitable[None]],
    progress: Progress,
    config: RetryConfig,
    deadline: float,
    *,
    platform: str,
    clock: Clock,
    sleep: Callable[[float], Awaitable[None]],
    draw: Callable[[], float],
    hooks: Hooks,
    health: Health,
) -> None:
    """Tries the retryable events of `progress` again, in order, until none is left, or no attempt or time is."""
    attempts = 0

    async def attempt() -> list[int]:
        nonlocal attempts
        attempts += 1
        # The first attempt was made by the caller: retries cost nothing where there is nothing to retry.
        if attempts > 1:
            await again(progress.retryable())
        return progress.retryable()

    def wait(state: RetryCallState) -> float:
        pending = state.outcome.result() if state.outcome else []
        return max(config.delay(state.attempt_number, draw), progress.retry_after(pending))

    def stop(state: RetryCallState) -> bool:
        late = clock.monotonic() + state.upcoming_sleep >= deadline
        return late or state.attempt_number >= config.max_attempts

    def before_sleep(state: RetryCallState) -> None:
        pending = len(state.outcome.result()) if state.outcome else 0
        health.retries += pending
        if hooks:
            hooks(Retried(platform, pending, state.attempt_number, state.upcoming_sleep))

    retrying = AsyncRetrying(
        sleep=sleep,
        wait=wait,
        stop=stop,
        retry=retry_if_result(bool),
        before_sleep=before_sleep,
        retry_error_callback=lambda state: None,
    )
    await retrying(attempt)
