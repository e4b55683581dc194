"""Dispatchers as AWS Lambda functions.

    @asynccontextmanager
    async def open_dispatcher():          # gives a CommandDispatcher or a QueryDispatcher
        ...

    handler = create_request_handler(open_dispatcher)

The function's event is the request, and its result the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Protocol


class Dispatcher(Protocol):
    """What answers requests: a `CommandDispatcher`, a `QueryDispatcher`, or something of yours."""

    async def answer(self, request: Mapping[str, Any]) -> dict[str, Any]: ...


OpenDispatcher = Callable[[], AbstractAsyncContextManager[Dispatcher]]


class RequestHandler:
    """A Lambda handler whose event is the request and whose result is the answer; see `create_request_handler`.

    Called with an event and Lambda's context, one call at a time, and not inside an event loop. `close` is for
    tests and for other hosts: Lambda ends an execution environment without a word.
    """

    def __init__(self, open_dispatcher: OpenDispatcher) -> None:
        self._open_dispatcher = open_dispatcher
        self._runner: asyncio.Runner | None = None
        self._stack = AsyncExitStack()
        self._dispatcher: Dispatcher | None = None

    def __call__(self, event: Mapping[str, Any], context: Any) -> dict[str, Any]:
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(self._answer(event))

    def close(self) -> None:
        """Closes the dispatcher, and the loop that it lived on. Idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            with runner:
                runner.run(self._stack.aclose())
            self._dispatcher = None

    async def _answer(self, event: Mapping[str, Any]) -> dict[str, Any]:
        if self._dispatcher is None:
            self._dispatcher = await self._stack.enter_async_context(self._open_dispatcher())
        return await self._dispatcher.answer(event)


def create_request_handler(open_dispatcher: OpenDispatcher) -> RequestHandler:
    """Makes a Lambda handler of a dispatcher: for commands, or for queries.

    `open_dispatcher` is entered at the first invocation and stays open for the life of the execution environment.
    Requests that are refused get an answer; the handler raises what the storage raises: then the invocation has
    failed, and whoever invoked it, or Lambda itself when it was invoked asynchronously, does it again.
    """
    return RequestHandler(open_dispatcher)
