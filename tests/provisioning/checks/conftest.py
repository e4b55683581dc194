"""An emulator for all tests of the check, and the worlds in it: nothing that is made is taken away again."""

from __future__ import annotations

import contextlib
import io
import uuid
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aioboto3
import nats
import pytest

from oms_events import EventBridgeConfig, JetStreamOptions, NatsConfig, OutboxConfig
from oms_events.devstack import AwsEmulator, NatsServer
from oms_events.devstack.background import run_in_thread
from oms_events.idempotency.config import IdempotencyConfig
from oms_events.provisioning.checks.configuration import CheckedConfiguration
from tests.provisioning.checks.checked import (
    ACCOUNT,
    BUS,
    CA,
    CALLER,
    RULES,
    STREAM,
    World,
    Worlds,
    allowing,
    at,
    policy,
)

EVERYTHING = {"Effect": "Allow", "Action": ["events:*", "dynamodb:*"], "Resource": "*"}
SERVICES = ("dynamodb", "events", "iam", "kms", "lambda", "logs", "sns", "sqs")


@pytest.fixture(scope="package")
def emulator() -> Iterator[AwsEmulator]:
    with run_in_thread(AwsEmulator()) as emulator:
        yield emulator


@pytest.fixture(scope="package")
async def clients(emulator: AwsEmulator) -> AsyncIterator[dict[str, Any]]:
    session = aioboto3.Session(region_name=emulator.region, aws_access_key_id="test", aws_secret_access_key="test")
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(session.client(name, endpoint_url=emulator.endpoint_url))
            for name in SERVICES
        }


@pytest.fixture(scope="package")
async def log_policy(clients: dict[str, Any]) -> None:
    """Two for all worlds: an account has ten policies at most."""
    groups = f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/events/*:*"
    making = {**allowing("logs:CreateLogStream", groups), "Condition": {}}
    writing = allowing("logs:Put*", groups, f"arn:aws:events:us-east-1:{ACCOUNT}:rule/*/logged")
    await clients["logs"].put_resource_policy(policyName="making", policyDocument=policy(making))
    await clients["logs"].put_resource_policy(policyName="writing", policyDocument=policy(writing))


@pytest.fixture(scope="package")
async def function(clients: dict[str, Any]) -> str:
    """A function that is Active, which takes half a second; another, `idle`, is for a test."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("handler.py", "def handle(event, context):\n    return event\n")
    made = {}
    for name in ("idle", "handler"):
        made = await clients["lambda"].create_function(
            FunctionName=name,
            Runtime="python3.12",
            Role=f"arn:aws:iam::{ACCOUNT}:role/function",
            Handler="handler.handle",
            Code={"ZipFile": packed.getvalue()},
        )
    await clients["lambda"].add_permission(
        FunctionName="idle", StatementId="all", Action="lambda:InvokeFunction", Principal="events.amazonaws.com"
    )
    active = clients["lambda"].get_waiter("function_active_v2")
    await active.wait(FunctionName="handler", WaiterConfig={"Delay": 1})
    arn: str = made["FunctionArn"]
    return arn


@pytest.fixture(scope="package")
async def session(clients: dict[str, Any], emulator: AwsEmulator) -> aioboto3.Session:
    """Credentials of the caller, the same for all: a session reads the services' models once."""
    await clients["iam"].create_user(UserName=CALLER)
    key = (await clients["iam"].create_access_key(UserName=CALLER))["AccessKey"]
    return aioboto3.Session(
        region_name=emulator.region,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )


@pytest.fixture(scope="package")
def worlds(
    clients: dict[str, Any],
    session: aioboto3.Session,
    emulator: AwsEmulator,
    oms_nats_server: NatsServer,
    function: str,
    log_policy: None,
) -> Worlds:
    """Makes a world with some parts of a configuration, or with all."""

    @asynccontextmanager
    async def made(*parts: str) -> AsyncIterator[World]:
        name = f"w{uuid.uuid4().hex[:10]}"
        values = {
            "eventbridge": EventBridgeConfig(event_bus_name=name, ca_bundle=CA),
            "nats": NatsConfig(servers=(oms_nats_server.url,)),
            "jetstream": JetStreamOptions(subject=f"{name}.{{type}}", stream=name),
            "outbox": OutboxConfig(table_name=f"{name}-outbox", buckets=4, ca_bundle=CA),
            "idempotency": IdempotencyConfig(table_name=f"{name}-idempotency", ca_bundle=CA),
        }
        configuration = CheckedConfiguration(
            rules=RULES,
            aws=at(emulator.endpoint_url),
            **{part: values[part] for part in parts or values},
        )
        client = await nats.connect(oms_nats_server.url)
        world = World(clients, name, function, session, configuration, client.jetstream())
        try:
            await world.make()
            await world.set_user(EVERYTHING)
            yield world
        finally:
            await world.set_user(EVERYTHING)
            with contextlib.suppress(nats.js.errors.NotFoundError):
                await world.js.delete_stream(name)
            await client.close()

    return made


@pytest.fixture(scope="package")
async def bus_world(worlds: Worlds) -> AsyncIterator[World]:
    """A bus with everything behind it that no test changes."""
    async with worlds(*BUS) as world:
        yield world


@pytest.fixture(scope="package")
async def stream_world(worlds: Worlds) -> AsyncIterator[World]:
    """A stream that no test changes."""
    async with worlds(*STREAM) as world:
        yield world
