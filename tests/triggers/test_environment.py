"""From the preset's environment variables to a pipeline."""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import closing
from typing import Any

import pytest

from oms_events._aws.config import AwsConfig
from oms_events._aws.control import open_control
from oms_events.devstack import AwsEmulator
from oms_events.errors import ConfigurationError, EventRejectedError, StartRefusedError, TriggerFailedError
from oms_events.events import build_event, encode
from oms_events.instrumentation.hooks import Detail, Triggered
from oms_events.triggers.config import TriggerConfig
from oms_events.triggers.environment import IngestionEnvironment, create_ingestion_pipeline, trigger_settings
from oms_events.triggers.pipeline import TriggerPipeline
from oms_events.triggers.receiving import received_starts_handler
from oms_events.triggers.request import DEFAULT_SYMBOLS
from oms_events.triggers.sending.dead_letters import MemoryDeadLetters
from oms_events.triggers.sending.sqs import SqsQueue
from oms_events.triggers.settings import TriggerSettings
from oms_events.triggers.start import Start
from tests.outbox.support import settings_of

QUEUES = "https://sqs.eu-central-1.amazonaws.com/111122223333"
PRESET = {
    "ENVIRONMENT": "dev",
    "QUEUE_URL": f"{QUEUES}/dev-ingestion-chunks",
    "DELAY_QUEUE_URL": f"{QUEUES}/dev-ingestion-delay.fifo",
    "DEAD_LETTER_QUEUE_URL": f"{QUEUES}/dev-ingestion-dlq",
    "IDEMPOTENCY_TABLE": "dev-ingestion-idempotency",
    "BREAKER_TABLE": "dev-ingestion-breaker",
    "RATE_TABLE": "dev-ingestion-rate",
    "CHUNK_SIZE": "7",
    "SQS_SEND_BATCH_SIZE": "10",
    "AWS_REGION": "eu-central-1",
}


def test_the_presets_variables_are_read() -> None:
    env = {**PRESET, "SYMBOLS_SSM_PARAM": "/dev/symbols", "EVENT_BUS_NAME": "custom-ingestion-bus"}
    found = IngestionEnvironment.read(env)
    assert found.queue_url == PRESET["QUEUE_URL"]
    assert found.delay_queue_url == PRESET["DELAY_QUEUE_URL"]
    assert found.dead_letter_queue_url == PRESET["DEAD_LETTER_QUEUE_URL"]
    assert (found.idempotency_table, found.breaker_table, found.rate_table) == (
        "dev-ingestion-idempotency",
        "dev-ingestion-breaker",
        "dev-ingestion-rate",
    )
    assert (found.symbols_parameter, found.event_bus_name) == ("/dev/symbols", "custom-ingestion-bus")
    assert found.aws_region == "eu-central-1"
    assert (found.config.environment, found.config.defaults.symbols) == ("dev", DEFAULT_SYMBOLS)
    assert (found.config.options.chunk_size, found.config.options.sqs_send_batch_size) == (7, 10)
    prod = IngestionEnvironment.read({**PRESET, "ENVIRONMENT": "prod"})
    assert (prod.config.environment, prod.config.defaults.symbols) == ("prod", ())
    assert (prod.symbols_parameter, prod.event_bus_name) == (None, None)


def test_all_problems_come_together_with_variable_value_and_remedy() -> None:
    env = {
        **PRESET,
        "ENVIRONMENT": "production",
        "QUEUE_URL": "dev-ingestion-chunks",
        "DELAY_QUEUE_URL": f"{QUEUES}/dev-ingestion-delay",
        "IDEMPOTENCY_TABLE": "",
        "BREAKER_TABLE": "a b",
        "CHUNK_SIZE": "many",
        "SQS_SEND_BATCH_SIZE": "11",
        "SYMBOLS_SSM_PARAM": "a//b",
        "AWS_REGION": "",
        "AWS_ENDPOINT_URL_SQS": "sqs",
    }
    with pytest.raises(ConfigurationError) as caught:
        IngestionEnvironment.read(env)
    problems = list(caught.value.problems)
    for name, value, remedy in [
        ("ENVIRONMENT: ", "'production'", "'dev', 'staging' or 'prod'"),
        ("QUEUE_URL: ", "'dev-ingestion-chunks'", "give the queue's URL"),
        ("DELAY_QUEUE_URL: ", "dev-ingestion-delay'", ".fifo"),
        ("IDEMPOTENCY_TABLE", "is not set", "the name of the table"),
        ("BREAKER_TABLE: ", "'a b'", "pattern"),
        ("CHUNK_SIZE: ", "'many'", "integer"),
        ("SQS_SEND_BATCH_SIZE: ", "'11'", "less than or equal to 10"),
        ("SYMBOLS_SSM_PARAM: ", "'a//b'", "give the parameter's name"),
        ("AWS_REGION", "is not set", "the region"),
        ("AWS_ENDPOINT_URL_SQS: ", "'sqs'", "http or https URL"),
    ]:
        told = [one for one in problems if one.startswith(name) and value in one and remedy in one]
        assert len(told) == 1, (name, problems)
    assert len(problems) == 10


def test_an_empty_environment_names_all_that_is_needed() -> None:
    with pytest.raises(ConfigurationError) as caught:
        IngestionEnvironment.read({})
    named = {problem.partition(" ")[0] for problem in caught.value.problems}
    assert named == {*PRESET} - {"CHUNK_SIZE", "SQS_SEND_BATCH_SIZE"}


def test_each_service_may_have_an_endpoint_of_its_own() -> None:
    env = {**PRESET, "AWS_ENDPOINT_URL": "http://a:1", "AWS_ENDPOINT_URL_SQS": "http://b:2"}
    found = IngestionEnvironment.read(env)
    assert found.aws("sqs")["endpoint_url"] == "http://b:2"
    assert found.aws("dynamodb")["endpoint_url"] == "http://a:1"
    assert found.aws("ssm")["aws_region"] == "eu-central-1"


def read(env: dict[str, str], table: dict[str, object] | None = None) -> TriggerSettings | None:
    problems: list[str] = []
    found = trigger_settings(env, table, problems)
    assert problems == []
    return found


def test_other_settings_read_the_same_names_with_a_prefix() -> None:
    assert read(PRESET) is None
    found = read({"OMS_TRIGGERS_ENVIRONMENT": "dev", "OMS_TRIGGERS_RATE_TABLE": "rates", "QUEUE_URL": "other"})
    assert found is not None
    assert (found.rate_table, found.queue_url, found.config.defaults.symbols) == ("rates", None, DEFAULT_SYMBOLS)


def test_the_environment_goes_before_a_file() -> None:
    table = {
        "rate_table": "of-the-file",
        "breaker_table": "breakers",
        "endpoint_urls": {"ssm": "http://c:3"},
        "config": {"environment": "staging", "options": {"chunk_size": 3, "worker_timeout": 60}, "keep_for": 60},
    }
    env = {
        "OMS_TRIGGERS_RATE_TABLE": "of-env",
        "OMS_TRIGGERS_CHUNK_SIZE": "9",
        "AWS_ENDPOINT_URL_SQS": "http://b:2",
    }
    found = read(env, table)
    assert found is not None
    assert (found.rate_table, found.breaker_table) == ("of-env", "breakers")
    assert found.endpoint_urls == {"ssm": "http://c:3", "sqs": "http://b:2"}
    assert (found.config.environment, found.config.keep_for) == ("staging", 60)
    assert (found.config.options.chunk_size, found.config.options.worker_timeout) == (9, 60)
    assert found.config.defaults.symbols == ()


def test_a_file_names_its_environments_defaults_in_part() -> None:
    found = read({}, {"config": {"defaults": {"domain": "crypto"}}})
    assert found is not None
    assert (found.config.defaults.domain, found.config.defaults.symbols) == ("crypto", DEFAULT_SYMBOLS)


@pytest.mark.parametrize(
    "table",
    [
        {"config": 5},
        {"config": {"defaults": 5}},
        {"config": {"options": 5}},
        {"config": {"environment": ["dev"]}},
        {"endpoint_urls": 5},
        {"endpoint_urls": {"s3": "http://a"}},
        {"queue_ur": "x"},
        {"config": {"optionss": {}}},
    ],
)
def test_what_a_file_has_wrong_is_told(table: dict[str, object]) -> None:
    problems: list[str] = []
    trigger_settings({"AWS_ENDPOINT_URL_SQS": "http://b:2"}, table, problems)
    assert len(problems) == 1, problems
    assert problems[0].startswith(("triggers", "AWS_ENDPOINT_URL_SQS: "))


# ---------------------------------------------------------------------- the pipeline


def test_the_presets_function_is_two_lines_and_needs_nobody_to_be_made(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(create_ingestion_pipeline(PRESET).lambda_handler) as handler:
        # It is rejected before anything is asked of AWS, which is not there.
        answer = handler({"symbols": ["AAPL"], "table_name": "prices-1"}, None)
    assert answer["statusCode"] == 400
    assert json.loads(answer["body"])["problems"][0]["code"] == "INVALID_TABLE_NAME"
    (metric, *_) = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert metric["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Extract/Triggers"


def test_hooks_of_yours_take_the_place_of_cloudwatchs(capsys: pytest.CaptureFixture[str]) -> None:
    details: list[Detail] = []
    with closing(create_ingestion_pipeline(PRESET, hooks=[details.append]).lambda_handler) as handler:
        handler({"table_name": "-"}, None)
    assert [detail.status for detail in details if isinstance(detail, Triggered)] == ["rejected"]
    assert capsys.readouterr().out == ""


async def test_starts_go_on_to_the_event_bus_of_the_environment(oms_aws_emulator: AwsEmulator) -> None:
    aws = {**settings_of(oms_aws_emulator.endpoint_url)}
    name = f"triggers-{uuid.uuid4().hex[:12]}"
    settings = TriggerSettings(**aws, event_bus_name=name, config=TriggerConfig(options={"chunk_size": 2}))
    async with (
        open_control(AwsConfig(**aws), "events") as events,
        open_control(AwsConfig(**aws), "sqs") as sqs,
    ):
        await events.call("CreateEventBus", Name=name)
        url = (await sqs.call("CreateQueue", QueueName=name))["QueueUrl"]
        asked = await sqs.call("GetQueueAttributes", QueueUrl=url, AttributeNames=["QueueArn"])
        pattern = json.dumps({"detail": {"cloudEvents": {"type": ["ingestion.chunk.requested"]}}})
        await events.call("PutRule", Name=name, EventBusName=name, EventPattern=pattern)
        target = {"Id": "queue", "Arn": asked["Attributes"]["QueueArn"]}
        await events.call("PutTargets", Rule=name, EventBusName=name, Targets=[target])

        async with settings.create_pipeline(settings.create_bus_sender()) as pipeline:
            planned = await pipeline.handle({"symbols": ["A", "B", "C"], "dry_run": True})
            assert planned.result["plan"]["event_type"] == "ingestion.chunk.requested"
            response = await pipeline.handle({"symbols": ["A", "B", "C"], "correlation_id": "flow-1"})
        assert (response.status_code, response.result["chunks"]) == (200, 2), response.body
        async with SqsQueue(settings.queue(url)) as queue, asyncio.timeout(10):
            found: list[dict[str, Any]] = []
            while len(found) < 2:
                found += [json.loads(message.body) for message in await queue.receive(wait=5)]
    chunks = sorted(
        (one["detail"]["cloudEvents"] for one in found), key=lambda event: event["data"]["chunk_index"]
    )
    assert [event["data"]["symbols"] for event in chunks] == [["A", "B"], ["C"]]
    assert {event["correlationid"] for event in chunks} == {"flow-1"}


def test_without_a_bus_or_a_queue_nothing_can_be_sent_there() -> None:
    for create, field in [
        (TriggerSettings().create_bus_sender, "event_bus_name"),
        (TriggerSettings().create_chunk_sender, "queue_url"),
    ]:
        with pytest.raises(ConfigurationError, match=f"{field} is missing"):
            create()


# ---------------------------------------------------------------------- from a stream


async def test_received_events_are_handled_dropped_or_come_again() -> None:
    async def handle(start: Start) -> None:
        if start.request.symbols == ("FAIL",):
            raise RuntimeError("no upstream")
        if start.request.symbols == ("NEVER",):
            raise StartRefusedError("NOT_LISTED", "take it out")

    pipeline = TriggerPipeline(handle)
    events = [
        encode(build_event("symbol.universe.updated", "symbol.universe", {"added_symbols": symbols}))
        for symbols in (["AAPL"], ["FAIL"], ["NEVER"], "AAPL")
    ]
    done, failed, refused, broken = await received_starts_handler(pipeline)(events)
    assert done is None
    assert isinstance(failed, TriggerFailedError)
    assert isinstance(broken, EventRejectedError)
    assert "added_symbols" in str(broken)
    # Nobody keeps it: whoever listens to what is dropped hears of it.
    assert isinstance(refused, EventRejectedError)
    keeping = TriggerPipeline(handle, dead_letters=MemoryDeadLetters())
    assert await received_starts_handler(keeping)(events[2:3]) == [None]
