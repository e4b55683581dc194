from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from oms_events.errors import SpecError
from oms_events.provisioning.specs.buses import EventBusSpec
from oms_events.provisioning.specs.functions import FunctionSpec
from oms_events.provisioning.specs.logs import LogGroupSpec
from oms_events.provisioning.specs.mappings import StreamSourceSpec
from oms_events.provisioning.specs.queues import QueueSpec
from oms_events.provisioning.specs.rules import RuleSpec
from oms_events.provisioning.specs.stack import StackSpec
from oms_events.provisioning.specs.targets import TargetSpec
from oms_events.provisioning.specs.topics import SubscriptionSpec, TopicSpec

ROLE = "arn:aws:iam::123456789012:role/handler"
STREAM = "arn:aws:dynamodb:us-east-1:123456789012:table/orders/stream/1"
FIFO_ARN = "arn:aws:sqs:us-east-1:123456789012:late.fifo"

plain = QueueSpec(name="plain")
fifo = QueueSpec(name="late.fifo", key="late", fifo=True, content_based_deduplication=True)


def function(**values: Any) -> FunctionSpec:
    given = {"name": "work", "code": {"inline": "x"}, "handler": "index.handle", "role": ROLE} | values
    return FunctionSpec(**given)


def rule(**target: Any) -> RuleSpec:
    values = {"id": "t", "arn": plain.arn} | target
    return RuleSpec(name="placed", pattern={"source": ["shop"]}, targets=(TargetSpec(**values),))


def topic(**subscription: Any) -> TopicSpec:
    values = {"protocol": "sqs", "endpoint": plain.arn} | subscription
    return TopicSpec(name="news", subscriptions=(SubscriptionSpec(**values),))


def reading(**source: Any) -> FunctionSpec:
    return function(sources=(StreamSourceSpec(**source),))


@pytest.mark.parametrize(
    "values",
    [
        {"buses": (EventBusSpec(name="orders", dead_letter=fifo.arn),)},
        {"rules": (rule(dead_letter=fifo.arn),)},
        {"rules": (rule(dead_letter=FIFO_ARN),)},
        {"functions": (function(dead_letter=fifo.arn),)},
        {"functions": (function(dead_letter="arn:aws:sns:us-east-1:123456789012:late.fifo"),)},
        {"functions": (reading(source=STREAM, on_failure=fifo.arn),)},
        {"topics": (topic(endpoint=fifo.arn),)},
        {"topics": (topic(endpoint=FIFO_ARN),)},
        {"topics": (topic(dead_letter=fifo.arn),)},
    ],
)
def test_a_fifo_queue_is_refused_where_aws_takes_standard_ones(values: Mapping[str, Any]) -> None:
    with pytest.raises(SpecError, match="is FIFO, and AWS takes standard queues and topics only"):
        StackSpec(name="orders", queues=(plain, fifo), **values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rules": (rule(arn=fifo.arn),)}, "message_group_id is missing"),
        (
            {
                "queues": (plain, fifo.model_copy(update={"content_based_deduplication": False})),
                "rules": (rule(arn=fifo.arn, message_group_id="g"),),
            },
            "set content_based_deduplication of queue 'late'",
        ),
        ({"rules": (rule(message_group_id="g"),)}, "message_group_id is for FIFO queues"),
        (
            {"queues": (plain, fifo.model_copy(update={"dead_letter": plain.arn}))},
            "FIFO exactly when the queue is",
        ),
        (
            {"functions": (reading(source=fifo.arn, batch_size=11, batching_window_seconds=1),)},
            "batches of at most 10",
        ),
        ({"functions": (reading(source=fifo.arn, batching_window_seconds=1),)}, "no batching window"),
        (
            {"functions": (reading(source=plain.arn).model_copy(update={"timeout": 31}),)},
            "timeout = 31 is above visibility_timeout = 30 of the queue 'plain'",
        ),
        ({"functions": (function(dead_letter=function().arn),)}, "dead_letter is the function itself"),
        (
            {"functions": (function(),), "log_groups": (LogGroupSpec(name="/aws/lambda/work"),)},
            "give the function its name as log_group",
        ),
    ],
)
def test_specs_that_aws_would_refuse_together_are_refused(values: Mapping[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as raised:
        StackSpec(**({"name": "orders", "queues": (plain, fifo)} | values))
    assert said in str(raised.value)


def test_specs_that_go_together_pass() -> None:
    group = LogGroupSpec(name="/aws/lambda/work")
    first = reading(source=fifo.arn, batch_size=10).model_copy(update={"log_group": group.reference("name")})
    StackSpec(
        name="orders",
        queues=(plain, fifo),
        log_groups=(group,),
        functions=(first, function(name="other", timeout=31, dead_letter=first.arn)),
        rules=(rule(arn=fifo.arn, message_group_id="g", dead_letter=plain.arn),),
        topics=(topic(dead_letter=plain.arn),),
    )
