"""What EventBridge hands events to: is it there, and may EventBridge use it."""

from __future__ import annotations

import pytest

from oms_events.devstack import AwsEmulator
from oms_events.provisioning.checks.report import Level
from tests.provisioning.checks.altered import Alter, altered, saying
from tests.provisioning.checks.broken import (
    NOT_CHECKED,
    PROBLEM,
    WARNING,
    Broken,
    assert_exactly,
    assert_told,
    both,
    broken,
    delete_queue,
    on,
    target,
)
from tests.provisioning.checks.checked import ACCOUNT, NO_TLS, PATTERNS, World, Worlds, allowing, at, policy


async def send_to_dead(world: World) -> None:
    await world.clients["sqs"].send_message(QueueUrl=await world.url("dead"), MessageBody="lost")


DEFAULT_TOPIC_POLICY = {
    "Effect": "Allow",
    "Principal": {"AWS": "*"},
    "Action": ["SNS:Publish", "SNS:Subscribe"],
    "Resource": "*",
    "Condition": {"StringEquals": {"AWS:SourceOwner": ACCOUNT}},
}


async def send_to_fifo(world: World, *, deduplication: str) -> None:
    await make_fifo(world, "orders", deduplication)
    await world.put_target("orders", world.queue("orders.fifo"), SqsParameters={"MessageGroupId": "a"})


async def make_fifo(world: World, name: str, deduplication: str) -> None:
    attributes = {"FifoQueue": "true", "ContentBasedDeduplication": deduplication}
    await world.clients["sqs"].create_queue(QueueName=f"{world.name}-{name}.fifo", Attributes=attributes)
    await world.allow_queue(f"{name}.fifo", *PATTERNS)


async def publish_to_fifo(world: World) -> None:
    sns, topic = world.clients["sns"], world.arn("sns", f"{world.name}.fifo")
    await sns.create_topic(Name=f"{world.name}.fifo", Attributes={"FifoTopic": "true"})
    await make_fifo(world, "subscribed", "true")
    await sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=world.queue("subscribed.fifo"))
    allowed = policy(allowing("sns:Publish", topic, world.rule("schema")))
    await sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=allowed)
    await world.put_target("schema", topic)


async def unsubscribe(world: World) -> None:
    sns = world.clients["sns"]
    listed = await sns.list_subscriptions_by_topic(TopicArn=world.arn("sns", world.name))
    for one in listed["Subscriptions"]:
        await sns.unsubscribe(SubscriptionArn=one["SubscriptionArn"])


BROKEN = [
    broken(
        "a queue that does not exist",
        lambda world: delete_queue(world, "orders"),
        ("targets", "sqs {}-orders", PROBLEM, "does not exist"),
    ),
    broken(
        "a queue whose policy allows another rule",
        lambda world: world.set_queue(
            "orders", Policy=policy(allowing("sqs:SendMessage", world.queue("orders"), world.rule("schema")))
        ),
        ("targets", "sqs {}-orders", PROBLEM, "does not let EventBridge use it for rule orders"),
    ),
    broken(
        "a queue whose policy only AWS can decide",
        lambda world: world.set_queue(
            "orders",
            Policy=policy(
                allowing(
                    "sqs:SendMessage", "*", world.rule("*"), Condition={"StringEquals": {"aws:SourceOrgID": "o"}}
                )
            ),
        ),
        ("targets", "sqs {}-orders", NOT_CHECKED, "conditions that only AWS can decide, for rule orders"),
    ),
    broken(
        "a queue with a key of AWS",
        lambda world: world.set_queue("orders", KmsMasterKeyId="alias/aws/sqs"),
        ("targets", "sqs {}-orders", PROBLEM, "alias/aws/sqs"),
    ),
    broken(
        "dead letters that wait",
        send_to_dead,
        ("dead letters", "sqs {}-dead", WARNING, "messages: 1"),
    ),
    broken(
        "a dead-letter queue whose policy allows nobody",
        lambda world: world.set_queue("dead", Policy=policy(NO_TLS)),
        ("dead letters", "sqs {}-dead", PROBLEM, "rule logged, rule orders, rule schema and 1 more"),
    ),
    broken(
        "a topic that does not exist",
        on("sns", "delete_topic", TopicArn=f"arn:aws:sns:us-east-1:{ACCOUNT}:{{}}"),
        ("targets", "sns {}", PROBLEM, "does not exist"),
    ),
    broken(
        "a topic with the policy that SNS gives it",
        lambda world: world.set_topic(policy(DEFAULT_TOPIC_POLICY)),
        ("targets", "sns {}", PROBLEM, "allow sns:Publish"),
    ),
    broken(
        "a function that does not exist",
        target("system", lambda world: world.arn("lambda", "function:other")),
        ("targets", "lambda other", PROBLEM, "does not exist"),
    ),
    broken(
        "a function without permission",
        on("lambda", "remove_permission", FunctionName="handler", StatementId="{}"),
        ("targets", "lambda handler", PROBLEM, "allow lambda:InvokeFunction to events.amazonaws.com"),
    ),
    broken(
        "a log group that does not exist",
        on("logs", "delete_log_group", logGroupName="/aws/events/{}"),
        ("targets", "logs /aws/events/{}", PROBLEM, "does not exist"),
    ),
    broken(
        "a target of another kind",
        target("orders", lambda world: world.arn("states", "stateMachine:orders")),
        ("targets", "states stateMachine:orders", NOT_CHECKED, "service states"),
    ),
    broken(
        "a FIFO queue that wants deduplication ids",
        lambda world: send_to_fifo(world, deduplication="false"),
        ("targets", "sqs {}-orders.fifo", PROBLEM, "without content-based deduplication"),
    ),
    broken("a FIFO queue that makes deduplication ids", lambda world: send_to_fifo(world, deduplication="true")),
    broken(
        "a FIFO queue for dead letters",
        both(
            lambda world: make_fifo(world, "dead", "true"),
            target("orders", lambda world: world.queue("orders"), dead="dead.fifo"),
        ),
        ("dead letters", "sqs {}-dead.fifo", PROBLEM, "does not use for dead letters, of rule orders"),
    ),
    broken("a FIFO topic", publish_to_fifo, ("targets", "sns {}.fifo", PROBLEM, "does not publish to")),
    broken("a topic without subscribers", unsubscribe, ("targets", "sns {}", WARNING, "no confirmed")),
    broken(
        "a queue of another Region",
        target("orders", lambda world: world.queue("orders").replace("us-east-1", "eu-west-1")),
        (
            "targets",
            "sqs {}-orders",
            PROBLEM,
            "is in eu-west-1, where EventBridge does not reach it for rule o",
        ),
    ),
    broken(
        "a function that may not run",
        both(
            on("lambda", "put_function_concurrency", FunctionName="idle", ReservedConcurrentExecutions=0),
            target("system", lambda world: world.function.replace("handler", "idle")),
        ),
        ("targets", "lambda idle", PROBLEM, "its reserved concurrency is 0"),
    ),
]


@pytest.mark.parametrize("case", BROKEN)
async def test_of_one_broken_thing_exactly_that_is_told(worlds: Worlds, case: Broken) -> None:
    await assert_told(worlds, case)


@pytest.mark.parametrize(
    ("alter", "expected"),
    [
        (saying('"Active"', '"Failed"'), (PROBLEM, "State is Failed")),
        (saying('"Active"', '"Pending"'), (WARNING, "wait until it is Active")),
        (saying('"Active"', '"Inactive"'), (WARNING, "call it once")),
        (saying('"Successful"', '"Failed"'), (PROBLEM, "LastUpdateStatus is Failed")),
    ],
)
async def test_functions_in_states_that_the_emulator_never_has(
    bus_world: World, emulator: AwsEmulator, alter: Alter, expected: tuple[Level, str]
) -> None:
    async with altered(emulator.endpoint_url, "/configuration", alter) as url:
        report = await bus_world.check(aws=at(url))
    assert_exactly(report, [("targets", "lambda handler", *expected)], bus_world.name)
