"""Async context managers for callers that have no event loop, or whose loop must not be in the way."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

T = TypeVar("T")


@contextlib.contextmanager
def run_in_thread(manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Keeps an async context manager open on an event loop in a thread of its own.

    What the devstack hands out may be controlled from any thread and any loop, so `with
    run_in_thread(DevStack()) as stack:` serves synchronous tests, and asynchronous ones on their own loop.
    An interruption while it is being entered cancels that, and waits until it is undone.
    """
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = Future()
    entered: Future[T] = Future()
    ended: Future[None] = Future()
    left = asyncio.Event()

    async def keep_open() -> None:
        async with manager as value:
            entered.set_result(value)
            await left.wait()

    async def begin() -> None:
        task = asyncio.create_task(keep_open(), name="devstack-keep-open")
        begun.set_result((asyncio.get_running_loop(), task))
        await task

    def run() -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(begin())
        except BaseException as error:  # it belongs to the thread that waits
            for future in (begun, entered, ended):
                if not future.done():
                    future.set_exception(error)
        else:
            ended.set_result(None)

    thread = threading.Thread(target=run, name="oms-events-devstack")
    thread.start()
    try:
        yield entered.result()
    finally:
        if begun.exception() is None:
            loop, task = begun.result()
            # A loop that is closed by now has nothing to leave.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(left.set if entered.done() else task.cancel)
        thread.join()
    ended.result()
