"""`infra check` on real services: everything right, then one thing broken at a time."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import uuid
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aioboto3
import nats
import pytest
from aiohttp import ClientSession, web
from click.testing import CliRunner, Result

from oms_events import EventBridgeConfig, JetStreamOptions, NatsConfig, OutboxConfig, RoutingRule, build_event
from oms_events._aws.config import AwsConfig
from oms_events.cli.app import app
from oms_events.devstack import AwsEmulator, Denied, FaultProxy, NatsServer
from oms_events.devstack.background import run_in_thread
from oms_events.errors import ConfigurationError
from oms_events.events import encode
from oms_events.idempotency.config import IdempotencyConfig
from oms_events.oms.catalogue import EventType
from oms_events.oms.rules import default_rules
from oms_events.provisioning.checks.configuration import CheckedConfiguration
from oms_events.provisioning.checks.report import Level
from oms_events.provisioning.checks.samples import Sample, mapped
from oms_events.publishers.jetstream import StreamSpec
from oms_events.routing.config import RouterConfig
from tests.cli.conftest import clean
from tests.provisioning.broken import (
    BROKEN,
    NOT_CHECKED,
    PROBLEM,
    WARNING,
    Broken,
    Expected,
    assert_exactly,
    wrong,
)
from tests.provisioning.checked import (
    ACCOUNT,
    BUS,
    CREATED,
    EVENTS,
    PATTERNS,
    RULES,
    SCHEMA,
    STREAM,
    SYSTEM,
    TABLES,
    World,
    Worlds,
    allowing,
    policy,
)

CA = str(Path(__file__).parents[1] / "aws" / "certificates" / "ca.pem")
"""Not used, but read by every client: that of all authorities takes more time than all calls of a check."""
SUBJECT = "oms.schema.created"
SERVICES = ("dynamodb", "events", "iam", "lambda", "logs", "sns", "sqs")


@pytest.fixture(scope="module")
def emulator() -> Iterator[AwsEmulator]:
    """One of this module's own: nothing that is made here is taken away again."""
    with run_in_thread(AwsEmulator()) as emulator:
        yield emulator


@pytest.fixture(scope="module")
async def clients(emulator: AwsEmulator) -> AsyncIterator[dict[str, Any]]:
    session = aioboto3.Session(region_name=emulator.region, aws_access_key_id="test", aws_secret_access_key="test")
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(session.client(name, endpoint_url=emulator.endpoint_url))
            for name in SERVICES
        }


@pytest.fixture(scope="module")
async def log_policy(clients: dict[str, Any]) -> None:
    """One for all worlds: an account has ten policies at most."""
    statement = allowing(
        "logs:Put*",
        f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/events/*:*",
        f"arn:aws:events:us-east-1:{ACCOUNT}:rule/*/logged",
    )
    await clients["logs"].put_resource_policy(policyName="events", policyDocument=policy(statement))


@pytest.fixture(scope="module")
async def function(clients: dict[str, Any]) -> str:
    """A function that is Active, which takes half a second."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("handler.py", "def handle(event, context):\n    return event\n")
    made = await clients["lambda"].create_function(
        FunctionName="handler",
        Runtime="python3.12",
        Role=f"arn:aws:iam::{ACCOUNT}:role/function",
        Handler="handler.handle",
        Code={"ZipFile": packed.getvalue()},
    )
    await (
        clients["lambda"].get_waiter("function_active_v2").wait(FunctionName="handler", WaiterConfig={"Delay": 1})
    )
    arn: str = made["FunctionArn"]
    return arn


@pytest.fixture(scope="module")
def worlds(
    clients: dict[str, Any], emulator: AwsEmulator, oms_nats_server: NatsServer, function: str, log_policy: None
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
            aws=AwsConfig(endpoint_url=emulator.endpoint_url, aws_region=emulator.region, ca_bundle=CA),
            **{part: values[part] for part in parts or values},
        )
        await clients["iam"].create_user(UserName=name)
        key = (await clients["iam"].create_access_key(UserName=name))["AccessKey"]
        session = aioboto3.Session(
            region_name=emulator.region,
            aws_access_key_id=key["AccessKeyId"],
            aws_secret_access_key=key["SecretAccessKey"],
        )
        client = await nats.connect(oms_nats_server.url)
        world = World(clients, name, function, session, configuration, client.jetstream())
        try:
            await world.make()
            await world.set_user({"Effect": "Allow", "Action": ["events:*", "dynamodb:*"], "Resource": "*"})
            yield world
        finally:
            with contextlib.suppress(nats.js.errors.NotFoundError):
                await world.js.delete_stream(name)
            await client.close()

    return made


@pytest.fixture(scope="module")
async def bus_world(worlds: Worlds) -> AsyncIterator[World]:
    """A bus with everything behind it that no test changes."""
    async with worlds(*BUS) as world:
        yield world


@pytest.fixture(scope="module")
async def stream_world(worlds: Worlds) -> AsyncIterator[World]:
    """A stream that no test changes."""
    async with worlds(*STREAM) as world:
        yield world


async def test_what_is_as_the_configuration_needs_it_is_ok_line_by_line(worlds: Worlds) -> None:
    async with worlds() as world:
        report = await world.check()
    assert wrong(report) == []
    assert report.passed
    lines = {
        (found.area, found.subject.replace(world.name, "W")): found.message.replace(world.name, "W")
        for found in report.findings
    }
    assert lines["events", CREATED] == "is taken by rule orders"
    assert lines["targets", "lambda handler"] == "exists (Active), and rule system may use it"
    assert (
        lines["stream", "W"]
        == f"covers the subjects that the events get: W.{CREATED}, W.{SUBJECT}, W.oms.system.error"
    )
    areas = ["archive", "bus", "events", "idempotency", "outbox", "permissions", "rules", "stream", "targets"]
    assert {area for area, _ in lines} == {*areas, "dead letters"}


@pytest.mark.parametrize("case", BROKEN)
async def test_of_one_broken_thing_exactly_that_is_told(worlds: Worlds, case: Broken) -> None:
    async with worlds(*case.parts) as world:
        await case.act(world)
        assert_exactly(await world.check(), case.expected, world.name)


@dataclass(frozen=True)
class Refused:
    """An operation that is denied, what is not checked then, and areas of which nobody can know all without it."""

    operation: str
    expected: tuple[tuple[str, str], ...]
    unknown: tuple[str, ...] = ()


@pytest.mark.parametrize(
    "case",
    [
        Refused("DescribeEventBus", (("bus", "{}"),), ("dead letters",)),
        Refused("ListRules", (("rules", "{}"),), ("rules", "events", "targets", "dead letters")),
        Refused("TestEventPattern", (("events", "patterns of {}"),), ("events",)),
        Refused("ListTargetsByRule", tuple(("rules", name) for name in PATTERNS), ("targets", "dead letters")),
        Refused("ListArchives", (("archive", "{}"),)),
        Refused(
            "GetQueueAttributes",
            (("dead letters", "sqs {}-bus"), ("dead letters", "sqs {}-dead"), ("targets", "sqs {}-orders")),
        ),
        Refused("GetTopicAttributes", (("targets", "sns {}"),)),
        Refused("DescribeResourcePolicies", (("targets", "logs /aws/events/{}"),)),
        Refused(
            f"GET /2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A{ACCOUNT}%3Afunction%3Ahandler/policy",
            (("targets", "lambda handler"),),
        ),
        Refused("SimulatePrincipalPolicy", (("permissions", "{}"),)),
        Refused("GetCallerIdentity", (("permissions", "{}"),)),
    ],
    ids=lambda case: case.operation.partition(" ")[0],
)
async def test_what_is_denied_is_not_checked_and_hides_nothing_else(
    bus_world: World, emulator: AwsEmulator, case: Refused
) -> None:
    async with FaultProxy(emulator.endpoint_url) as proxy:
        through = AwsConfig(endpoint_url=proxy.endpoint_url, aws_region=emulator.region, ca_bundle=CA)
        whole = await bus_world.check(aws=through)
        proxy.always(Denied(), operation=case.operation)
        report = await bus_world.check(aws=through)
    told = [(area, subject, NOT_CHECKED, "not authorized") for area, subject in case.expected]
    assert_exactly(report, told, bus_world.name)
    denied = {(area, subject.format(bus_world.name)) for area, subject in case.expected}
    rest = [
        one for one in whole.findings if one.area not in case.unknown and (one.area, one.subject) not in denied
    ]
    assert rest
    assert set(rest) <= set(report.findings)


async def test_tables_are_looked_at_one_question_at_a_time(worlds: Worlds, emulator: AwsEmulator) -> None:
    async with worlds(*TABLES) as world, FaultProxy(emulator.endpoint_url) as proxy:
        for operation, tables in (
            ("DescribeTimeToLive", ("outbox", "idempotency")),
            ("DescribeContinuousBackups", ("outbox",)),
            ("GetItem", ("outbox",)),
        ):
            proxy.clear()
            proxy.always(Denied(), operation=operation)
            through = AwsConfig(endpoint_url=proxy.endpoint_url, aws_region=emulator.region, ca_bundle=CA)
            report = await world.check(aws=through)
            told = [(table, f"{{}}-{table}", NOT_CHECKED, operation) for table in tables]
            assert_exactly(report, told, world.name)


@asynccontextmanager
async def altered(upstream: str, operation: str, alter: Callable[[bytes, bytes], bytes]) -> AsyncIterator[str]:
    """The emulator, whose answers to one operation are made of request and answer: states that it never has."""

    async def forward(request: web.Request) -> web.Response:
        body = await request.read()
        async with client.request(
            request.method, f"{upstream}{request.path_qs}", headers=request.headers, data=body
        ) as answer:
            content = await answer.read()
            told = f"{request.headers.get('X-Amz-Target', '')} {request.path} {body.decode()}"
            return web.Response(
                status=answer.status,
                content_type=answer.content_type,
                body=alter(body, content) if operation in told else content,
            )

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(application)
    await runner.setup()
    async with ClientSession() as client:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            host, port = runner.addresses[0][:2]
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()


def saying(old: str, new: str) -> Callable[[bytes, bytes], bytes]:
    def alter(_: bytes, answer: bytes) -> bytes:
        assert old.encode() in answer, answer
        return answer.replace(old.encode(), new.encode())

    return alter


def with_managed_rule(_: bytes, answer: bytes) -> bytes:
    rules = json.loads(answer)["Rules"]
    managed = {
        **rules[0],
        "Name": "Events-Archive-a",
        "ManagedBy": "prod.vhs.events.aws.internal",
        "State": "DISABLED",
    }
    return json.dumps({"Rules": [*rules, managed]}).encode()


def in_two_parts(request: bytes, answer: bytes) -> bytes:
    rules = json.loads(answer)["Rules"]
    is_second = json.loads(request).get("NextToken") == "more"
    return json.dumps({"Rules": rules[1:]} if is_second else {"Rules": rules[:1], "NextToken": "more"}).encode()


def unknown_condition(_: bytes, answer: bytes) -> bytes:
    empty, full = (
        b"<MissingContextValues/>",
        b"<MissingContextValues><member>aws:SourceVpce</member></MissingContextValues>",
    )
    assert b"allowed" in answer
    answer = answer.replace(b"allowed", b"implicitDeny")
    for one in (empty, b"<MissingContextValues></MissingContextValues>"):
        answer = answer.replace(one, full)
    return answer


@pytest.mark.parametrize(
    ("operation", "alter", "expected"),
    [
        ("ListArchives", saying('"ENABLED"', '"CREATE_FAILED"'), [("archive", "{}", PROBLEM, "is CREATE_FAILED")]),
        ("ListArchives", saying('"ENABLED"', '"DISABLED"'), [("archive", "{}", WARNING, "is DISABLED")]),
        ("ListRules", with_managed_rule, []),
        (
            "AWSEvents.DescribeEventBus",
            saying('"DeadLetterConfig"', '"KmsKeyIdentifier": "key", "Other"'),
            [("bus", "{}", WARNING, "no dead-letter queue")],
        ),
        ("ListRules", in_two_parts, []),
        (
            "/configuration",
            saying('"Active"', '"Failed"'),
            [("targets", "lambda handler", PROBLEM, "State is Failed")],
        ),
        (
            "/configuration",
            saying('"Active"', '"Inactive"'),
            [("targets", "lambda handler", WARNING, "State is Inactive")],
        ),
        (
            "/configuration",
            saying('"Successful"', '"Failed"'),
            [("targets", "lambda handler", PROBLEM, "LastUpdateStatus is Failed")],
        ),
        ("SimulatePrincipalPolicy", unknown_condition, [("permissions", "{}", NOT_CHECKED, "aws:SourceVpce")]),
    ],
)
async def test_states_that_the_emulator_never_has(
    bus_world: World,
    emulator: AwsEmulator,
    operation: str,
    alter: Callable[[bytes, bytes], bytes],
    expected: list[Expected],
) -> None:
    async with altered(emulator.endpoint_url, operation, alter) as url:
        report = await bus_world.check(aws=AwsConfig(endpoint_url=url, aws_region=emulator.region, ca_bundle=CA))
    assert_exactly(report, expected, bus_world.name)


async def test_without_events_those_of_the_oms_are_tried_where_the_rules_send_them(worlds: Worlds) -> None:
    async with worlds(*BUS) as world:
        await world.put_rule("everything", {"source": [{"prefix": "oms."}]})
        both = {"nats": NatsConfig(), "rules": default_rules()}
        report = await world.check(events=None, **both, primary="nats")
        tried = {found.subject for found in report.findings if found.area == "events"}
    # Actions and proposals go to NATS alone.
    families = {"schema", "objecttype", "property", "linktype", "branch", "system"}
    assert tried == {kind.value for kind in EventType if kind.family in families}


async def test_every_event_of_a_type_that_comes_twice_has_a_line_of_its_own(bus_world: World) -> None:
    events = [build_event(CREATED, source, {}) for source in ("/shop/a", "/other")]
    report = await bus_world.check(events=events)
    told = [found for found in report.findings if found.area == "events"]
    assert [(found.subject, found.level) for found in told] == [
        (f"{CREATED} (event 1)", Level.OK),
        (f"{CREATED} (event 2)", PROBLEM),
    ]


async def test_an_event_that_its_publisher_would_reject_is_a_problem(bus_world: World) -> None:
    config = EventBridgeConfig(event_bus_name=bus_world.name, mapping="plain")
    report = await bus_world.check(eventbridge=config, events=[build_event(CREATED, "/shop", "text")])
    assert ("events", CREATED, PROBLEM) in [(one.area, one.subject, one.level) for one in report.findings]


async def test_an_event_that_no_routing_rule_takes_is_a_problem(stream_world: World) -> None:
    rules = (RoutingRule(name="schema", event_type_pattern=".*schema.*", platforms=("nats",), strategy="all"),)
    report = await stream_world.check(rules=rules, router=RouterConfig(unrouted="refuse"))
    told = [("events", kind, PROBLEM, "no routing rule") for kind in (CREATED, SYSTEM)]
    assert_exactly(report, told, stream_world.name)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"stream": None}, []),
        ({"stream": None, "subject": "nowhere.{type}"}, [("stream", f"nowhere.{SUBJECT}", PROBLEM, "no stream")]),
        ({"stream": "none"}, [("stream", "none", PROBLEM, "does not exist")]),
        (
            {"stream": StreamSpec(name="new", subjects=("new.>",)), "subject": "new.{type}", "policy": "create"},
            [("stream", "new", WARNING, "makes it when it opens")],
        ),
        (
            {"stream": StreamSpec(name="new", subjects=("other.>",)), "subject": "new.{type}", "policy": "create"},
            [("stream", "new", WARNING, "when it opens"), ("stream", f"new.{SUBJECT}", PROBLEM, "does not cover")],
        ),
    ],
)
async def test_streams_are_asked_for_as_the_options_say(
    stream_world: World, options: dict[str, Any], expected: list[Expected]
) -> None:
    wanted = JetStreamOptions(**{"subject": f"{stream_world.name}.{{type}}", **options})
    report = await stream_world.check(jetstream=wanted, events=EVENTS[1:2])
    assert_exactly(report, expected, stream_world.name)
    assert "new" not in {info.config.name for info in await stream_world.js.streams_info()}


async def test_a_stream_that_never_acknowledges_is_a_problem(worlds: Worlds) -> None:
    async with worlds(*STREAM) as world:
        await world.js.update_stream(name=world.name, subjects=[f"{world.name}.>"], no_ack=True)
        assert_exactly(await world.check(), [("stream", "{}", PROBLEM, "no_ack = true")], world.name)


async def test_a_server_that_does_not_answer_is_not_checked(stream_world: World) -> None:
    report = await stream_world.check(nats=NatsConfig(servers=("nats://127.0.0.1:1",), connect_timeout=0.5))
    assert_exactly(report, [("stream", "{}", NOT_CHECKED, "127.0.0.1:1")], stream_world.name)


async def test_who_may_not_ask_about_streams_is_told_so(stream_world: World) -> None:
    user = 'users: [{user: a, password: b, permissions: {publish: {deny: ["$JS.API.>"]}}}]'
    options = stream_world.configuration.jetstream.model_copy(update={"request_timeout": 0.2})
    with run_in_thread(NatsServer(config=f"authorization {{ {user} }}")) as server:
        config = NatsConfig(servers=(server.url,), user="a", password="b")
        report = await stream_world.check(nats=config, jetstream=options)
    assert_exactly(report, [("stream", "{}", NOT_CHECKED, "no permission for $JS.API")], stream_world.name)


async def test_the_outbox_has_the_stream_the_layout_and_the_buckets_that_are_wanted(worlds: Worlds) -> None:
    async with worlds(*TABLES) as world:
        outbox = OutboxConfig(table_name=f"{world.name}-outbox", buckets=8)
        report = await world.check(outbox=outbox, outbox_stream=True)
        told = [("has no stream", ""), ("has 4 buckets", "")]
        assert_exactly(report, [("outbox", "{}-outbox", PROBLEM, text) for text, _ in told], world.name)
        await world.table(
            "update_table", StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
        )
        assert wrong(await world.check(outbox_stream=True)) == []
        await world.forget_layout()
        assert_exactly(await world.check(), [("outbox", "{}-outbox", WARNING, "no layout yet")], world.name)


async def test_who_looks_need_not_be_who_calls(worlds: Worlds, emulator: AwsEmulator) -> None:
    """The service's own role, whose path STS does not tell, is simulated; the operator's credentials ask."""
    async with worlds(*BUS) as world:
        role = await world.clients["iam"].create_role(
            RoleName=world.name, Path="/services/", AssumeRolePolicyDocument="{}"
        )
        own = EventBridgeConfig(
            event_bus_name=world.name,
            role_arn=role["Role"]["Arn"],
            sts_endpoint_url=emulator.endpoint_url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        operator = AwsConfig(
            endpoint_url=emulator.endpoint_url,
            aws_region=emulator.region,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        report = await replace(world, session=None).check(eventbridge=own, aws=operator)
        arn = f"arn:aws:iam::{ACCOUNT}:role/services/{world.name}"
        # The emulator simulates no role that has a path; what matters here is which one it is asked about.
        text = f"the policies of {arn} do not allow events:PutEvents"
        assert_exactly(report, [("permissions", "{}", PROBLEM, text)], world.name)


async def test_of_the_root_user_nothing_can_be_simulated(bus_world: World, emulator: AwsEmulator) -> None:
    session = aioboto3.Session(region_name=emulator.region, aws_access_key_id="test", aws_secret_access_key="test")
    report = await replace(bus_world, session=session).check()
    [told] = [found for found in report.findings if found.area == "permissions"]
    assert told.level is NOT_CHECKED
    assert told.message.startswith(f"arn:aws:iam::{ACCOUNT}:root is no user or role")


def test_a_configuration_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="nothing is configured"):
        CheckedConfiguration()


async def test_no_events_are_refused(bus_world: World) -> None:
    with pytest.raises(ConfigurationError, match="give at least one"):
        await bus_world.check(events=[])


async def test_what_is_tried_is_what_is_delivered(worlds: Worlds) -> None:
    """Mapping and envelope agree with what the bus hands to a target."""
    config = EventBridgeConfig(event_bus_name="b", resources=("arn:aws:s3:::r",))
    async with worlds(*BUS) as world:
        config = config.model_copy(update={"event_bus_name": world.name})
        [sent], _ = mapped([Sample(CREATED, encode(EVENTS[0]))], config)
        await world.clients["events"].put_events(
            Entries=[sent.entry.document | {"Time": datetime.fromtimestamp(sent.entry.document["Time"], UTC)}]
        )
        answer = await world.clients["sqs"].receive_message(QueueUrl=await world.url("orders"), WaitTimeSeconds=5)
    delivered = json.loads(answer["Messages"][0]["Body"])
    tried = json.loads(sent.delivered(account=ACCOUNT, region="us-east-1"))
    # The emulator ignores the time of an entry, and each event gets an id of its own.
    own = {"id", "time"}
    assert {k: v for k, v in tried.items() if k not in own} == {k: v for k, v in delivered.items() if k not in own}
    assert tried.keys() == delivered.keys()


@pytest.fixture
async def deployed(worlds: Worlds, emulator: AwsEmulator, tmp_path: Path) -> AsyncIterator[tuple[str, list[str]]]:
    """A world's name, and options of the command whose settings describe it."""
    async with worlds() as world:
        server = world.configuration.nats
        assert server is not None
        place = "aws_region = 'us-east-1'\naws_access_key_id = 'test'\naws_secret_access_key = 'test'\n"
        file = tmp_path / "settings.toml"
        file.write_text(
            f"[eventbridge]\nevent_bus_name = '{world.name}'\n{place}"
            f"[nats]\nservers = ['{server.servers[0]}']\n"
            f"[jetstream]\nstream = '{world.name}'\nsubject = '{world.name}.{{type}}'\n"
            f"[outbox]\ntable_name = '{world.name}-outbox'\n{place}"
        )
        events = tmp_path / "events.json"
        events.write_bytes(b"\n".join(encode(event).json for event in EVENTS[1:]))
        options = ["--config", str(file), "--events", str(events), "--endpoint-url", emulator.endpoint_url]
        yield world.name, [*options, "--idempotency-table", f"{world.name}-idempotency"]


def run_command(*arguments: str) -> Result:
    wanted = clean({})
    env = {**dict.fromkeys(os.environ.keys() - wanted.keys()), **wanted}
    return CliRunner(env=env).invoke(app, ["infra", "check", *arguments])


def test_the_command_prints_a_line_for_each_finding(deployed: tuple[str, list[str]]) -> None:
    name, options = deployed
    result = run_command(*options)
    assert result.exit_code == 0, result.output
    lines = [re.split(r" {2,}", line) for line in result.stdout.splitlines()]
    assert lines[0] == ["area", "subject", "state", "what", "what to do"]
    assert ["events", SCHEMA, "ok", "is taken by rule logged"] in lines
    assert ["idempotency", f"{name}-idempotency", "ok", "has the right keys, is ACTIVE"] in lines
    told = [line for line in lines if line[2] != "ok"][1:]
    # The test's credentials are the root user's, and nothing that is sent is an order.
    assert [line[:3] for line in told if line[0] != "permissions"] == [["rules", "orders", "warning"]]
    assert "0 problem" in result.stderr


def test_the_command_ends_with_1_for_a_problem(deployed: tuple[str, list[str]]) -> None:
    _, options = deployed
    result = run_command(*options, "--json", "--outbox-stream")
    assert result.exit_code == 1, result.output
    report = json.loads(result.stdout)
    assert report["passed"] is False
    assert [one["message"] for one in report["findings"] if one["level"] == "problem"] == [
        "has no stream, and the relay on Lambda reads it"
    ]
    assert set(report["findings"][0]) == {"area", "subject", "level", "message", "remedy"}


def test_the_command_refuses_samples_that_are_no_events(deployed: tuple[str, list[str]], tmp_path: Path) -> None:
    _, options = deployed
    bad = tmp_path / "bad.json"
    bad.write_text('{"type": "a"}\n')
    result = run_command(*options, "--events", str(bad))
    assert result.exit_code == 2
    assert "line 1: " in result.stderr
