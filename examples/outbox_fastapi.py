"""An outbox in the lifespan of a web application: the same for Starlette, as here, and for FastAPI."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypedDict

import aioboto3
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Message

from oms_events import (
    CommitOutcomeUnknownError,
    ConditionFailedError,
    DynamoDBOutbox,
    EventRouter,
    MemoryPublisher,
    OutboxConfig,
    OutboxProcessor,
    build_event,
    create_table,
)
from oms_events.devstack import AwsEmulator
from oms_events.instrumentation import LoggingHook

memory = MemoryPublisher()


# [start:lifespan]
class State(TypedDict):
    outbox: DynamoDBOutbox
    processor: OutboxProcessor


def make_lifespan(config: OutboxConfig) -> Callable[[object], AbstractAsyncContextManager[State]]:
    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[State]:
        hooks = [LoggingHook()]
        async with (
            DynamoDBOutbox(config) as outbox,
            EventRouter({"nats": memory}, hooks=hooks) as router,  # your platforms and rules
            OutboxProcessor(outbox, router, hooks=hooks) as processor,
        ):
            yield {"outbox": outbox, "processor": processor}

    return lifespan


# [end:lifespan]


# [start:handlers]
async def place_order(request: Request) -> JSONResponse:
    order = await request.json()
    event = build_event("shop.order.placed", "/shop/orders", order, partitionkey=order["pk"])
    try:
        async with request.state.outbox.transaction() as tx:
            tx.put("orders", order, condition="attribute_not_exists(pk)")
            tx.add(event)
    except ConditionFailedError:
        return JSONResponse({"error": "this order is there already"}, status_code=409)
    except CommitOutcomeUnknownError:
        return JSONResponse({"error": "no answer; send the same order again"}, status_code=503)
    return JSONResponse(order, status_code=201)


# [end:handlers]


# [start:health]
def is_healthy(status: Mapping[str, Any], *, oldest_age: float) -> bool:
    backlog = status["backlog"]
    return bool(
        status["running"]
        and status["lease_seconds_left"] > 0
        and not status["problems"]
        and backlog["available"]  # false until the first measurement, 15 s after the start
        and (backlog["oldest_age"] or 0) < oldest_age
    )


async def health(request: Request) -> JSONResponse:
    status = request.state.processor.status()
    return JSONResponse(status, status_code=200 if is_healthy(status, oldest_age=300) else 503)


# [end:health]


# [start:app]
def make_app(config: OutboxConfig) -> Starlette:
    routes = [Route("/orders", place_order, methods=["POST"]), Route("/health/outbox", health)]
    return Starlette(routes=routes, lifespan=make_lifespan(config))


# [end:app]


async def create_tables(config: OutboxConfig) -> None:
    await create_table(config)
    async with aioboto3.Session().client("dynamodb") as dynamodb:
        await dynamodb.create_table(
            TableName="orders",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )


@asynccontextmanager
async def served(app: Starlette) -> AsyncIterator[State]:
    """Runs an application's lifespan as a server does, through the ASGI interface; gives its state."""
    state: dict[str, Any] = {}
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()

    async def step(kind: str) -> None:
        await to_app.put({"type": f"lifespan.{kind}"})
        answer = await from_app.get()
        if answer["type"] != f"lifespan.{kind}.complete":
            raise RuntimeError(answer["message"])

    life = asyncio.create_task(app({"type": "lifespan", "state": state}, to_app.get, from_app.put))
    await step("startup")
    yield State(outbox=state["outbox"], processor=state["processor"])
    await step("shutdown")
    await life


async def call(app: Starlette, state: State, method: str, path: str, body: object = None) -> str:
    answers: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": json.dumps(body).encode()}

    async def send(message: Message) -> None:
        answers.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [],
        "state": dict(state),
    }
    await app(scope, receive, send)
    return f"{answers[0]['status']} {answers[1]['body'].decode()}"


async def main() -> None:
    async with AwsEmulator() as aws:
        os.environ.update(aws.environment())
        config = OutboxConfig(table_name="orders-outbox", commit_timeout=5.0)
        await create_tables(config)
        app = make_app(config)
        async with served(app) as state:
            for _ in range(2):
                print(await call(app, state, "POST", "/orders", {"pk": "A-1", "total": 12}))
            print("the outbox is empty:", await state["processor"].drain(timeout=10))
            print(await call(app, state, "GET", "/health/outbox"))
    print("delivered:", [event.get_data() for event in memory.events])


if __name__ == "__main__":
    asyncio.run(main())
