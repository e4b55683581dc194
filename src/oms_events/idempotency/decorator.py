"""`@idempotent`: an async function that runs once per key, however often it is called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, ParamSpec, TypeVar

from oms_events._aio import Clock
from oms_events.errors import ConfigurationError, IdempotencyArgumentError
from oms_events.idempotency.config import IdempotencyOptions
from oms_events.idempotency.records import as_event, prefix_problem
from oms_events.idempotency.run import BY_KEY, IdempotentRun, Serializer
from oms_events.idempotency.store import IdempotencyStore

P = ParamSpec("P")
R = TypeVar("R")

Selector = str | Callable[..., object]
"""What to take from the arguments: a dotted path that begins with a parameter's name, or a function of them."""


def idempotent(
    store: IdempotencyStore,
    *,
    key: Selector | None = None,
    payload: Selector | None = None,
    prefix: str | None = None,
    options: IdempotencyOptions | None = None,
    serializer: Serializer | None = None,
    clock: Clock | None = None,
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R]]]:
    """Makes an async function run once per key; other calls get the first one's result.

    `key` and `payload` are paths (`"order.id"`, `"event.data.order.id"`) or functions of the same arguments.
    Without `key` the only event among the arguments is the key, and its type and data are the payload; with a
    key of your own nothing is checked but what `payload` selects. `prefix` (default: the function's module and
    name, so renaming it forgets what has run) keeps functions apart that share a table; no `#` in it.

    The decorated function raises what `IdempotentRun` raises, which also tells what a cancellation leaves. Raises
    `ConfigurationError` for a function that is not async, and for a path that begins with no parameter's name.
    """

    def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(function))}"
        signature = inspect.signature(function)
        _check(function, name, signature, prefix, key, payload)

        @functools.wraps(function)
        async def once(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            run = IdempotentRun(
                store,
                _only_event(bound, name) if key is None else _select(key, bound, name),
                prefix=name if prefix is None else prefix,
                payload=BY_KEY if payload is None else _select(payload, bound, name),
                options=options,
                serializer=serializer,
                clock=clock,
            )
            async with run:
                if not run.replayed:
                    run.result = await function(*args, **kwargs)
            result: R = run.result
            return result

        return once

    return decorate


def _check(
    function: object, name: str, signature: inspect.Signature, prefix: str | None, *selectors: Selector | None
) -> None:
    problems = []
    if not inspect.iscoroutinefunction(function):
        problems.append("it is not async; decorate an `async def`")
    if problem := prefix_problem(name if prefix is None else prefix):
        problems.append(problem)
    for selector in selectors:
        if isinstance(selector, str) and selector.partition(".")[0] not in signature.parameters:
            known = ", ".join(signature.parameters)
            problems.append(f"path {selector!r} begins with no parameter's name; parameters: {known}")
    if problems:
        raise ConfigurationError(f"@idempotent on {name}", problems)


def _only_event(bound: inspect.BoundArguments, name: str) -> object:
    events = [event for value in bound.arguments.values() if (event := as_event(value)) is not None]
    if len(events) != 1:
        raise IdempotencyArgumentError(
            f"{name} was called with {len(events)} events; say with key= what tells one call from another"
        )
    return events[0]


def _select(selector: Selector, bound: inspect.BoundArguments, name: str) -> object:
    if not isinstance(selector, str):
        return selector(*bound.args, **bound.kwargs)
    first, *steps = selector.split(".")
    value: Any = bound.arguments[first]
    try:
        for step in steps:
            value = _step(value, step)
    except (LookupError, AttributeError, ValueError) as error:
        raise IdempotencyArgumentError(f"{name}: the argument has no {selector!r}: {error!r}") from error
    return value


def _step(value: Any, step: str) -> Any:
    if isinstance(value, Mapping):
        return value[step]
    if isinstance(value, list | tuple) and step.isdecimal():
        return value[int(step)]
    event = as_event(value)
    if event is not None:
        return event.data if step == "data" else event.attributes[step]
    return getattr(value, step)
