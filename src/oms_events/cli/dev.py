"""`oms-events dev up`."""

from __future__ import annotations

import asyncio
import json
import shlex
from typing import Any, Final

import click

from oms_events._nats.config import NatsConfig
from oms_events.cli.common import ends_cleanly, run
from oms_events.cli.output import print_json, tell
from oms_events.devstack import AwsEmulator, DevStack, DevstackError, NatsServer
from oms_events.publishers.jetstream.config import JetStreamOptions, StreamPolicy, StreamSpec

BUS: Final = "oms-events"
QUEUE: Final = "oms-events-all"
STREAM: Final = "OMS"

_WATCH_INTERVAL: Final = 0.5

_PORT = click.IntRange(1, 65_535)


@click.command()
@click.option("--nats-port", type=_PORT, metavar="PORT", help="The port of NATS.  [default: a free one]")
@click.option("--aws-port", type=_PORT, metavar="PORT", help="The port of the emulator.  [default: a free one]")
@click.option(
    "--subject", "subjects", multiple=True, default=("oms.>",), show_default=True, metavar="SUBJECT",
    help="What the stream takes; may be given several times.",
)  # fmt: skip
@ends_cleanly
def up(*, nats_port: int | None, aws_port: int | None, subjects: tuple[str, ...], as_json: bool) -> None:
    """Run NATS and an AWS emulator on loopback until Ctrl-C, and print the settings to export.

    Makes the stream OMS, the event bus oms-events, and a queue that gets all its events. Everything
    ends, and is forgotten, with the command; a stop by Ctrl-C or SIGTERM once all is up is its normal end (0).
    """
    stack = DevStack(nats=NatsServer(port=nats_port), aws=AwsEmulator(port=aws_port, notify=tell), bus_name=BUS)
    stream = StreamSpec(name=STREAM, subjects=subjects)
    run(_keep_up(stack, stream, as_json=as_json))


async def _keep_up(stack: DevStack, stream: StreamSpec, *, as_json: bool) -> None:
    # First, so that a missing extra is told before anything is started.
    from oms_events._aws.config import AwsConfig
    from oms_events._aws.session import open_client
    from oms_events.publishers.jetstream.publisher import JetStreamPublisher

    async with stack:
        options = JetStreamOptions(stream=stream, policy=StreamPolicy.CREATE)
        async with JetStreamPublisher(NatsConfig(servers=(stack.nats.url,)), options=options):
            pass
        keys = {"aws_access_key_id": stack.aws.access_key, "aws_secret_access_key": stack.aws.secret_key}
        config = AwsConfig(aws_region=stack.aws.region, endpoint_url=stack.endpoint_url, **keys)
        events = await open_client(config, "events", connections=1, direct=False)
        sqs = await open_client(config, "sqs", connections=1, direct=False)
        try:
            queue_url = await _make_bus(events, sqs)
        finally:
            await sqs.close()
            await events.close()
        _announce(stack, queue_url, as_json=as_json)
        try:
            await _watch(stack)
        except asyncio.CancelledError:
            tell("Stopping ...")


async def _make_bus(events: Any, sqs: Any) -> str:
    """The bus, and the address of the queue that gets all its events."""
    await events.call("CreateEventBus", {"Name": BUS})
    queue_url: str = (await sqs.call("CreateQueue", {"QueueName": QUEUE}))["QueueUrl"]
    answer = await sqs.call("GetQueueAttributes", {"QueueUrl": queue_url, "AttributeNames": ["QueueArn"]})
    queue_arn = answer["Attributes"]["QueueArn"]
    pattern = json.dumps({"source": [{"prefix": ""}]})
    rule = await events.call("PutRule", {"Name": QUEUE, "EventBusName": BUS, "EventPattern": pattern})
    # The emulator delivers without it, but AWS would not, and `infra check` says so.
    policy = json.dumps(_policy(queue_arn, rule["RuleArn"]))
    await sqs.call("SetQueueAttributes", {"QueueUrl": queue_url, "Attributes": {"Policy": policy}})
    target = {"Id": QUEUE, "Arn": queue_arn}
    await events.call("PutTargets", {"Rule": QUEUE, "EventBusName": BUS, "Targets": [target]})
    return queue_url


def _policy(queue_arn: str, rule_arn: str) -> dict[str, Any]:
    """The queue's policy: it takes events of the rule, and of no other."""
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": rule_arn}},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def _announce(stack: DevStack, queue_url: str, *, as_json: bool) -> None:
    settings = stack.environment()
    if as_json:
        print_json(
            {
                "environment": settings,
                "nats_url": stack.nats.url,
                "aws_endpoint_url": stack.endpoint_url,
                "stream": STREAM,
                "event_bus_name": BUS,
                "queue_url": queue_url,
            }
        )
    else:
        for name, value in settings.items():
            click.echo(f"export {name}={shlex.quote(value)}")
    tell(
        f"The stack is up: stream {STREAM} on NATS, bus {BUS} on the AWS emulator; all events of the bus go "
        f"to the queue {queue_url}. Ctrl-C stops it."
    )


async def _watch(stack: DevStack) -> None:
    """Waits for ever, or until a server has ended by itself."""
    while True:
        for name, server in (("NATS", stack.nats), ("the AWS emulator", stack.aws)):
            if not server.running:
                last = server.output[-1] if server.output else "it wrote nothing"
                raise DevstackError(f"{name} has ended by itself; its last words: {last}")
        await asyncio.sleep(_WATCH_INTERVAL)
