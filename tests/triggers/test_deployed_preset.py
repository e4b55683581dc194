"""The preset `ingestion-triggers` on the emulator with the function of the example: what starts it, what it sends.

In the normal run EventBridge hands its events to a queue, and the test hands them to the function's entry point as
they came; the function itself runs nightly, as each cold start takes seconds.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from oms_events.devstack import AwsEmulator
from oms_events.provisioning.presets.ingestion_triggers import IngestionTriggersPreset
from oms_events.provisioning.synthesis import synthesize
from oms_events.triggers.config import Quota
from oms_events.triggers.guards.config import GuardTableConfig
from oms_events.triggers.guards.rate_dynamodb import DynamoDBRateLimiter
from oms_events.triggers.schema import rate_key
from tests.provisioning.embedded import DeployedStack, deployed, queue_messages

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "triggers"
BOUND = 300.0
"""Seconds of the nightly run: pip builds the zip, and the function starts cold."""

BUCKET = "staging-ingestion-000000000000-us-east-1"
SYMBOLS = "/staging/symbols"
EVENTS = Quota(limit=100, window=60)
UNIVERSE = {"added_symbols": ["NVDA", "AMD", "INTC"], "immediate_ingestion": True, "reason": "index change"}


class Context:
    """What Lambda tells a function about a call, as far as anybody asks."""

    aws_request_id = "00000000-0000-4000-8000-000000000000"

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


class Orchestrator:
    """The deployed preset, with a queue in the place of its function, and the function's module here."""

    def __init__(self, stack: DeployedStack, captured: str, handler: Any) -> None:
        self.stack = stack
        self.captured = captured
        self._handler = handler

    async def delivered(self) -> dict[str, Any]:
        """The one event that EventBridge hands to the function's target."""
        (event,) = await queue_messages(await self.stack.client("sqs"), self.captured)
        return event

    async def handle(self, event: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """What the function answers: status code and body."""
        answer = await asyncio.to_thread(self._handler, json.loads(json.dumps(event)), Context())
        return answer["statusCode"], json.loads(answer["body"])

    async def raw(self, event: Mapping[str, Any]) -> Any:
        return await asyncio.to_thread(self._handler, event, Context())

    async def chunks(self, count: int) -> Sequence[dict[str, Any]]:
        """What workers get, in the order of the chunks."""
        sqs, url = await self.stack.client("sqs"), self.stack.outputs["queue_urls"]["chunks"]
        return sorted(await queue_messages(sqs, url, count=count), key=lambda chunk: chunk["chunk_index"])

    async def publish(self, source: str, detail_type: str, detail: Mapping[str, Any]) -> None:
        events = await self.stack.client("events")
        entry = {"Source": source, "DetailType": detail_type, "Detail": json.dumps(detail)}
        assert (await events.put_events(Entries=[entry]))["FailedEntryCount"] == 0


@pytest_asyncio.fixture(scope="module")
async def orchestrator(oms_aws_emulator: AwsEmulator) -> AsyncIterator[Orchestrator]:
    preset = IngestionTriggersPreset(
        environment="staging", symbols_parameter=SYMBOLS, chunk_size=2, delay_seconds=0, lambda_timeout=30
    )
    async with deployed(synthesize(preset.stack()), oms_aws_emulator, keep={BUCKET}) as stack:
        sqs, ssm = await stack.client("sqs"), await stack.client("ssm")
        captured = (await sqs.create_queue(QueueName=f"captured-{uuid4()}"))["QueueUrl"]
        await ssm.put_parameter(Name=SYMBOLS, Type="StringList", Value="AAPL,MSFT,GOOGL")
        await _redirect(stack, captured)
        functions = await stack.client("lambda")
        name = stack.outputs["function_name"]
        (mapping,) = (await functions.list_event_source_mappings(FunctionName=name))["EventSourceMappings"]
        await functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
        configured = await functions.get_function_configuration(FunctionName=name)
        with pytest.MonkeyPatch.context() as patched, _logging_as_before():
            for variable, value in oms_aws_emulator.environment().items():
                patched.setenv(variable, value)
            for variable, value in configured["Environment"]["Variables"].items():
                patched.setenv(variable, value)
            module = _load_example()
            try:
                yield Orchestrator(stack, captured, module.handler)
            finally:
                await asyncio.to_thread(module.handler.close)
        await sqs.delete_queue(QueueUrl=captured)
        await ssm.delete_parameter(Name=SYMBOLS)


async def _redirect(stack: DeployedStack, queue: str) -> None:
    """The rules' targets are the queue now; what transforms their input stays."""
    events, sqs = await stack.client("events"), await stack.client("sqs")
    attributes = await sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
    arn = attributes["Attributes"]["QueueArn"]
    for rule in stack.outputs["rule_names"].values():
        (target,) = (await events.list_targets_by_rule(Rule=rule))["Targets"]
        target.pop("DeadLetterConfig", None)
        await events.put_targets(Rule=rule, Targets=[{**target, "Arn": arn}])


@contextmanager
def _logging_as_before() -> Iterator[None]:
    """What the function does to the process' logging ends with it."""
    log, handlers = logging.getLogger("oms_events"), list(logging.getLogger().handlers)
    level, filters = log.level, [list(handler.filters) for handler in handlers]
    try:
        yield
    finally:
        log.setLevel(level)
        for handler, before in zip(handlers, filters, strict=True):
            handler.filters[:] = before


def _load_example() -> Any:
    """The function's module, as Lambda loads it: its environment is there before."""
    spec = importlib.util.spec_from_file_location("orchestrator", FOLDER / "orchestrator.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_a_custom_event_becomes_chunks_once(
    orchestrator: Orchestrator, capsys: pytest.CaptureFixture[str]
) -> None:
    await orchestrator.publish("symbol.universe", "Universe Updated", UNIVERSE)
    event = await orchestrator.delivered()
    capsys.readouterr()
    code, body = await orchestrator.handle(event)
    assert (code, body["status"], body["correlation_id"]) == (200, "success", event["id"])
    first, second = await orchestrator.chunks(2)
    assert (first["symbols"], second["symbols"]) == (["NVDA", "AMD"], ["INTC"])
    for chunk in (first, second):
        assert chunk["correlation_id"] == event["id"]
        assert (chunk["domain"], chunk["table_name"], chunk["trigger_type"]) == ("market", "prices", "event")
    metrics = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (start,) = [line for line in metrics if "TriggerExecution" in line]
    assert (start["TriggerType"], start["Domain"], start["Status"]) == ("event", "market", "success")
    assert start["correlation_id"] == event["id"]
    (sent,) = [line for line in metrics if "ChunksSent" in line]
    assert (sent["ChunksSent"], sent["correlation_id"]) == (2, event["id"])

    # EventBridge delivers at least once.
    again, answered = await orchestrator.handle(event)
    assert (again, answered["status"]) == (200, "duplicate")
    assert answered["result"] == body["result"]
    assert await orchestrator.chunks(0) == []


async def test_a_new_object_becomes_a_chunk_of_its_symbol(orchestrator: Orchestrator) -> None:
    s3 = await orchestrator.stack.client("s3")
    key = "market/prices/symbol=TSLA/day 1.json"
    for name in ("market/prices/a.csv", key):
        await s3.put_object(Bucket=BUCKET, Key=name, Body=b"{}")
    event = await orchestrator.delivered()
    assert event["detail-type"] == "Object Created"
    code, body = await orchestrator.handle(event)
    assert (code, body["status"]) == (200, "success")
    (chunk,) = await orchestrator.chunks(1)
    assert (chunk["symbols"], chunk["trigger_type"]) == (["TSLA"], "s3")
    assert chunk["correlation_id"] == body["correlation_id"]
    await s3.delete_object(Bucket=BUCKET, Key=key)
    await s3.delete_object(Bucket=BUCKET, Key="market/prices/a.csv")


async def test_the_schedule_loads_its_symbols_from_the_parameter_store(orchestrator: Orchestrator) -> None:
    """The emulator's schedules do not run in a test's time: the same target stands behind a pattern here."""
    events = await orchestrator.stack.client("events")
    rule = orchestrator.stack.outputs["schedule_rule_name"]
    (target,) = (await events.list_targets_by_rule(Rule=rule))["Targets"]
    name = f"as-scheduled-{uuid4()}"
    await events.put_rule(Name=name, EventPattern=json.dumps({"source": [name]}))
    await events.put_targets(Rule=name, Targets=[target])
    try:
        await orchestrator.publish(name, "x", {})
        event = await orchestrator.delivered()
    finally:
        await events.remove_targets(Rule=name, Ids=[target["Id"]])
        await events.delete_rule(Name=name)
    code, body = await orchestrator.handle(event)
    assert (code, body["status"]) == (200, "success")
    assert body["correlation_id"].startswith(f"{rule}:{datetime.now(UTC).year}")
    first, second = await orchestrator.chunks(2)
    assert (first["symbols"], second["symbols"]) == (["AAPL", "MSFT"], ["GOOGL"])
    # A schedule runs one at a time: workers can refuse what an older run sends them late.
    assert first["fence"] == second["fence"] >= 1


async def test_a_call_is_answered_and_follows_the_rules_of_the_example(orchestrator: Orchestrator) -> None:
    call = {"symbols": ["AAPL"], "interval": "5m", "period": "1y", "override_config": {"chunk_size": 1}}
    code, body = await orchestrator.handle({**call, "dry_run": True})
    assert (code, body["status"]) == (200, "dry_run")
    assert await orchestrator.chunks(0) == []
    code, body = await orchestrator.handle(call)
    assert (code, body["status"]) == (200, "success")
    (chunk,) = await orchestrator.chunks(1)
    assert (chunk["period"], chunk["correlation_id"]) == ("1mo", body["correlation_id"])
    code, body = await orchestrator.handle({"symbols": ["a b"], "domain": "?"})
    assert code == 400
    assert [problem["code"] for problem in body["problems"]] == ["INVALID_DOMAIN", "INVALID_SYMBOLS"]


async def test_an_event_that_came_too_fast_runs_later_from_the_delay_queue(
    orchestrator: Orchestrator, oms_aws_emulator: AwsEmulator
) -> None:
    table = orchestrator.stack.outputs["table_names"]["rate"]
    config = GuardTableConfig(table_name=table, **dict(orchestrator.stack.config))
    async with DynamoDBRateLimiter(config, session=orchestrator.stack.session) as limiter:
        # All that is left of the minute.
        while await limiter.take("event", EVENTS) == 0.0:
            pass
    await orchestrator.publish("ops.manual", "Adhoc Ingestion", {"symbols": ["NFLX"]})
    event = await orchestrator.delivered()
    code, body = await orchestrator.handle(event)
    assert (code, body["status"]) == (202, "delayed")
    batch = await _delayed(orchestrator)
    message = batch["Records"][0]["messageId"]
    # Still too fast: it stays in the queue.
    assert await orchestrator.raw(batch) == {"batchItemFailures": [{"itemIdentifier": message}]}
    dynamodb = await orchestrator.stack.client("dynamodb")
    key = {name: {"S": value} for name, value in rate_key("event").items()}
    await dynamodb.delete_item(TableName=table, Key=key)
    assert await orchestrator.raw(batch) == {"batchItemFailures": []}
    (chunk,) = await orchestrator.chunks(1)
    assert (chunk["symbols"], chunk["correlation_id"]) == (["NFLX"], event["id"])


async def _delayed(orchestrator: Orchestrator) -> dict[str, Any]:
    """The delayed start as Lambda gives it to the function."""
    sqs, url = await orchestrator.stack.client("sqs"), orchestrator.stack.outputs["queue_urls"]["delay"]
    got = await sqs.receive_message(
        QueueUrl=url, WaitTimeSeconds=5, MessageSystemAttributeNames=["All"], MaxNumberOfMessages=1
    )
    (message,) = got["Messages"]
    return {
        "Records": [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message.get("Attributes", {}),
                "messageAttributes": {},
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:staging-ingestion-delay.fifo",
                "awsRegion": "us-east-1",
            }
        ]
    }


@pytest.mark.nightly
def test_the_function_itself_does_it() -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / "deployed.py")],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    for line in (
        "event: chunk of NVDA, AMD,",
        "object: chunk of AAPL,",
        "call: 200 success\ncall: 200 duplicate\n",
        "call: chunk of TSLA, correlation id run-1",
        "log: event market success, ",
        "log: s3 market success, ",
        "log: manual market success, run-1\nlog: manual market duplicate, run-1\n",
    ):
        assert line in done.stdout, done.stdout
