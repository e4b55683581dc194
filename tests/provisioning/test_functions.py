from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from oms_events.errors import SpecError
from oms_events.provisioning.specs.base import Grant
from oms_events.provisioning.specs.buckets import BucketSpec
from oms_events.provisioning.specs.functions import CodeSpec, FunctionSpec
from oms_events.provisioning.specs.keys import KeySpec
from oms_events.provisioning.specs.logs import LogGroupSpec
from oms_events.provisioning.specs.mappings import StreamSourceSpec
from oms_events.provisioning.specs.queues import QueueSpec
from oms_events.provisioning.specs.rules import RuleSpec
from oms_events.provisioning.specs.stack import StackSpec
from oms_events.provisioning.specs.targets import TargetSpec
from oms_events.provisioning.synthesis import synthesize
from tests.provisioning.linting import findings

LAYER = "arn:aws:lambda:us-east-1:123456789012:layer:tools:3"
ROLE = "arn:aws:iam::123456789012:role/handler"
TABLE = "arn:aws:dynamodb:us-east-1:123456789012:table/orders"
STREAM = f"{TABLE}/stream/2026-01-31T00:00:00.000"
QUEUE = "arn:aws:sqs:us-east-1:123456789012:orders"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/handler:1"
INLINE = CodeSpec(inline="def handler(event, context):\n    return event")


def function(**values: Any) -> FunctionSpec:
    return FunctionSpec(**({"name": "handler", "handler": "index.handler", "role": ROLE, "code": INLINE} | values))


def resources(*functions: FunctionSpec, **values: Any) -> Mapping[str, Any]:
    return synthesize(StackSpec(name="orders", functions=functions, **values)).resources


queue = QueueSpec(name="work", visibility_timeout=300)
dead_letters = QueueSpec(name="dead-letters")
group = LogGroupSpec(name="/orders/handlers", retention_days=7)
key = KeySpec(name="orders")


def test_aws_takes_functions_with_all_options() -> None:
    whole = function(
        name="whole",
        description="Handles orders",
        code=CodeSpec(s3_bucket="code", s3_key="handler-1.zip", s3_object_version="7"),
        handler="orders.handle",
        timeout=45,
        memory=512,
        ephemeral_storage=1024,
        environment={
            "QUEUE_URL": queue.reference("url"),
            "HOME_REGION": "${AWS::Region}",
            "FORMAT": "${not a variable}",
        },
        reserved_concurrency=1,
        tracing=True,
        architecture="arm64",
        layers=("arn:aws:lambda:us-east-1:123456789012:layer:tools:3",),
        kms_key=key.arn,
        log_group=group.reference("name"),
        dead_letter=dead_letters.arn,
        maximum_retry_attempts=0,
        maximum_event_age_in_seconds=300,
        sources=(
            StreamSourceSpec(
                source=STREAM,
                batch_size=500,
                batching_window_seconds=2,
                starting_position="LATEST",
                maximum_retry_attempts=3,
                maximum_record_age_in_seconds=3600,
                bisect_on_error=True,
                parallelization_factor=4,
                on_failure=dead_letters.arn,
                filters=({"eventName": ["INSERT"]},),
            ),
            StreamSourceSpec(source=queue.arn, maximum_concurrency=2),
        ),
    )
    image = function(name="image", handler=None, code=CodeSpec(image_uri=IMAGE))
    shared = function(name="shared", handler="app.handle", code=CodeSpec(image_uri=IMAGE))
    stack = StackSpec(
        name="orders",
        functions=(whole, image, shared, function()),
        queues=(queue, dead_letters),
        log_groups=(group,),
        keys=(key,),
        rules=(
            RuleSpec(
                name="placed",
                pattern={"source": ["shop"]},
                targets=(TargetSpec(id="handler", arn=function().arn),),
            ),
        ),
    )
    assert findings(synthesize(stack)) == []


def test_a_function_writes_to_a_log_group_of_the_stack_that_does_not_grow_for_ever() -> None:
    made = resources(function(log_retention_days=14))
    logging = made["FunctionHandler"]["Properties"]["LoggingConfig"]
    group_id = logging["LogGroup"]["Ref"]
    assert made[group_id]["Properties"] == {"LogGroupName": "/aws/lambda/handler", "RetentionInDays": 14}


def test_a_function_with_a_log_group_of_yours_gets_no_other() -> None:
    made = resources(function(log_group=group.reference("name")), log_groups=(group,))
    assert [entry["Type"] for entry in made.values()].count("AWS::Logs::LogGroup") == 1
    assert made["FunctionHandler"]["Properties"]["LoggingConfig"] == {"LogGroup": {"Ref": group.logical_id}}


def test_the_arn_for_the_roles_log_statements_is_that_of_the_log_group() -> None:
    own = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:/aws/lambda/handler:*"
    assert function().log_arn == own
    assert function(log_group=group.reference("name")).log_arn == group.arn


def test_a_stream_is_read_with_partial_batch_answers_from_its_oldest_record() -> None:
    made = resources(function(sources=(StreamSourceSpec(source=STREAM),)))
    [mapping] = [entry["Properties"] for entry in made.values() if entry["Type"].endswith("EventSourceMapping")]
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["StartingPosition"] == "TRIM_HORIZON"
    assert mapping["EventSourceArn"] == STREAM


def test_a_queue_has_no_settings_of_streams() -> None:
    made = resources(function(sources=(StreamSourceSpec(source=queue.arn),)), queues=(queue,))
    [mapping] = [entry["Properties"] for entry in made.values() if entry["Type"].endswith("EventSourceMapping")]
    assert set(mapping) == {"FunctionName", "EventSourceArn", "Enabled", "FunctionResponseTypes"}


def test_what_failed_for_good_goes_to_the_dead_letters() -> None:
    made = resources(function(dead_letter=QUEUE, maximum_retry_attempts=0))
    [settings] = [entry["Properties"] for entry in made.values() if entry["Type"].endswith("EventInvokeConfig")]
    assert settings["DestinationConfig"] == {"OnFailure": {"Destination": QUEUE}}
    assert settings["MaximumRetryAttempts"] == 0


def test_each_rule_may_invoke_the_function_for_itself_alone() -> None:
    rules = tuple(
        RuleSpec(name=name, pattern={"source": ["shop"]}, targets=(TargetSpec(id="handler", arn=function().arn),))
        for name in ("first", "second")
    )
    made = resources(function(), rules=rules)
    found = {name: entry["Properties"] for name, entry in made.items() if entry["Type"].endswith("Permission")}
    assert found == {
        f"FunctionHandlerAllow{rule.logical_id}": {
            "Action": "lambda:InvokeFunction",
            "FunctionName": {"Fn::GetAtt": ["FunctionHandler", "Arn"]},
            "Principal": "events.amazonaws.com",
            "SourceArn": {"Fn::GetAtt": [rule.logical_id, "Arn"]},
        }
        for rule in rules
    }


@pytest.mark.parametrize(
    "source",
    [
        "arn:aws:events:us-east-1:123456789012:rule/*",
        {"Fn::Sub": "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:rule/*"},
    ],
)
def test_nobody_may_invoke_it_for_a_wildcard(source: Any) -> None:
    grant = Grant(
        to=function().arn, principal="events.amazonaws.com", actions=("lambda:InvokeFunction",), source=source
    )
    with pytest.raises(SpecError, match="name one resource"):
        function().granted([grant], scope=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "a" * 65}, "1 to 64"),
        ({"handler": None}, "handler is missing"),
        ({"handler": "app.handler"}, "module index"),
        ({"runtime": "python2.7"}, "no such runtime"),
        ({"runtime": "provided.al2023"}, "Python and Node"),
        ({"runtime": "python3.6"}, "no such runtime"),
        ({"runtime": "nodejs16.x"}, "no such runtime"),
        ({"runtime": "java8"}, "no such runtime"),
        ({"code": CodeSpec(image_uri=IMAGE), "layers": (LAYER,)}, "not for an image"),
        ({"log_group": group.arn}, "is no name of a log_group"),
        ({"dead_letter": key.arn}, "'key:orders' is no queue or topic"),
        ({"dead_letter": TABLE}, "is no queue or topic"),
        ({"role": QUEUE}, "is no role"),
        ({"kms_key": queue.arn}, "is no key"),
        ({"timeout": 901}, "timeout = 901"),
        ({"memory": 64}, "memory = 64"),
        ({"ephemeral_storage": 256}, "ephemeral_storage = 256"),
        ({"environment": {"AWS_REGION": "us-east-1"}}, "set by Lambda itself"),
        ({"environment": {"1ST": "x"}}, "a letter"),
        ({"environment": {"LONG": "x" * 4093}}, "4097 bytes"),
        ({"environment": {"UMLAUT": "ä" * 2046}}, "4098 bytes"),
        ({"maximum_retry_attempts": 3}, "maximum_retry_attempts = 3"),
        ({"maximum_event_age_in_seconds": 59}, "maximum_event_age_in_seconds = 59"),
        ({"log_retention_days": 42}, "3653 days"),
        ({"log_retention_days": 7, "log_group": "/orders"}, "retention_days of log_group"),
        ({"layers": ("arn:aws:lambda:us-east-1:123456789012:layer:tools",)}, "no layer version"),
        ({"sources": (StreamSourceSpec(source=QUEUE), StreamSourceSpec(source=QUEUE))}, "reads a source once"),
        ({"sources": (StreamSourceSpec(source=QUEUE),), "reserved_concurrency": 0}, "wait for ever"),
        ({"role": "handler"}, "is no ARN"),
    ],
)
def test_a_function_that_lambda_refuses_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        function(**values)


def test_values_at_the_limits_pass() -> None:
    function(name="a" * 64, timeout=900, memory=10_240, ephemeral_storage=10_240, environment={"LONG": "x" * 4092})
    function(environment={"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrap"}, maximum_event_age_in_seconds=21_600)


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        FunctionSpec(name="?", role="nobody", code={"inline": "x", "image_uri": "y"}, timeout=0)  # type: ignore[arg-type]
    fields = [problem.split(maxsplit=1)[0].rstrip(":") for problem in caught.value.problems]
    assert set(fields) == {"name", "role", "code", "timeout"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "exactly one"),
        ({"inline": "x", "s3_bucket": "b", "s3_key": "k"}, "exactly one"),
        ({"s3_bucket": "b"}, "go together"),
        ({"s3_bucket": BucketSpec(key="b").arn, "s3_key": "k"}, "is no name of a bucket"),
        ({"s3_key": "k", "s3_object_version": "1"}, "go together"),
        ({"image_uri": "handler:1"}, "dkr.ecr"),
        ({"inline": "x" * (4 * 1024 * 1024 + 1)}, "into S3"),
    ],
)
def test_code_stands_in_exactly_one_place(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        CodeSpec(**values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"source": TABLE}, "stream's ARN"),
        ({"source": "arn:aws:sns:us-east-1:123456789012:t"}, "others invoke it"),
        ({"source": QueueSpec(name="q").reference("url")}, "use the attribute 'arn'"),
        ({"source": key.arn}, "queue's `arn`"),
        ({"source": STREAM, "batch_size": 10_001}, "batch_size = 10001"),
        ({"source": STREAM, "batching_window_seconds": 301}, "batching_window_seconds = 301"),
        ({"source": STREAM, "maximum_record_age_in_seconds": 59}, "at least 60"),
        ({"source": STREAM, "parallelization_factor": 11}, "parallelization_factor = 11"),
        ({"source": STREAM, "maximum_concurrency": 2}, "is for queues"),
        ({"source": STREAM, "on_failure": ROLE}, "is no queue or topic or bucket"),
        ({"source": STREAM, "filters": ({"eventName": "INSERT"},)}, r"write \['INSERT'\]"),
        ({"source": STREAM, "filters": ({"eventName": [{"perfix": "I"}]},)}, "perfix"),
        ({"source": STREAM, "filters": ({"eventName": ["x" * 4096]},)}, "at most 4096"),
        ({"source": STREAM, "filters": ({"eventName": ["x"]},) * 11}, "at most 10"),
        ({"source": QUEUE, "batch_size": 11}, "batching_window_seconds of at least 1"),
        ({"source": f"{QUEUE}.fifo", "batch_size": 11, "batching_window_seconds": 1}, "FIFO queue"),
        (
            {"source": QUEUE, "maximum_retry_attempts": 0, "bisect_on_error": False},
            "retry_attempts, bisect_on_error",
        ),
        ({"source": QUEUE, "on_failure": QUEUE}, "on_failure: not for a queue"),
    ],
)
def test_a_source_that_lambda_refuses_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        StreamSourceSpec(**values)


def test_a_queue_may_have_large_batches_when_it_may_wait_for_them() -> None:
    StreamSourceSpec(source=QUEUE, batch_size=10_000, batching_window_seconds=1)


def test_functions_share_an_image_by_their_handlers() -> None:
    code = CodeSpec(image_uri=IMAGE)
    made = resources(function(name="plain", handler=None, code=code), function(handler="app.handle", code=code))
    assert "ImageConfig" not in made["FunctionPlain"]["Properties"]
    assert made["FunctionHandler"]["Properties"]["ImageConfig"] == {"Command": ["app.handle"]}
    assert "Handler" not in made["FunctionHandler"]["Properties"]


def test_problems_of_sources_stand_in_the_order_of_the_sources() -> None:
    sources = [StreamSourceSpec(source=f"{QUEUE}{at}") for at in range(9)]
    with pytest.raises(SpecError) as caught:
        function(sources=(*sources, *sources))
    assert re.findall(r"(\w+) stands twice", str(caught.value)) == [f"Orders{at}" for at in range(9)]
