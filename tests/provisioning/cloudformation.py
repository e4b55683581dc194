"""A CloudFormation that answers what a test has written down, over its own protocol (Query, XML) on loopback.

The answers have the shapes of the API reference, and the texts that CloudFormation is known to give; the emulator
cannot be brought to give most of them.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

import aioboto3
import pytest

from oms_events._aio import cancel_and_wait
from oms_events._aws.config import AwsConfig
from oms_events.errors import ProvisioningError
from oms_events.provisioning.deployment.changes import Plan
from oms_events.provisioning.template import Template
from oms_events.testing.clock import ManualClock

T = TypeVar("T")

STACK = "orders"
STACK_ID = "arn:aws:cloudformation:eu-west-1:123456789012:stack/orders/6a5b4c3d-0000-1111-2222-333344445555"
CHANGE_SET_ID = "arn:aws:cloudformation:eu-west-1:123456789012:changeSet/oms-events-1/0f0e0d0c-aaaa-bbbb"
OURS = "ours"
"""The token of whatever was called last with one; no token before that."""
NO_CHANGES = (
    "The submitted information didn't contain changes. Submit different information to create a change set."
)


@dataclass(frozen=True)
class Refusal:
    """An error as AWS answers it."""

    code: str
    message: str = "no"
    status: int = 400

    @property
    def body(self) -> str:
        return (
            f"<ErrorResponse {_XMLNS}><Error><Type>Sender</Type><Code>{self.code}</Code>"
            f"<Message>{escape(self.message)}</Message></Error><RequestId>r-1</RequestId></ErrorResponse>"
        )


Answer = Refusal | Mapping[str, Any]
LOST = Refusal("InternalFailure", "", 500)
MISSING = Refusal("ValidationError", f"Stack with id {STACK} does not exist")
THROTTLED = Refusal("Throttling", "Rate exceeded")
EXPIRED = Refusal("ExpiredToken", "The security token included in the request is expired", 403)

_XMLNS = 'xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"'


@dataclass
class CloudFormation:
    """Gives each operation's answers in their order, the last one again and again; `calls` are what was asked."""

    url: str = ""
    calls: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    _answers: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))

    @property
    def here(self) -> dict[str, Any]:
        """What leads calls here. All tests share a session, which reads botocore's models once."""
        return {"config": AwsConfig(aws_region="eu-west-1", endpoint_url=self.url), "session": _session()}

    def answer(self, operation: str, *answers: Answer) -> None:
        self._answers[operation] = list(answers)

    def asked(self, operation: str) -> list[dict[str, str]]:
        return [parameters for name, parameters in self.calls if name == operation]

    @property
    def changes(self) -> list[str]:
        """The operations that change something, in the order in which they were called."""
        return [name for name, _ in self.calls if not name.startswith(("Describe", "Get", "List"))]

    def _respond(self, parameters: dict[str, str]) -> tuple[int, str]:
        operation = parameters.pop("Action")
        self.calls.append((operation, parameters))
        answers = self._answers.get(operation)
        if not answers:
            return 500, Refusal("Unscripted", f"the test has no answer for {operation}", 500).body
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Refusal):
            return answer.status, answer.body
        result = f"<{operation}Result>{self._with_token(_xml(answer))}</{operation}Result>"
        return 200, f"<{operation}Response {_XMLNS}>{result}</{operation}Response>"

    def _with_token(self, text: str) -> str:
        tokens = [parameters.get("ClientRequestToken", "") for _, parameters in self.calls]
        token = next(filter(None, reversed(tokens)), "")
        ours = f"<ClientRequestToken>{token}</ClientRequestToken>" if token else ""
        return text.replace(f"<ClientRequestToken>{OURS}</ClientRequestToken>", ours)


@contextmanager
def serving() -> Iterator[CloudFormation]:
    """Answers until the end of the block."""
    scripted = CloudFormation()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            status, text = scripted._respond(dict(parse_qsl(body, keep_blank_values=True)))
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    scripted.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield scripted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def stack(status: str, **more: Any) -> Answer:
    """What DescribeStacks says of one stack."""
    one = {"StackName": STACK, "StackId": STACK_ID, "CreationTime": "2026-01-01T00:00:00Z", "StackStatus": status}
    return {"Stacks": [{**one, **more}]}


def change_set(status: str = "CREATE_COMPLETE", changes: Sequence[Mapping[str, Any]] = (), **more: Any) -> Answer:
    """What DescribeChangeSet says."""
    said = {"ChangeSetId": CHANGE_SET_ID, "StackId": STACK_ID, "StackName": STACK, "Status": status}
    return {**said, "Changes": [{"Type": "Resource", "ResourceChange": change} for change in changes], **more}


def event(
    number: int, status: str, resource: str = STACK, reason: str = "", *, token: str = "", **more: str
) -> dict[str, str]:
    """One of the events of DescribeStackEvents; of the stack itself unless another resource is named.

    It is of the operation that the code under test began, but for event 0, which is of an earlier one.
    """
    of_stack = resource == STACK
    return {
        "StackId": STACK_ID,
        "StackName": STACK,
        "EventId": f"event-{number}",
        "LogicalResourceId": resource,
        "PhysicalResourceId": STACK_ID if of_stack else resource.lower(),
        "ResourceType": "AWS::CloudFormation::Stack" if of_stack else "AWS::SQS::Queue",
        "Timestamp": f"2026-01-01T00:00:{number:02}Z",
        "ResourceStatus": status,
        "ClientRequestToken": token or (OURS if number else "earlier"),
        **({"ResourceStatusReason": reason} if reason else {}),
        **more,
    }


def events(*oldest_first: Mapping[str, str], **more: str) -> Answer:
    """A page of DescribeStackEvents, which gives the newest first."""
    return {"StackEvents": oldest_first[::-1], **more}


TEMPLATE = Template(STACK, {"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}}, tags={"team": "oms"})
QUEUE = {"Action": "Add", "LogicalResourceId": "Queue", "ResourceType": "AWS::SQS::Queue"}
TABLE = {"Action": "Remove", "LogicalResourceId": "Table", "ResourceType": "AWS::DynamoDB::Table"}
PLAN = Plan(stack_name=STACK, stack_id=STACK_ID, change_set_id=CHANGE_SET_ID)
BEFORE = events(event(0, "CREATE_COMPLETE"))


async def through(clock: ManualClock, work: Awaitable[T]) -> T:
    """Moves the clock whenever the work sleeps, until it has ended."""
    task = asyncio.ensure_future(work)
    try:
        async with asyncio.timeout(10):
            while not task.done():
                sleeping = asyncio.ensure_future(clock.someone_sleeps())
                await asyncio.wait({task, sleeping}, return_when=asyncio.FIRST_COMPLETED)
                await cancel_and_wait(sleeping)
                if clock.sleeping:
                    await clock.advance(clock.sleeping[0] - clock.monotonic() + 0.001)
        return await task
    finally:
        await cancel_and_wait(task)


async def fail(clock: ManualClock, work: Awaitable[Any], kind: type[T]) -> T:
    """The error of exactly this kind with which the work ends."""
    with pytest.raises(ProvisioningError) as caught:
        await through(clock, work)
    assert type(caught.value) is kind
    return caught.value


@cache
def _session() -> aioboto3.Session:
    return aioboto3.Session(aws_access_key_id="key", aws_secret_access_key="secret")


def _xml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "".join(f"<{name}>{_xml(item)}</{name}>" for name, item in value.items())
    if isinstance(value, list | tuple):
        return "".join(f"<member>{_xml(item)}</member>" for item in value)
    return escape(str(value).lower() if isinstance(value, bool) else str(value))
