"""The preset `ingestion-triggers`: its template, and its stack on the emulator, started in every way."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from oms_events import EventBridgeConfig, EventRouter, build_event
from oms_events.devstack import AwsEmulator
from oms_events.errors import SpecError
from oms_events.provisioning.presets.ingestion_triggers import IngestionTriggersPreset
from oms_events.provisioning.presets.ingestion_triggers_rules import object_pattern
from oms_events.provisioning.specs.dashboard_body import check_dashboard, read_body
from oms_events.provisioning.synthesis import synthesize
from oms_events.provisioning.template import Template
from oms_events.publishers.eventbridge import EventBridgePublisher
from oms_events.routing.conditions import compile_document_pattern
from oms_events.routing.rulefile import read_document
from oms_events.triggers.request import TriggerRequest
from tests.provisioning.embedded import DeployedStack, deployed, echo_code, queue_messages
from tests.provisioning.linting import findings

FUNCTION = "dev-customer-data-orchestrator"
SCHEDULE = "dev-customer-ingestion-schedule"
CHUNKS = "dev-ingestion-chunks"
BUCKET = "dev-ingestion-000000000000-us-east-1"
ECHO = {"inline": echo_code(CHUNKS)}
TOPIC = "arn:aws:sns:us-east-1:123456789012:alarms"
ACCOUNT = "210987654321"
EXAMPLE = Path(__file__).parents[3] / "examples" / "infra_ingestion_triggers.toml"

EVENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "Processing Complete": ("transform.pipeline", {"trigger_reingestion": True, "domain": "market"}),
    "Universe Updated": ("symbol.universe", {"added_symbols": ["NVDA"], "immediate_ingestion": True}),
    "Market Close": ("market.events", {}),
    "Adhoc Ingestion": ("ops.manual", {"symbols": ["AAPL"]}),
}

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "staging": {"environment": "staging", "reserved_concurrency": 1, "enable_xray_tracing": True},
    "production": {
        "environment": "prod",
        "code": {"s3_bucket": "code", "s3_key": "orchestrator-1.zip"},
        "symbols_parameter": "/ingestion/symbols",
        "alarm_topic_arn": TOPIC,
        "enable_deletion_protection": True,
        "create_bucket": False,
        "bucket_name": "market-data",
        "statements": [
            {
                "actions": ["secretsmanager:GetSecretValue"],
                "resources": ["arn:aws:secretsmanager:us-east-1:123456789012:secret:upstream-AbCdEf"],
                "why": "the upstream's key",
            }
        ],
    },
    "one rule": {"multi_source_rule": True},
    "a bus of its own": {
        "enable_custom_bus": True,
        "allowed_accounts": [ACCOUNT],
        "publish_to_custom_bus": True,
    },
    "nothing to watch": {"enable_cloudwatch_alarms": False, "enable_dashboard": False},
    "another schedule": {"schedule": "rate(1 hour)", "schedule_enabled": False, "symbols": []},
    "every object": {"object_prefix": "", "object_suffix": ""},
}


def template(**variables: Any) -> Template:
    return synthesize(IngestionTriggersPreset(**variables).stack())


def together(*options: str) -> dict[str, Any]:
    return {name: value for option in options for name, value in OPTIONS[option].items()}


def resources(made: Template, kind: str) -> dict[str, Any]:
    return {name: entry["Properties"] for name, entry in made.resources.items() if entry["Type"] == kind}


def statements(made: Template) -> list[dict[str, Any]]:
    (role,) = resources(made, "AWS::IAM::Role").values()
    return list(role["Policies"][0]["PolicyDocument"]["Statement"])


def rules(made: Template) -> dict[str, Any]:
    return {entry["Name"]: entry for entry in resources(made, "AWS::Events::Rule").values()}


def scheduled(made: Template, time: str) -> TriggerRequest:
    """What the function gets from the schedule at that time: the template filled in, as EventBridge does it."""
    rule = next(entry for entry in rules(made).values() if "ScheduleExpression" in entry)
    return filled(rule["Targets"][0]["InputTransformer"], time)


def filled(transformer: dict[str, Any], time: str) -> TriggerRequest:
    assert transformer["InputPathsMap"] == {"time": "$.time"}
    text = transformer["InputTemplate"]
    # Alone it gets quotes, within a text it has them.
    text = text.replace(":<time>,", f':"{time}",').replace("<time>", time)
    return TriggerRequest(**json.loads(text))


# ---------------------------------------------------------------------- the template


def test_cfn_lint_finds_nothing_in_any_option() -> None:
    # Several in one, as a template of this size costs cfn-lint most of a second.
    less = ("staging", "one rule", "nothing to watch", "another schedule", "every object")
    more = ("staging", "production", "a bus of its own")
    assert findings(template(), *(template(**together(*options)) for options in (less, more))) == []


@pytest.mark.parametrize("variables", OPTIONS.values(), ids=OPTIONS)
def test_the_same_variables_give_the_same_short_template(variables: dict[str, Any]) -> None:
    made = template(**variables)
    assert made.body == template(**variables).body
    assert len(made.body.encode()) < 51_200


@pytest.mark.parametrize(
    ("environment", "schedule", "symbols"),
    [
        ("dev", "cron(0 22 * * ? *)", ("AAPL", "MSFT", "GOOGL")),
        ("staging", "cron(0 21 * * ? *)", ()),
        ("prod", "cron(0 20 * * ? *)", ()),
    ],
)
def test_each_environment_has_its_names_schedule_and_symbols(
    environment: str, schedule: str, symbols: tuple[str, ...]
) -> None:
    made = template(environment=environment)
    (function,) = resources(made, "AWS::Lambda::Function").values()
    assert function["FunctionName"] == f"{environment}-customer-data-orchestrator"
    rule = rules(made)[f"{environment}-customer-ingestion-schedule"]
    assert (rule["ScheduleExpression"], rule["State"]) == (schedule, "ENABLED")
    assert scheduled(made, "2026-09-09T22:00:00Z") == TriggerRequest(
        data_source="yahoo_finance",
        data_type="prices",
        domain="market",
        table_name="prices",
        symbols=symbols,
        period="1mo",
        interval="1d",
        file_format="json",
        trigger_type="schedule",
        trigger_time="2026-09-09T22:00:00Z",
        correlation_id=f"{environment}-customer-ingestion-schedule:2026-09-09T22:00:00Z",
    )


def test_the_four_event_sources_have_a_rule_each_or_all_but_one_a_single_rule() -> None:
    def patterns(**variables: Any) -> dict[str, Any]:
        return {
            name: rule["EventPattern"]
            for name, rule in rules(template(**variables)).items()
            if "EventPattern" in rule and rule["EventPattern"]["source"] != ["aws.s3"]
        }

    assert patterns() == {
        "dev-ingestion-transform-pipeline": {
            "source": ["transform.pipeline"],
            "detail-type": ["Processing Complete"],
            "detail": {"trigger_reingestion": [True]},
        },
        "dev-ingestion-symbol-universe": {"source": ["symbol.universe"], "detail-type": ["Universe Updated"]},
        "dev-ingestion-market-events": {"source": ["market.events"], "detail-type": ["Market Close"]},
        "dev-ingestion-ops-manual": {"source": ["ops.manual"], "detail-type": ["Adhoc Ingestion"]},
    }
    assert patterns(multi_source_rule=True) == {
        "dev-ingestion-multi-source": {
            "source": ["transform.pipeline", "symbol.universe", "ops.manual"],
            "detail-type": [{"exists": True}],
        }
    }


@pytest.mark.parametrize(
    ("prefix", "suffix", "key", "expected"),
    [
        ("market/prices/", ".json", "market/prices/symbol=AAPL/1.json", True),
        ("market/prices/", ".json", "market/prices/.json", True),
        ("market/prices/", ".json", "market/prices/1.csv", False),
        ("market/prices/", ".json", "market/1.json", False),
        ("market/", "", "market/1.csv", True),
        ("market/", "", "other/market/1.csv", False),
        ("", ".json", "a/1.json", True),
        ("", ".json", "a/1.json.gz", False),
        ("", "", "anything", True),
        ("a*b\\", ".json", "a*b\\1.json", True),
        ("a*b\\", ".json", "aXb\\1.json", False),
    ],
)
def test_objects_start_an_ingestion_when_prefix_and_suffix_both_fit(
    prefix: str, suffix: str, key: str, expected: bool
) -> None:
    pattern = compile_document_pattern(object_pattern("market-data", prefix, suffix))
    detail = {"bucket": {"name": "market-data"}, "object": {"key": key}}
    event = {"source": "aws.s3", "detail-type": "Object Created", "detail": detail}
    assert pattern.matches(event) is expected
    assert not pattern.matches({**event, "detail": {**detail, "bucket": {"name": "other"}}})


def test_only_the_rules_may_invoke_the_function_each_by_its_arn() -> None:
    made = template()
    permissions = resources(made, "AWS::Lambda::Permission").values()
    arns = {name for name, entry in made.resources.items() if entry["Type"] == "AWS::Events::Rule"}
    assert {entry["SourceArn"]["Fn::GetAtt"][0] for entry in permissions} == arns
    assert {json.dumps(entry["FunctionName"]) for entry in permissions} == {
        '{"Fn::GetAtt": ["FunctionOrchestrator", "Arn"]}'
    }
    assert "*" not in json.dumps(list(permissions))


def test_the_role_has_no_wildcard_and_names_each_action() -> None:
    made = template(**OPTIONS["production"])
    assert all('"*"' not in json.dumps(statement["Resource"]) for statement in statements(made))
    allowed = {action for statement in statements(made) for action in statement["Action"]}
    assert {"ssm:GetParameter", "secretsmanager:GetSecretValue"} < allowed
    assert {action for action in allowed if action.startswith("sqs:")} == {
        "sqs:ChangeMessageVisibility",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        "sqs:ReceiveMessage",
        "sqs:SendMessage",
    }
    assert "ssm:GetParameter" not in json.dumps(template().document)


def test_every_queue_has_a_dead_letter_queue_of_its_kind_and_dead_letters_an_alarm() -> None:
    made = template()
    queues = {entry["QueueName"]: entry for entry in resources(made, "AWS::SQS::Queue").values()}
    assert {name: entry.get("FifoQueue", False) for name, entry in queues.items()} == {
        "dev-ingestion-dlq": False,
        "dev-ingestion-delay-dlq.fifo": True,
        "dev-ingestion-delay.fifo": True,
        "dev-ingestion-chunks-dlq": False,
        "dev-ingestion-chunks": False,
    }
    assert queues["dev-ingestion-delay.fifo"]["DelaySeconds"] == 60
    assert queues["dev-ingestion-delay.fifo"]["VisibilityTimeout"] == 360
    assert {name for name, entry in queues.items() if "RedrivePolicy" in entry} == {
        "dev-ingestion-delay.fifo",
        "dev-ingestion-chunks",
    }
    alarms = {entry["AlarmName"]: entry for entry in resources(made, "AWS::CloudWatch::Alarm").values()}
    for name in ("dev-ingestion-dlq", "dev-ingestion-delay-dlq.fifo", "dev-ingestion-chunks-dlq"):
        alarm = alarms[f"{name}-depth"]
        assert (alarm["MetricName"], alarm["Threshold"]) == ("ApproximateNumberOfMessagesVisible", 0)


def test_each_rule_has_an_alarm_on_failed_invocations_with_the_dimensions_of_its_bus() -> None:
    def dimensions(**variables: Any) -> dict[str, set[str]]:
        return {
            entry["AlarmName"]: {one["Name"] for one in entry["Dimensions"]}
            for entry in resources(template(**variables), "AWS::CloudWatch::Alarm").values()
            if entry["MetricName"] == "FailedInvocations"
            and (entry["Threshold"], entry["Period"], entry["ComparisonOperator"])
            == (1, 300, "GreaterThanThreshold")
        }

    on_default = dimensions()
    assert set(on_default) == {f"{name}-failed-invocations" for name in rules(template())}
    assert all(names == {"RuleName"} for names in on_default.values())
    on_custom = dimensions(enable_custom_bus=True)
    assert on_custom["dev-ingestion-market-events-failed-invocations"] == {"RuleName", "EventBusName"}
    assert on_custom[f"{SCHEDULE}-failed-invocations"] == {"RuleName"}


def test_the_dashboard_shows_runs_events_failures_and_api_usage() -> None:
    (dashboard,) = resources(template(), "AWS::CloudWatch::Dashboard").values()
    body = read_body(dashboard["DashboardBody"])
    check_dashboard(body)
    titles = {widget["properties"].get("title") for widget in body["widgets"]}
    assert {"Schedule runs", "Events", "Failures", "Kinds of failures", "API usage"} < titles


def test_other_accounts_put_events_of_the_four_sources_on_the_custom_bus_only() -> None:
    made = template(**OPTIONS["a bus of its own"])
    (bus,) = resources(made, "AWS::Events::EventBus").values()
    assert bus["Name"] == "custom-ingestion-bus"
    (policy,) = resources(made, "AWS::Events::EventBusPolicy").values()
    statement = policy["Statement"]
    assert ACCOUNT in json.dumps(statement["Principal"])
    assert statement["Action"] == "events:PutEvents"
    assert sorted(statement["Condition"]["StringEquals"]["events:source"]) == sorted(
        source for source, _ in EVENTS.values()
    )
    assert resources(template(), "AWS::Events::EventBus") == {}


def test_the_function_publishes_on_the_custom_bus_only_when_it_is_asked_for() -> None:
    def published_to(**variables: Any) -> tuple[list[Any], Any]:
        made = template(**variables)
        (function,) = resources(made, "AWS::Lambda::Function").values()
        found = [each["Resource"] for each in statements(made) if "events:PutEvents" in each["Action"]]
        return found, function["Environment"]["Variables"].get("EVENT_BUS_NAME")

    assert published_to(enable_custom_bus=True) == ([], None)
    bus = "BusCustomIngestionBus"
    assert published_to(enable_custom_bus=True, publish_to_custom_bus=True) == (
        [[{"Fn::GetAtt": [bus, "Arn"]}]],
        {"Ref": bus},
    )


@pytest.mark.parametrize("topic", [TOPIC, None])
def test_every_alarm_tells_the_topic_when_there_is_one(topic: str | None) -> None:
    alarms = resources(template(alarm_topic_arn=topic), "AWS::CloudWatch::Alarm").values()
    told = [topic] if topic else []
    assert alarms
    assert all(alarm.get("AlarmActions", []) == alarm.get("OKActions", []) == told for alarm in alarms)


def test_without_code_the_runtime_and_the_handler_of_the_code_to_come_do_not_count() -> None:
    made = template(runtime="java21", handler="com.acme.Orchestrator::handle")
    (function,) = resources(made, "AWS::Lambda::Function").values()
    assert (function["Runtime"], function["Handler"]) == ("python3.13", "index.handler")


def test_concurrency_is_reserved_only_when_it_is_asked_for() -> None:
    def reserved(**variables: Any) -> Any:
        (function,) = resources(template(**variables), "AWS::Lambda::Function").values()
        return function.get("ReservedConcurrentExecutions")

    assert reserved() is None
    assert reserved(reserved_concurrency=1) == 1


def test_the_example_is_a_stack_without_findings() -> None:
    variables = dict(read_document(EXAMPLE))
    assert variables.pop("preset") == "ingestion-triggers"
    made = template(**variables)
    assert rules(made)["prod-customer-ingestion-schedule"]["ScheduleExpression"] == variables["schedule"]
    assert findings(made) == []


# ---------------------------------------------------------------------- bad variables


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"environment": "test"}, ["environment = 'test'", "'dev', 'staging' or 'prod'"]),
        ({"schedule": "cron(0 22 * * * *)"}, ["cron(0 22 * * * *)", "?"]),
        ({"schedule": "rate(1 minutes)"}, ["rate(1 minute)"]),
        ({"table_name": "prices-1"}, ["table_name = 'prices-1'", "letters and '_'"]),
        ({"symbols": ["A"] * 101}, ["symbols", "100"]),
        ({"symbols": ["a b"]}, ["'a b'", "a symbol is"]),
        ({"allowed_accounts": [ACCOUNT]}, ["allowed_accounts", "enable_custom_bus = true"]),
        ({"enable_custom_bus": True, "allowed_accounts": ["1"]}, ["'1'", "12 digits"]),
        ({"create_bucket": False}, ["bucket_name is missing", "create_bucket = false"]),
        ({"bucket_name": "My_Bucket"}, ["bucket_name = 'My_Bucket'", "lower-case"]),
        ({"create_bucket": False, "bucket_name": "X"}, ["bucket_name = 'X'", "lower-case"]),
        ({"publish_to_custom_bus": True}, ["publish_to_custom_bus", "enable_custom_bus = true"]),
        ({"delay_seconds": 901}, ["delay_seconds = 901", "900"]),
        ({"chunk_size": 0}, ["chunk_size = 0", "1"]),
        ({"reserved_concurrency": 0}, ["reserved_concurrency = 0", "1"]),
        ({"symbols_parameter": "a b"}, ["symbols_parameter = 'a b'"]),
        ({"code": ECHO, "handler": "main.handler"}, ["main.handler", "index."]),
        ({"cron": "x"}, ["unknown field 'cron'", "schedule"]),
    ],
)
def test_bad_variables_are_refused_with_field_value_and_remedy(
    variables: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(SpecError) as refused:
        IngestionTriggersPreset(**variables).stack()
    assert [word for word in words if word not in str(refused.value)] == []


# ---------------------------------------------------------------------- on the emulator


class Triggers:
    """The preset's stack, with a function that echoes what it gets into the chunk queue."""

    def __init__(self, stack: DeployedStack) -> None:
        self.stack = stack

    async def publish(self, bus: str, *detail_types: str) -> None:
        """As other services do it: through a router, in the mapping `plain`."""
        config = EventBridgeConfig(
            event_bus_name=bus,
            mapping="plain",
            detail_types={name.lower(): name for name in EVENTS},
            **dict(self.stack.config),
        )
        async with EventRouter({"eventbridge": EventBridgePublisher(config)}) as router:
            for detail_type in detail_types:
                source, detail = EVENTS[detail_type]
                results = await router.publish_event(build_event(detail_type.lower(), source, detail))
                assert results.delivered

    async def started(self, count: int = 1) -> list[dict[str, Any]]:
        """What the function got."""
        client = await self.stack.client("sqs")
        return await queue_messages(client, self.stack.outputs["queue_urls"]["chunks"], count=count)


@pytest_asyncio.fixture(scope="module")
async def triggers() -> AsyncIterator[Triggers]:
    """On an emulator of its own: its names are fixed, and tests of other files may have used them."""
    async with (
        AwsEmulator() as emulator,
        deployed(template(code=ECHO, delay_seconds=0), emulator, keep={BUCKET}) as made,
    ):
        yield Triggers(made)


async def test_the_outputs_tell_what_was_made(triggers: Triggers) -> None:
    outputs = triggers.stack.outputs
    assert outputs["function_name"] == FUNCTION
    assert outputs["schedule_rule_name"] == SCHEDULE
    assert outputs["bucket_name"] == BUCKET
    assert (outputs["event_bus_name"], outputs["event_bus_arn"]) == (None, None)
    assert outputs["table_names"] == {
        "idempotency": "dev-ingestion-idempotency",
        "breaker": "dev-ingestion-breaker",
        "rate": "dev-ingestion-rate",
    }
    assert set(outputs["rule_arns"]) == set(outputs["rule_names"])
    assert set(outputs["queue_urls"]) == {"dlq", "delay-dlq", "delay", "chunks-dlq", "chunks"}
    assert outputs["dashboard_name"] == "dev-ingestion-triggers"


async def test_the_schedule_makes_the_typed_request_that_the_function_gets(triggers: Triggers) -> None:
    events = await triggers.stack.client("events")
    assert (await events.describe_rule(Name=SCHEDULE))["ScheduleExpression"] == "cron(0 22 * * ? *)"
    (target,) = (await events.list_targets_by_rule(Rule=SCHEDULE))["Targets"]
    assert target["Arn"] == triggers.stack.outputs["function_arn"]
    assert target["DeadLetterConfig"]["Arn"].endswith(":dev-ingestion-dlq")
    request = filled(target["InputTransformer"], "2026-09-09T22:00:00Z")
    assert (request.trigger_type, request.trigger_time) == ("schedule", "2026-09-09T22:00:00Z")
    functions = await triggers.stack.client("lambda")
    await functions.invoke(FunctionName=FUNCTION, Payload=json.dumps(request.document()))
    assert await triggers.started() == [request.document()]


async def test_the_schedules_target_gets_the_time_of_its_event_from_the_service_itself(
    triggers: Triggers,
) -> None:
    """The emulator's schedules do not run in a test's time: the same target stands behind a pattern here."""
    events = await triggers.stack.client("events")
    (target,) = (await events.list_targets_by_rule(Rule=SCHEDULE))["Targets"]
    target.pop("DeadLetterConfig")
    await events.put_rule(Name="as-scheduled", EventPattern=json.dumps({"source": ["as.scheduled"]}))
    await events.put_targets(Rule="as-scheduled", Targets=[target])
    try:
        await events.put_events(Entries=[{"Source": "as.scheduled", "DetailType": "x", "Detail": "{}"}])
        (got,) = await triggers.started()
    finally:
        await events.remove_targets(Rule="as-scheduled", Ids=[target["Id"]])
        await events.delete_rule(Name="as-scheduled")
    request = TriggerRequest(**got)
    assert request.trigger_time is not None
    assert request.trigger_time.startswith("20")
    assert request.correlation_id == f"{SCHEDULE}:{request.trigger_time}"


async def test_events_of_the_four_sources_start_the_function(triggers: Triggers) -> None:
    await triggers.publish("default", *EVENTS)
    got = {event["detail-type"]: event for event in await triggers.started(count=4)}
    assert set(got) == set(EVENTS)
    for detail_type, (source, detail) in EVENTS.items():
        assert got[detail_type]["source"] == source
        assert detail.items() <= got[detail_type]["detail"].items()


async def test_a_new_object_with_prefix_and_suffix_starts_the_function(triggers: Triggers) -> None:
    s3 = await triggers.stack.client("s3")
    for key in ("market/prices/a.csv", "other/a.json", "market/prices/symbol=AAPL/a.json"):
        await s3.put_object(Bucket=BUCKET, Key=key, Body=b"{}")
    (event,) = await triggers.started()
    assert event["detail-type"] == "Object Created"
    assert event["detail"]["bucket"]["name"] == BUCKET
    assert event["detail"]["object"]["key"] == "market/prices/symbol=AAPL/a.json"
    versions = await s3.list_object_versions(Bucket=BUCKET)
    for version in versions.get("Versions", []):
        await s3.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])


async def test_a_delayed_start_comes_to_the_function_by_the_fifo_queue(triggers: Triggers) -> None:
    sqs = await triggers.stack.client("sqs")
    url = triggers.stack.outputs["queue_urls"]["delay"]
    for number in ("1", "2"):
        await sqs.send_message(
            QueueUrl=url, MessageBody=number, MessageGroupId="events", MessageDeduplicationId=number
        )
    got = await triggers.started(count=2)
    assert [event["Records"][0]["body"] for event in got] == ["1", "2"]


async def test_the_guards_have_their_tables(triggers: Triggers) -> None:
    dynamodb = await triggers.stack.client("dynamodb")
    for name, keys in {"idempotency": ["pk"], "breaker": ["pk"], "rate": ["pk", "sk"]}.items():
        table = f"dev-ingestion-{name}"
        said = (await dynamodb.describe_table(TableName=table))["Table"]
        assert [key["AttributeName"] for key in said["KeySchema"]] == keys
        expiry = await dynamodb.describe_time_to_live(TableName=table)
        assert expiry["TimeToLiveDescription"]["AttributeName"] == "ttl"


async def test_a_second_deploy_brings_the_custom_bus_and_the_one_rule(triggers: Triggers) -> None:
    await triggers.stack.redeploy(
        template(
            code=ECHO,
            delay_seconds=0,
            reserved_concurrency=1,
            enable_custom_bus=True,
            allowed_accounts=[ACCOUNT],
            multi_source_rule=True,
            schedule_enabled=False,
        )
    )
    events = await triggers.stack.client("events")
    bus = await events.describe_event_bus(Name="custom-ingestion-bus")
    assert ACCOUNT in bus["Policy"]
    assert (await events.describe_rule(Name=SCHEDULE))["State"] == "DISABLED"
    functions = await triggers.stack.client("lambda")
    concurrency = await functions.get_function_concurrency(FunctionName=FUNCTION)
    assert concurrency["ReservedConcurrentExecutions"] == 1
    await triggers.publish("default", "Processing Complete")
    # One after the other: a second start at the same time would be throttled, and come later.
    for detail_type in ("Processing Complete", "Adhoc Ingestion"):
        await triggers.publish("custom-ingestion-bus", "Market Close", detail_type)
        (event,) = await triggers.started()
        assert event["detail-type"] == detail_type
