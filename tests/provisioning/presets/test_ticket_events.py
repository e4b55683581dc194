"""The preset `ticket-events`: its template, and its stack on the emulator, used by the library's own router."""

from __future__ import annotations

import io
import json
import tomllib
import zipfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from oms_events import (
    EventBridgeConfig,
    EventRouter,
    build_event,
    encode,
)
from oms_events.devstack import AwsEmulator
from oms_events.errors import SpecError
from oms_events.provisioning.presets.ticket_events import TicketEventsPreset, TicketRuleSpec
from oms_events.provisioning.sources import read_source
from oms_events.provisioning.synthesis import synthesize
from oms_events.provisioning.template import Template, assembled_outputs
from oms_events.publishers.eventbridge import EventBridgePublisher
from oms_events.publishers.eventbridge.mapping import EventMapper
from oms_events.routing.conditions import compile_document_pattern
from tests.provisioning.embedded import DeployedStack, deployed, echo_code, queue_messages
from tests.provisioning.linting import findings
from tests.provisioning.permissions import Call, Role, enforcing_emulator

EXAMPLES = Path(__file__).parents[3] / "examples"

BUS = "ticket-ticket-events"
QUEUE = "arn:${AWS::Partition}:sqs:${AWS::Region}:${AWS::AccountId}:ticket-audit"
TOPIC = "arn:aws:sns:us-east-1:123456789012:tickets"
TABLE = "arn:aws:dynamodb:us-east-1:123456789012:table/tickets"
STREAM = "arn:aws:kinesis:us-east-1:123456789012:stream/tickets"
ROLE = "arn:aws:iam::123456789012:role/tickets"
DETAIL_TYPES = {
    "com.shop.ticket.created": "Ticket Created",
    "com.shop.ticket.status_changed": "Ticket Status Changed",
}

AUDIT = {
    "name": "audit",
    "description": "Every ticket event, short",
    "event_pattern": '{"source": ["ticket.service"]}',
    "targets": [
        {
            "id": "queue",
            "arn": QUEUE,
            "retry_policy": {"maximum_retry_attempts": 3, "maximum_event_age_in_seconds": 3600},
            "input_transformer": {
                "paths": {"ticket": "$.detail.ticket_id", "status": "$.detail.status"},
                "template": '{"ticket": <ticket>, "status": <status>}',
            },
        }
    ],
}

BOTH = [
    {"name": "ticket-created"},
    {"name": "told", "event_pattern": {"source": ["ticket.service"]}, "targets": [{"id": "topic", "arn": TOPIC}]},
]

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "other names": {"name": "prod", "custom_bus_name": "reservation-events"},
    "no dead-letter queue": {"enable_dlq": False},
    "no archive": {"archive_config": {"enabled": False}},
    "a long archive": {"archive_config": {"retention_days": 2555, "event_pattern": {"source": ["a", "b"]}}},
    "other rules": {"rules": [AUDIT], "dlq_retention_days": 7, "dynamodb_table_arns": [TABLE]},
    "all kinds of targets": {
        "rules": {
            "ticket-created": {"targets": [{"id": "topic", "arn": TOPIC}, *AUDIT["targets"]]},
            "ticket-status-changed": {},
        },
        "service_trust": [{"principals": ["123456789012"]}],
    },
    "no rules": {"rules": []},
}


def template(**variables: Any) -> Template:
    return synthesize(TicketEventsPreset(**variables).stack())


def resources(made: Template, kind: str) -> dict[str, Any]:
    return {name: entry["Properties"] for name, entry in made.resources.items() if entry["Type"] == kind}


def by_name(made: Template, kind: str, name: str) -> dict[str, Any]:
    return {entry[name]: entry for entry in resources(made, kind).values()}


def statements(made: Template, role: str) -> dict[str, Any]:
    policies = by_name(made, "AWS::IAM::Role", "RoleName")[role].get("Policies", ())
    return {
        statement["Sid"]: (statement["Action"], statement["Resource"])
        for policy in policies
        for statement in policy["PolicyDocument"]["Statement"]
    }


# ---------------------------------------------------------------------- the template


def test_cfn_lint_finds_nothing_in_any_option() -> None:
    # Several in one, as each template costs cfn-lint about a second.
    without = {**OPTIONS["no dead-letter queue"], **OPTIONS["no archive"], **OPTIONS["no rules"]}
    with_all = {**OPTIONS["all kinds of targets"], **OPTIONS["a long archive"], **OPTIONS["other names"]}
    more = {"dlq_retention_days": 7, "dynamodb_table_arns": [TABLE], "alarm_topic_arn": TOPIC}
    assert findings(template(), template(**without), template(**with_all, **more)) == []


@pytest.mark.parametrize("variables", OPTIONS.values(), ids=OPTIONS)
def test_the_same_variables_give_the_same_short_template(variables: dict[str, Any]) -> None:
    made = template(**variables)
    assert made.body == template(**variables).body
    assert len(made.body.encode()) < 51_200


def test_outputs_are_exactly_those_of_the_module() -> None:
    layout = template().outputs_layout
    assert list(layout) == [
        "event_bus_name",
        "event_bus_arn",
        "rule_arns",
        "rule_names",
        "dlq_url",
        "dlq_arn",
        "archive_arn",
        "service_role_arn",
        "target_role_arn",
    ]
    assert set(layout["rule_arns"]) == set(layout["rule_names"]) == {"ticket-created", "ticket-status-changed"}


@pytest.mark.parametrize(
    ("variables", "absent"),
    [
        ({"enable_dlq": False}, {"dlq_url", "dlq_arn"}),
        ({"archive_config": {"enabled": False}}, {"archive_arn"}),
        ({}, set()),
    ],
)
def test_what_is_switched_off_is_null_in_the_outputs(variables: dict[str, Any], absent: set[str]) -> None:
    made = template(**variables)
    given = dict.fromkeys(made.document["Outputs"], "there")
    assert {
        name for name, value in assembled_outputs(made.outputs_layout, given).items() if value is None
    } == absent


def test_rules_of_ones_own_stand_in_place_of_the_default_ones() -> None:
    made = template(rules=[AUDIT])
    assert set(made.outputs_layout["rule_arns"]) == {"audit"}
    assert set(by_name(made, "AWS::Events::Rule", "Name")) == {"ticket-audit", "ticket-to-log-group"}


@pytest.mark.parametrize(
    "rules",
    [
        {"audit": AUDIT},
        {"audit": {field: value for field, value in AUDIT.items() if field != "name"}},
        [TicketRuleSpec(**AUDIT)],
        {"audit": TicketRuleSpec(**AUDIT)},
    ],
)
def test_rules_may_be_given_by_name_as_a_list_and_as_specs(rules: Any) -> None:
    assert template(rules=rules).body == template(rules=[AUDIT]).body


def test_a_default_rule_with_other_targets_keeps_the_rest() -> None:
    made = template(rules={"ticket-created": {"targets": AUDIT["targets"]}})
    (rule, _) = by_name(made, "AWS::Events::Rule", "Name").values()
    default = by_name(template(), "AWS::Events::Rule", "Name")["ticket-ticket-created"]
    assert rule["EventPattern"] == default["EventPattern"]
    assert [target["Id"] for target in rule["Targets"]] == ["queue"]


def test_every_target_has_the_dead_letter_queue_unless_it_has_another() -> None:
    own = "arn:aws:sqs:us-east-1:123456789012:own"
    rule = {**AUDIT, "targets": [*AUDIT["targets"], {"id": "own", "arn": TOPIC, "dead_letter": own}]}
    made = template(rules=[rule])
    (dlq,) = resources(made, "AWS::SQS::Queue")
    targets = {
        target["Id"]: target["DeadLetterConfig"]["Arn"]
        for rule in resources(made, "AWS::Events::Rule").values()
        for target in rule["Targets"]
    }
    here = {"Fn::GetAtt": [dlq, "Arn"]}
    assert targets == {"queue": here, "own": own, "log-group": here}


def test_queues_and_topics_outside_are_reached_by_the_target_role_and_functions_by_their_policy() -> None:
    made = template(
        rules=[{**AUDIT, "targets": [*AUDIT["targets"], {"id": "own", "arn": TOPIC, "role": ROLE}]}, *BOTH]
    )
    (target_role,) = [
        name
        for name, entry in made.resources.items()
        if entry["Properties"].get("RoleName", "").endswith("target-role")
    ]
    ours = {"Fn::GetAtt": [target_role, "Arn"]}
    roles = {
        target["Id"]: target.get("RoleArn")
        for rule in resources(made, "AWS::Events::Rule").values()
        for target in rule["Targets"]
    }
    assert roles == {"queue": ours, "own": ROLE, "topic": ours, "ticket-handler": None, "log-group": None}


def test_without_the_queue_no_target_has_one() -> None:
    made = template(enable_dlq=False)
    assert not any(
        "DeadLetterConfig" in target
        for rule in resources(made, "AWS::Events::Rule").values()
        for target in rule["Targets"]
    )
    assert resources(made, "AWS::SQS::Queue") == {}


def test_each_function_may_be_invoked_by_its_rule_only() -> None:
    permissions = resources(template(), "AWS::Lambda::Permission").values()
    assert {(each["FunctionName"]["Fn::Sub"], each["SourceArn"]["Fn::GetAtt"][0]) for each in permissions} == {
        (f"arn:${{AWS::Partition}}:lambda:${{AWS::Region}}:${{AWS::AccountId}}:function:{function}", rule)
        for function, rule in (
            ("ticket-handler", "RuleTicketCreated"),
            ("status-handler", "RuleTicketStatusChanged"),
        )
    }


def test_the_target_role_may_reach_what_the_rules_and_tables_name_and_nothing_else() -> None:
    role = "ticket-eventbridge-target-role"
    handlers = [
        {"Fn::Sub": f"arn:${{AWS::Partition}}:lambda:${{AWS::Region}}:${{AWS::AccountId}}:function:{name}"}
        for name in ("ticket-handler", "status-handler")
    ]
    assert statements(template(), role) == {"InvokeFunctions": (["lambda:InvokeFunction"], handlers)}
    assert statements(template(**OPTIONS["other rules"]), role) == {
        "SendMessages": (["sqs:SendMessage"], [{"Fn::Sub": QUEUE}]),
        "UseTables": (["dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:GetItem"], [TABLE]),
    }
    assert set(statements(template(**OPTIONS["all kinds of targets"]), role)) == {
        "InvokeFunctions",
        "SendMessages",
        "PublishMessages",
    }
    assert statements(template(rules=[]), role) == {}


def test_an_alarm_watches_each_rule_of_the_bus() -> None:
    made = template()
    (bus,) = resources(made, "AWS::Events::EventBus")
    alarms = by_name(made, "AWS::CloudWatch::Alarm", "AlarmName")
    assert set(alarms) == {f"{rule}-failed-invocations" for rule in by_name(made, "AWS::Events::Rule", "Name")}
    for name, said in alarms.items():
        assert (said["Namespace"], said["MetricName"], said["Statistic"]) == (
            "AWS/Events",
            "FailedInvocations",
            "Sum",
        )
        assert (said["Threshold"], said["Period"], said["EvaluationPeriods"]) == (0, 300, 1)
        assert said["ComparisonOperator"] == "GreaterThanThreshold"
        # Metrics of rules on a custom bus have both.
        assert said["Dimensions"] == [
            {"Name": "EventBusName", "Value": {"Ref": bus}},
            {"Name": "RuleName", "Value": name.removesuffix("-failed-invocations")},
        ]


@pytest.mark.parametrize("topic", [TOPIC, None])
def test_every_alarm_tells_the_topic_when_there_is_one(topic: str | None) -> None:
    alarms = resources(template(alarm_topic_arn=topic), "AWS::CloudWatch::Alarm").values()
    assert len(alarms) == 3
    assert all(alarm.get("AlarmActions", []) == ([topic] if topic else []) for alarm in alarms)


def test_the_service_role_may_publish_on_the_bus_and_write_to_the_log_group() -> None:
    made = template()
    (bus,) = resources(made, "AWS::Events::EventBus")
    (group,) = resources(made, "AWS::Logs::LogGroup")
    assert statements(made, "ticket-eventbridge-service-role") == {
        "PublishEvents": (["events:PutEvents"], [{"Fn::GetAtt": [bus, "Arn"]}]),
        "WriteLogs": (
            ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"],
            [{"Fn::GetAtt": [group, "Arn"]}],
        ),
    }


def test_only_rules_of_this_bus_may_take_the_target_role() -> None:
    role = by_name(template(), "AWS::IAM::Role", "RoleName")["ticket-eventbridge-target-role"]
    rules = f"arn:${{AWS::Partition}}:events:${{AWS::Region}}:${{AWS::AccountId}}:rule/{BUS}/*"
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert statement["Condition"] == {
        "StringEquals": {"aws:SourceAccount": {"Fn::Sub": "${AWS::AccountId}"}},
        "ArnLike": {"aws:SourceArn": [{"Fn::Sub": rules}]},
    }


def test_the_log_group_gets_every_event_of_the_bus_and_lets_this_rule_alone_write() -> None:
    made = template()
    ((group, said),) = resources(made, "AWS::Logs::LogGroup").items()
    assert said == {"LogGroupName": "/aws/events/ticket-eventbridge", "RetentionInDays": 30}
    rule = by_name(made, "AWS::Events::Rule", "Name")["ticket-to-log-group"]
    assert rule["EventPattern"] == {"source": [{"exists": True}]}
    (target,) = rule["Targets"]
    # With `:*` at the end, as `Fn::GetAtt` gives it, no event would arrive.
    assert target["Arn"]["Fn::Sub"].endswith(f":log-group:${{{group}}}")
    (policy,) = resources(made, "AWS::Logs::ResourcePolicy").values()
    allowed = json.loads(policy["PolicyDocument"]["Fn::Sub"])["Statement"]
    assert {statement["Action"] for statement in allowed} == {"logs:CreateLogStream", "logs:PutLogEvents"}
    assert [statement["Condition"] for statement in allowed if statement["Action"] == "logs:PutLogEvents"] == [
        {"ArnEquals": {"aws:SourceArn": ["${RuleToLogGroup.Arn}"]}}
    ]


def test_the_example_file_is_one_that_can_be_deployed() -> None:
    stack = read_source(str(EXAMPLES / "infra_ticket_events.toml"))
    assert stack.name == "shop-events"
    assert findings(synthesize(stack)) == []


def test_the_publisher_of_the_docs_fits_the_bus_of_the_docs() -> None:
    said = tomllib.loads((EXAMPLES / "infra_ticket_publisher.toml").read_text())
    config = EventBridgeConfig(**said["eventbridge"])
    assert config.event_bus_name == TicketEventsPreset(name="shop").bus_name
    assert (config.mapping, config.detail_types) == ("plain", DETAIL_TYPES)


# ---------------------------------------------------------------------- bad variables


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"dlq_retention_days": 30}, ["dlq_retention_days = 30", "at most 14 days"]),
        ({"dlq_retention_days": 0}, ["dlq_retention_days = 0", "1 to 14"]),
        ({"name": "t" * 39}, ["name = ", "38", "shorten it"]),
        ({"custom_bus_name": "b" * 40}, ["custom_bus_name", "48"]),
        ({"custom_bus_name": "tickets and more"}, ["custom_bus_name = 'tickets and more'", "change it"]),
        ({"archive_config": {"retention_days": -1}}, ["archive_config", "retention_days = -1"]),
        (
            {"archive_config": {"event_pattern": {"status": ["a"]}}},
            ["archive_config", "event_pattern", "'status'"],
        ),
        ({"rules": 3}, ["rules", "int is neither"]),
        ({"rules": ["audit"]}, ["rules", "'audit' has no fields"]),
        ({"rules": [{"event_pattern": {"source": ["a"]}}]}, ["rules", "no name"]),
        ({"rules": [AUDIT, AUDIT]}, ["rules", "'audit' stands twice"]),
        ({"rules": [{"name": "audit"}]}, ["rules", "event_pattern", "missing"]),
        ({"rules": [{**AUDIT, "event_pattern": "{"}]}, ["rules.audit", "event_pattern", "no JSON"]),
        (
            {"rules": [{**AUDIT, "targets": [{"id": "a", "arn": "queue"}]}]},
            ["rules.audit", "targets.0", "is no ARN"],
        ),
        (
            {
                "rules": [
                    {
                        **AUDIT,
                        "targets": [{"id": "a", "arn": TOPIC, "retry_policy": {"maximum_retry_attempts": 186}}],
                    }
                ]
            },
            ["maximum_retry_attempts = 186", "185"],
        ),
        (
            {"rules": [{**AUDIT, "targets": [{"id": str(at), "arn": TOPIC} for at in range(6)]}]},
            ["audit", "targets: 6", "takes 5"],
        ),
        ({"rules": [{**AUDIT, "targets": [{"id": "a", "arn": TOPIC}] * 2}]}, ["audit", "'a' stands twice"]),
        ({"rules": [{**AUDIT, "name": "to-log-group"}]}, ["rules", "'to-log-group' is the rule", "another name"]),
        (
            {"rules": [{**AUDIT, "targets": [{"id": "a", "arn": STREAM, "role": ROLE}]}]},
            ["rules", "audit", "'a' is of kinesis", "lambda, sqs, sns"],
        ),
        ({"dynamodb_table_arns": ["tickets"]}, ["dynamodb_table_arns", "is no ARN"]),
        ({"dynamodb_table_arns": [ROLE]}, ["dynamodb_table_arns.0", "is no table of DynamoDB", "table/"]),
        ({"service_trust": []}, ["service_trust"]),
        ({"buses": 1}, ["unknown field 'buses'", "custom_bus_name"]),
    ],
)
def test_bad_variables_are_refused_with_field_value_and_remedy(
    variables: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(SpecError) as refused:
        TicketEventsPreset(**variables).stack()
    assert [word for word in words if word not in str(refused.value)] == []


# ---------------------------------------------------------------------- the mapping


@pytest.mark.parametrize(
    ("event_type", "status", "rule"),
    [
        ("com.shop.ticket.created", "created", "ticket-ticket-created"),
        ("com.shop.ticket.status_changed", "approved", "ticket-ticket-status-changed"),
        ("com.shop.ticket.status_changed", "open", None),
        ("com.shop.ticket.created", "approved", None),
    ],
)
def test_an_event_in_the_plain_mapping_matches_its_rule_and_no_other(
    event_type: str, status: str, rule: str | None
) -> None:
    mapper = EventMapper(EventBridgeConfig(mapping="plain", detail_types=DETAIL_TYPES))
    entry = mapper.entry(encode(build_event(event_type, "ticket.service", {"status": status})), 0).document
    event = {
        "source": entry["Source"],
        "detail-type": entry["DetailType"],
        "detail": json.loads(entry["Detail"]),
    }
    matching = [
        name
        for name, said in by_name(template(), "AWS::Events::Rule", "Name").items()
        if name != "ticket-to-log-group" and compile_document_pattern(said["EventPattern"]).matches(event)
    ]
    assert matching == ([rule] if rule else [])


# ---------------------------------------------------------------------- on the emulator


class Shop:
    """The preset's stack, functions for its default targets that echo into a queue, and a queue of the user's."""

    def __init__(self, stack: DeployedStack) -> None:
        self.stack = stack

    async def publish(self, event_type: str, **data: str) -> None:
        """As the ticket service does it: through a router, in the mapping `plain`."""
        config = EventBridgeConfig(
            event_bus_name=BUS, mapping="plain", detail_types=DETAIL_TYPES, **dict(self.stack.config)
        )
        async with EventRouter({"eventbridge": EventBridgePublisher(config)}) as router:
            results = await router.publish_event(build_event(event_type, "ticket.service", data))
        assert results.delivered

    async def received(self, queue: str, count: int = 1) -> list[dict[str, Any]]:
        client = await self.stack.client("sqs")
        url = (await client.get_queue_url(QueueName=queue))["QueueUrl"]
        return await queue_messages(client, url, count=count)


@pytest_asyncio.fixture(scope="module")
async def shop(oms_aws_emulator: AwsEmulator) -> AsyncIterator[Shop]:
    async with AsyncExitStack() as outside:
        clients = DeployedStack(oms_aws_emulator, "outside", outside)
        queues, functions = await clients.client("sqs"), await clients.client("lambda")
        for queue in ("ticket-echo", "ticket-audit"):
            url = (await queues.create_queue(QueueName=queue))["QueueUrl"]
            outside.push_async_callback(queues.delete_queue, QueueUrl=url)
        for name in ("ticket-handler", "status-handler"):
            await functions.create_function(
                FunctionName=name,
                Runtime="python3.13",
                Handler="index.handler",
                Role="arn:aws:iam::000000000000:role/handlers",
                Code={"ZipFile": zipped(echo_code("ticket-echo"))},
            )
            outside.push_async_callback(functions.delete_function, FunctionName=name)
        async with deployed(template(), oms_aws_emulator) as made:
            yield Shop(made)


def zipped(code: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("index.py", code)
    return packed.getvalue()


async def test_the_services_have_what_the_module_promises(shop: Shop) -> None:
    events = await shop.stack.client("events")
    bus = await events.describe_event_bus(Name=BUS)
    queues = await shop.stack.client("sqs")
    dlq = (await queues.get_queue_url(QueueName="ticket-events-dlq"))["QueueUrl"]
    kept = (await queues.get_queue_attributes(QueueUrl=dlq, AttributeNames=["All"]))["Attributes"]
    archive = await events.describe_archive(ArchiveName=f"{BUS}-archive")
    iam = await shop.stack.client("iam")
    roles = {
        part: (await iam.get_role(RoleName=f"ticket-eventbridge-{part}-role"))["Role"]["Arn"]
        for part in ("service", "target")
    }
    rules = {
        name: await events.describe_rule(Name=f"ticket-{name}", EventBusName=BUS)
        for name in ("ticket-created", "ticket-status-changed")
    }
    # The emulator writes its host in two ways.
    urls = {"dlq_url": shop.stack.outputs["dlq_url"].replace("//localhost:", "//127.0.0.1:")}
    assert {**shop.stack.outputs, **urls} == {
        "event_bus_name": BUS,
        "event_bus_arn": bus["Arn"],
        "rule_arns": {name: rule["Arn"] for name, rule in rules.items()},
        "rule_names": {name: rule["Name"] for name, rule in rules.items()},
        "dlq_url": dlq,
        "dlq_arn": kept["QueueArn"],
        "archive_arn": archive["ArchiveArn"],
        "service_role_arn": roles["service"],
        "target_role_arn": roles["target"],
    }
    assert json.loads(rules["ticket-status-changed"]["EventPattern"]) == {
        "source": ["ticket.service"],
        "detail-type": ["Ticket Status Changed"],
        "detail": {"status": ["approved", "rejected", "completed"]},
    }
    assert {rule["State"] for rule in rules.values()} == {"ENABLED"}
    assert kept["MessageRetentionPeriod"] == str(14 * 86_400)
    assert (
        json.loads(kept["Policy"])["Statement"][0]["Condition"]["ArnEquals"]["aws:SourceArn"][0]
        == (rules["ticket-created"]["Arn"])
    )
    assert archive["RetentionDays"] == 365
    assert json.loads(archive["EventPattern"]) == {"source": ["ticket.service"]}
    (target,) = (await events.list_targets_by_rule(Rule="ticket-ticket-created", EventBusName=BUS))["Targets"]
    assert target["Arn"].endswith(":function:ticket-handler")
    assert target["DeadLetterConfig"]["Arn"] == kept["QueueArn"]
    logs = await shop.stack.client("logs")
    (group,) = (await logs.describe_log_groups(logGroupNamePrefix="/aws/events/ticket-eventbridge"))["logGroups"]
    assert group["retentionInDays"] == 30
    name = "ticket-ticket-created-failed-invocations"
    alarm = (await shop.stack.alarms(name))[name]
    assert {
        key: alarm[key] for key in ("Namespace", "MetricName", "Threshold", "Period", "EvaluationPeriods")
    } == {
        "Namespace": "AWS/Events",
        "MetricName": "FailedInvocations",
        "Threshold": 0,
        "Period": 300,
        "EvaluationPeriods": 1,
    }


async def test_events_of_the_router_reach_the_default_functions(shop: Shop) -> None:
    await shop.publish("com.shop.ticket.created", ticket_id="T-1", status="created")
    await shop.publish("com.shop.ticket.status_changed", ticket_id="T-1", status="open")
    await shop.publish("com.shop.ticket.status_changed", ticket_id="T-1", status="approved")
    got = await shop.received("ticket-echo", count=2)
    # Which of them comes first nobody promises.
    assert {(event["detail-type"], event["detail"]["status"]) for event in got} == {
        ("Ticket Created", "created"),
        ("Ticket Status Changed", "approved"),
    }


async def test_a_second_deploy_changes_it_and_the_archive_delivers_again(shop: Shop) -> None:
    begin = datetime.now(UTC) - timedelta(minutes=1)
    await shop.stack.redeploy(
        template(rules=[AUDIT], dlq_retention_days=7, archive_config={"retention_days": 2555})
    )
    assert shop.stack.outputs["rule_names"] == {"audit": "ticket-audit"}
    await shop.publish("com.shop.ticket.created", ticket_id="T-2", status="created")
    short = {"ticket": "T-2", "status": "created"}
    assert await shop.received("ticket-audit") == [short]
    assert await shop.received("ticket-echo", count=0) == []
    queues = await shop.stack.client("sqs")
    kept = await queues.get_queue_attributes(
        QueueUrl=shop.stack.outputs["dlq_url"], AttributeNames=["MessageRetentionPeriod"]
    )
    assert kept["Attributes"] == {"MessageRetentionPeriod": str(7 * 86_400)}
    events = await shop.stack.client("events")
    assert (await events.describe_archive(ArchiveName=f"{BUS}-archive"))["RetentionDays"] == 2555
    (target, _) = [
        target
        for rule in ("ticket-audit", "ticket-to-log-group")
        for target in (await events.list_targets_by_rule(Rule=rule, EventBusName=BUS))["Targets"]
    ]
    assert target["RetryPolicy"] == {"MaximumRetryAttempts": 3, "MaximumEventAgeInSeconds": 3600}

    await events.start_replay(
        ReplayName="ticket-events-again",
        EventSourceArn=shop.stack.outputs["archive_arn"],
        EventStartTime=begin,
        EventEndTime=datetime.now(UTC) + timedelta(minutes=1),
        Destination={"Arn": shop.stack.outputs["event_bus_arn"]},
    )
    # After those of before, perhaps.
    while short not in await shop.received("ticket-audit"):
        pass


async def test_the_library_publishes_under_the_service_role_which_may_do_nothing_else() -> None:
    made = template(rules=[AUDIT], service_trust=[{"principals": ["000000000000"]}])
    with enforcing_emulator() as emulator:
        async with deployed(made, emulator) as stack:
            service = Role(emulator, stack.outputs["service_role_arn"])
            # The role may put events on the bus, and ask nothing about it.
            bus = EventBridgeConfig(event_bus_name=BUS, mapping="plain", verify_bus=False, **service.settings)
            async with EventRouter({"eventbridge": EventBridgePublisher(bus)}) as router:
                event = build_event("com.shop.ticket.created", "ticket.service", {"status": "created"})
                assert (await router.publish_event(event)).delivered
            entry = {"Source": "ticket.service", "DetailType": "x", "Detail": "{}", "EventBusName": "default"}
            for call in (
                Call("events", "PutEvents", {"Entries": [entry]}),
                Call("events", "DeleteEventBus", {"Name": BUS}),
                Call("events", "PutRule", {"Name": "mine", "EventBusName": BUS, "EventPattern": "{}"}),
                # The group's own are refused as well here, for the emulator knows no `:*` at an ARN's end.
                Call("logs", "CreateLogStream", {"logGroupName": "/aws/events/other", "logStreamName": "a"}),
                Call("logs", "DeleteLogGroup", {"logGroupName": "/aws/events/ticket-eventbridge"}),
                Call("sqs", "ReceiveMessage", {"QueueUrl": stack.outputs["dlq_url"]}),
            ):
                assert await service.is_refused(call), str(call)
