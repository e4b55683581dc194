"""The parts of a pipeline: opened in whose loop, closed by whom, and what closing does to starts."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

import pytest

from oms_events.errors import ConfigurationError
from oms_events.instrumentation.correlation import correlated, current_correlation_id
from oms_events.triggers.pipeline import TriggerPipeline
from oms_events.triggers.problems import Code
from oms_events.triggers.responses import Status, TriggerResponse
from oms_events.triggers.start import Start
from tests.triggers.pipelines import Scene, event, manual


class Part:
    """A handler that is bound to the loop that it was opened in, as a connection is."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.calls: list[str] = []

    async def open(self) -> None:
        self.calls.append("open")
        self.loop = self.loop or asyncio.get_running_loop()

    async def close(self) -> None:
        self.calls.append("close")
        loop, self.loop = self.loop, None
        if loop is not asyncio.get_running_loop():
            raise RuntimeError("Event loop is closed")

    async def __call__(self, start: Start) -> str:
        if self.loop is not asyncio.get_running_loop():
            raise RuntimeError("another loop")
        return "ran"


def refused(response: TriggerResponse) -> bool:
    return (response.status_code, response.retryable) == (503, True) and "closed" in response.problems[0].remedy


def test_a_pipeline_goes_on_in_the_next_loop() -> None:
    pipeline = Scene(handler=(part := Part())).pipeline
    for at in range(3):
        assert asyncio.run(pipeline.handle(manual(correlation_id=f"call-{at}"))).result == "ran"
    assert part.calls == ["open", "close", "open", "close", "open"]


def test_two_loops_at_a_time_are_refused_clearly() -> None:
    scene = Scene(handler=Part())
    entered, leave = threading.Event(), threading.Event()

    async def stay() -> None:
        await scene.handle(manual())
        entered.set()
        await asyncio.to_thread(leave.wait)

    thread = threading.Thread(target=asyncio.run, args=(stay(),))
    thread.start()
    entered.wait()
    try:
        response = asyncio.run(scene.handle(manual(correlation_id="call-2")))
        assert [problem.code for problem in response.problems] == [Code.FAILED]
        assert "another event loop" in response.problems[0].remedy
        with pytest.raises(ConfigurationError, match="another event loop"):
            asyncio.run(scene.pipeline.open())
    finally:
        leave.set()
        thread.join()
    assert asyncio.run(scene.handle(manual(correlation_id="call-2"))).ok


async def test_parts_of_others_are_opened_and_not_closed() -> None:
    async with TriggerPipeline(part := Part(), close_parts=False) as pipeline:
        assert (await pipeline.handle(manual())).ok
    assert part.calls == ["open"]


async def test_a_closed_pipeline_starts_nothing_until_it_is_opened() -> None:
    scene = Scene(handler=(part := Part()))
    await scene.handle(manual())
    await scene.pipeline.close()
    await scene.pipeline.close()
    assert refused(await scene.handle(event()))
    assert part.calls == ["open", "close"]
    await scene.pipeline.open()
    assert (await scene.handle(event())).ok
    assert part.calls == ["open", "close", "open"]


async def test_closing_waits_for_what_runs_and_lets_nothing_in() -> None:
    scene = Scene()
    scene.handler.gate = asyncio.Event()
    running = asyncio.create_task(scene.handle(event("event-1")))
    await scene.handler.entered.wait()
    closing = asyncio.create_task(scene.pipeline.close())
    await asyncio.sleep(0)
    assert refused(await scene.handle(event("event-2")))
    assert not closing.done()
    scene.handler.gate.set()
    await closing
    assert (await running).status is Status.SUCCESS


async def test_closing_cancels_what_does_not_end_and_leaves_no_guard_taken() -> None:
    scene = Scene()
    scene.handler.gate = asyncio.Event()
    running = asyncio.create_task(scene.handle(event()))
    await scene.handler.entered.wait()
    await scene.pipeline.close(timeout=0.01)
    assert refused(await running)
    assert await scene.is_free()
    assert not await scene.breakers.views()


async def test_closing_while_the_parts_open_leaves_none_open() -> None:
    gate = asyncio.Event()

    class Slow(Part):
        async def open(self) -> None:
            await gate.wait()
            await super().open()

    scene = Scene(handler=(part := Slow()))
    starting = asyncio.create_task(scene.handle(manual()))
    await asyncio.sleep(0)
    closing = asyncio.create_task(scene.pipeline.close())
    await asyncio.sleep(0)
    gate.set()
    await closing
    await starting
    assert part.calls == ["open", "close"]


async def test_opening_while_the_pipeline_is_closed_holds() -> None:
    gate, entered = asyncio.Event(), asyncio.Event()

    class Slow(Part):
        async def __call__(self, start: Start) -> str:
            entered.set()
            await gate.wait()
            return await super().__call__(start)

    scene = Scene(handler=(part := Slow()))
    running = asyncio.create_task(scene.handle(manual()))
    await entered.wait()
    closing = asyncio.create_task(scene.pipeline.close())
    await asyncio.sleep(0)
    opening = asyncio.create_task(scene.pipeline.open())
    await asyncio.sleep(0)
    assert refused(await scene.handle(event()))
    gate.set()
    await asyncio.gather(running, closing, opening)
    assert running.result().result == "ran"
    assert part.calls == ["open", "close", "open"]
    assert (await scene.handle(event())).result == "ran"


async def test_a_handler_may_close_its_own_pipeline() -> None:
    async def handler(start: Start) -> str:
        await scene.pipeline.close()
        return "ran"

    scene = Scene(handler=handler)
    assert (await scene.handle(manual())).result == "ran"
    assert refused(await scene.handle(event()))


async def test_closing_that_is_cancelled_waits_no_longer() -> None:
    class Slow(Part):
        entered, gate = asyncio.Event(), asyncio.Event()

        async def __call__(self, start: Start) -> str:
            self.entered.set()
            await self.gate.wait()
            return "ran"

    scene = Scene(handler=(part := Slow()))
    running = asyncio.create_task(scene.handle(manual()))
    await part.entered.wait()
    closing = asyncio.create_task(scene.pipeline.close())
    await asyncio.sleep(0)
    closing.cancel()
    with suppress(asyncio.CancelledError):
        await closing
    assert part.calls == ["open", "close"]
    part.gate.set()
    await running


async def test_what_a_part_begins_belongs_to_no_start() -> None:
    class Watching(Part):
        seen: str | None = "nothing"

        async def open(self) -> None:
            await super().open()
            self.task = asyncio.create_task(self.look())

        async def look(self) -> None:
            self.seen = current_correlation_id()

    scene = Scene(handler=(part := Watching()))
    with correlated("outer"):
        await scene.handle(manual())
    await part.task
    assert part.seen is None
