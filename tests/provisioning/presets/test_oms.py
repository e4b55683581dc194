"""The preset `oms`: its template, and its stack on the emulator, used by the library's own router and outbox."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from oms_events import (
    DynamoDBOutbox,
    EnhancedEventService,
    EventBridgeConfig,
    EventRouter,
    OutboxConfig,
    build_event,
    encode,
)
from oms_events.devstack import AwsEmulator
from oms_events.errors import SpecError
from oms_events.oms.catalogue import EventType
from oms_events.outbox.streams import buckets_of
from oms_events.provisioning.presets.oms import OmsPreset
from oms_events.provisioning.sources import read_source
from oms_events.provisioning.synthesis import synthesize
from oms_events.provisioning.template import Template, assembled_outputs
from oms_events.publishers.eventbridge import EventBridgePublisher, from_eventbridge_event
from oms_events.publishers.eventbridge.mapping import EventMapper
from oms_events.routing.conditions import compile_document_pattern
from tests.provisioning.embedded import DeployedStack, deployed, echo_code, queue_messages
from tests.provisioning.linting import findings

ROOT = Path(__file__).parents[3]
BUS = "oms-events"
INBOX = {"name": "oms-inbox"}
TO_INBOX = {"id": "inbox", "arn": {"ref": "queue:oms-inbox"}}
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:listener"
TOPIC = "arn:aws:sns:us-east-1:123456789012:operators"
ORDERS = "arn:aws:dynamodb:us-east-1:123456789012:table/orders"
QUEUE = "arn:aws:sqs:us-east-1:123456789012:own-dead-letters"
RELAY = {"code": {"s3_bucket": "code-bucket", "s3_key": "relay-1.zip"}, "handler": "relay.handler"}
ENDPOINT = {
    "vpc_id": "vpc-0123456789abcdef0",
    "subnet_ids": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
    "security_group_ids": ["sg-0123456789abcdef0"],
}

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "other names, types and targets": {
        "event_bus_name": "Acme.oms_events",
        "name": "acme",
        "tags": {"team": "ontology"},
        "termination_protection": True,
        "source_prefix": "com.acme",
        "event_types": ["com.acme.order.placed", "a.b", EventType.SYSTEM_ERROR.value],
        "default_targets": [{"id": "listener", "arn": FUNCTION}],
        "outbox_table_name": "acme.outbox",
        "idempotency_table_name": "acme.seen",
        "alarm_topic_arn": TOPIC,
        "min_invocations": 0,
        "max_error_percent": 1.5,
    },
    "nothing but the bus": {
        "enable_dlq": False,
        "enable_archive": False,
        "enable_outbox": False,
        "enable_idempotency": False,
        "enable_alarms": False,
        "enable_dashboard": False,
        "event_types": [EventType.SCHEMA_CREATED.value, EventType.SYSTEM_ERROR.value],
    },
    "all at once": {
        "queues": [INBOX],
        "default_targets": [TO_INBOX],
        "targets": {"oms_system_error_rule": [TO_INBOX, {"id": "listener", "arn": FUNCTION}]},
        "alarm_emails": ["oncall@example.com", "ontology@example.com"],
        "business_tables": [ORDERS],
        "publisher_trust": [{"principals": ["123456789012"], "external_id": "oms"}],
        "deletion_protection": True,
        "relay": RELAY,
        "endpoint": {**ENDPOINT, "private_dns": False},
    },
}


def template(**variables: Any) -> Template:
    return synthesize(OmsPreset(**variables).stack())


def resources(made: Template, kind: str) -> dict[str, Any]:
    return {name: entry["Properties"] for name, entry in made.resources.items() if entry["Type"] == kind}


def by_name(made: Template, kind: str, name: str) -> dict[str, Any]:
    return {entry[name]: entry for entry in resources(made, kind).values()}


def rules(made: Template) -> dict[str, Any]:
    return by_name(made, "AWS::Events::Rule", "Name")


def statements(made: Template, role: str) -> dict[str, Any]:
    (policy,) = by_name(made, "AWS::IAM::Role", "RoleName")[role]["Policies"]
    return {each["Sid"]: (each["Action"], each["Resource"]) for each in policy["PolicyDocument"]["Statement"]}


def delivered(event_type: str, source: str = "/oms/main", **options: Any) -> dict[str, Any]:
    """What the rules of the bus see of an event: made by the publisher's own mapper."""
    mapper = EventMapper(EventBridgeConfig(event_bus_name=BUS, **options))
    entry = mapper.entry(encode(build_event(event_type, source, {"a": 1})), 0).document
    return {
        "version": "0",
        "id": "11111111-2222-3333-4444-555555555555",
        "account": "123456789012",
        "region": "us-east-1",
        "time": "2026-01-31T10:00:00Z",
        "resources": [],
        "source": entry["Source"],
        "detail-type": entry["DetailType"],
        "detail": json.loads(entry["Detail"]),
    }


def matching(made: Template, event: dict[str, Any]) -> list[str]:
    return [
        name for name, rule in rules(made).items() if compile_document_pattern(rule["EventPattern"]).matches(event)
    ]


# ---------------------------------------------------------------------- the template


def test_cfn_lint_finds_nothing_in_any_option() -> None:
    assert findings(*(template(**variables) for variables in OPTIONS.values())) == []


@pytest.mark.parametrize("variables", OPTIONS.values(), ids=OPTIONS)
def test_the_same_variables_give_the_same_short_template(variables: dict[str, Any]) -> None:
    made = template(**variables)
    assert made.body == template(**variables).body
    assert len(made.body.encode()) < 51_200


def test_outputs_of_a_bus_with_nothing_else() -> None:
    made = template(**OPTIONS["nothing but the bus"])
    found = assembled_outputs(made.outputs_layout, dict.fromkeys(made.document["Outputs"], "there"))
    assert list(found) == list(template().outputs_layout)
    assert {name for name, value in found.items() if value is not None} == {
        "event_bus_name",
        "event_bus_arn",
        "rule_arns",
        "rule_names",
        "publisher_role_arn",
        "publisher_role_name",
    }


def test_every_part_has_its_output() -> None:
    made = template(**OPTIONS["all at once"])
    found = assembled_outputs(made.outputs_layout, dict.fromkeys(made.document["Outputs"], "there"))
    assert [name for name, value in found.items() if value is None] == []


def test_each_type_of_the_catalogue_has_one_rule_by_its_last_two_segments() -> None:
    made = template()
    assert len(rules(made)) == len(EventType) == len(made.outputs_layout["rule_arns"])
    assert "oms_objecttype_created_rule" in rules(made)
    assert list(rules(made)) == [f"oms_{kind.family}_{kind.change}_rule" for kind in EventType]
    assert list(made.outputs_layout["rule_names"]) == [kind.value for kind in EventType]


# ---------------------------------------------------------------------- what the rules match


@pytest.mark.parametrize("kind", EventType)
def test_what_the_publisher_sends_matches_its_rule_and_no_other(kind: EventType) -> None:
    name = f"oms_{kind.family}_{kind.change}_rule"
    assert matching(template(), delivered(kind)) == [name]
    prefixed = {"source_prefix": "com.acme"}
    assert matching(template(**prefixed), delivered(kind, **prefixed)) == [name]
    assert matching(template(**prefixed), delivered(kind)) == []


def test_events_of_every_builder_match() -> None:
    service = EnhancedEventService
    events = [
        service.create_schema_change_event(
            operation="create", resource_type="object_type", resource_id="User", branch="feature/x"
        ),
        service.create_branch_event(operation="merge", branch_name="b", target_branch="main"),
        service.create_proposal_event(operation="approve", proposal_id="p", branch="main"),
        service.create_action_event(job_id="j", action_type="a", status="failed"),
        service.create_system_event(event_subtype="error", component="db", status="down"),
    ]
    found = [matching(template(), delivered(event.get_type(), event.get_source())) for event in events]
    assert found == [
        ["oms_schema_created_rule"],
        ["oms_branch_merged_rule"],
        ["oms_proposal_approved_rule"],
        ["oms_action_failed_rule"],
        ["oms_system_error_rule"],
    ]


def test_the_pattern_of_the_earlier_system_matched_nothing_that_was_sent() -> None:
    earlier = compile_document_pattern({"source": ["oms"], "detail-type": ["Objecttype Created"]})
    event = delivered(EventType.OBJECT_TYPE_CREATED)
    assert event["source"] == "oms.main"
    assert not earlier.matches(event)
    assert matching(template(), event) == ["oms_objecttype_created_rule"]


def test_events_of_others_on_the_bus_match_no_rule() -> None:
    assert matching(template(), delivered("com.shop.schema.created")) == []
    assert matching(template(), delivered(EventType.SCHEMA_CREATED, "/shop/orders")) == []


# ---------------------------------------------------------------------- targets


def test_targets_are_chosen_by_type_by_rule_or_for_all_the_rest() -> None:
    made = template(
        default_targets=[{"id": "all", "arn": FUNCTION}],
        targets={
            EventType.SCHEMA_CREATED: [{"id": "by-type", "arn": FUNCTION}],
            "oms_schema_updated_rule": [{"id": "by-rule", "arn": FUNCTION}],
            "oms_schema_deleted_rule": [],
        },
    )
    found = {name: [target["Id"] for target in rule.get("Targets", ())] for name, rule in rules(made).items()}
    assert found.pop("oms_schema_created_rule") == ["by-type"]
    assert found.pop("oms_schema_updated_rule") == ["by-rule"]
    assert found.pop("oms_schema_deleted_rule") == []
    assert list(found.values()) == [["all"]] * (len(EventType) - 3)


def test_rules_have_no_targets_unless_they_are_given() -> None:
    assert not any("Targets" in rule for rule in rules(template()).values())


def test_every_target_has_the_dead_letter_queue_unless_it_has_its_own_or_none_is_wanted() -> None:
    targets = [{"id": "here", "arn": FUNCTION}, {"id": "own", "arn": FUNCTION, "dead_letter": QUEUE}]
    made = template(default_targets=targets)
    (dlq,) = resources(made, "AWS::SQS::Queue")
    dead_letters = {
        target["Id"]: target["DeadLetterConfig"] for rule in rules(made).values() for target in rule["Targets"]
    }
    assert dead_letters == {"here": {"Arn": {"Fn::GetAtt": [dlq, "Arn"]}}, "own": {"Arn": QUEUE}}
    without = template(default_targets=targets[:1], enable_dlq=False)
    assert not any("DeadLetterConfig" in rule["Targets"][0] for rule in rules(without).values())
    assert resources(without, "AWS::SQS::Queue") == {}


def test_the_queues_take_from_the_rules_of_this_bus_alone_however_many_they_are() -> None:
    made = template(event_bus_name="b" * 256, name="b", queues=[INBOX], default_targets=[TO_INBOX])
    rules_of_bus = f"arn:${{AWS::Partition}}:events:${{AWS::Region}}:${{AWS::AccountId}}:rule/{'b' * 256}/*"
    policies = resources(made, "AWS::SQS::QueuePolicy").values()
    assert len(policies) == 2
    for policy in policies:
        allowed, _ = policy["PolicyDocument"]["Statement"]
        assert allowed["Condition"] == {"ArnLike": {"aws:SourceArn": [{"Fn::Sub": rules_of_bus}]}}


# ---------------------------------------------------------------------- roles


def test_the_publisher_may_use_its_bus_and_its_tables_and_nothing_else() -> None:
    made = template(business_tables=[ORDERS])
    bus = {"Fn::GetAtt": ["BusOmsEvents", "Arn"]}
    assert statements(made, "oms-events-publisher-role") == {
        "Publish": (["events:DescribeEventBus", "events:PutEvents"], [bus]),
        "Outbox": (
            [
                "dynamodb:BatchWriteItem",
                "dynamodb:ConditionCheckItem",
                "dynamodb:DeleteItem",
                "dynamodb:DescribeTable",
                "dynamodb:GetItem",
                "dynamodb:PutItem",
                "dynamodb:Query",
                "dynamodb:UpdateItem",
            ],
            [{"Fn::GetAtt": ["TableOmsEventsOutbox", "Arn"]}],
        ),
        "Idempotency": (
            ["dynamodb:DeleteItem", "dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:PutItem"],
            [{"Fn::GetAtt": ["TableOmsEventsIdempotency", "Arn"]}],
        ),
        "Business": (
            [
                "dynamodb:ConditionCheckItem",
                "dynamodb:DeleteItem",
                "dynamodb:GetItem",
                "dynamodb:PutItem",
                "dynamodb:Query",
                "dynamodb:UpdateItem",
            ],
            [ORDERS],
        ),
    }
    bare = template(**OPTIONS["nothing but the bus"])
    assert set(statements(bare, "oms-events-publisher-role")) == {"Publish"}


@pytest.mark.parametrize(
    "table",
    [
        "arn:aws-cn:dynamodb:cn-north-1:123456789012:table/orders-*",
        "arn:${AWS::Partition}:dynamodb:${AWS::Region}:${AWS::AccountId}:table/orders",
        f"{ORDERS}/index/*",
        {"ref": "table:oms-events-outbox"},
    ],
)
def test_business_tables_are_tables_and_their_indexes(table: Any) -> None:
    made = template(business_tables=[table])
    assert "Business" in statements(made, "oms-events-publisher-role")


def test_the_publisher_may_do_more_when_it_is_said() -> None:
    bucket = "arn:aws:s3:::orders-outbox-data/*"
    more = {"sid": "LargeEvents", "actions": ["s3:PutObject"], "resources": [bucket], "why": "large events"}
    made = template(publisher_statements=[more], relay=RELAY)
    assert statements(made, "oms-events-publisher-role")["LargeEvents"] == (["s3:PutObject"], [bucket])
    assert "LargeEvents" not in statements(made, "oms-events-relay-role")


@pytest.mark.parametrize(
    ("bus", "archive"),
    [
        ("oms-events", "oms-events-archive"),
        ("Acme.oms_events", "Acme.oms_events-archive"),
        ("b" * 40, f"{'b' * 40}-archive"),
        (f"{'b' * 50}x", f"{'b' * 31}-be1ac91e-archive"),
    ],
)
def test_an_archive_is_named_by_its_bus_for_it_cannot_be_given_another(bus: str, archive: str) -> None:
    (made,) = resources(template(event_bus_name=bus, name="fixed"), "AWS::Events::Archive").values()
    assert made["ArchiveName"] == archive


def test_who_may_take_the_publishers_role_is_a_variable() -> None:
    def principals(made: Template) -> list[Any]:
        (role,) = resources(made, "AWS::IAM::Role").values()
        return [each["Principal"] for each in role["AssumeRolePolicyDocument"]["Statement"]]

    assert principals(template()) == [
        {"Service": "ecs-tasks.amazonaws.com"},
        {"Service": "lambda.amazonaws.com"},
    ]
    trust = [{"service": "ec2.amazonaws.com"}]
    assert principals(template(publisher_trust=trust)) == [{"Service": "ec2.amazonaws.com"}]


# ---------------------------------------------------------------------- the relay and the endpoint


def test_the_relay_reads_new_records_and_answers_with_those_that_failed() -> None:
    made = template(relay=RELAY)
    (mapping,) = resources(made, "AWS::Lambda::EventSourceMapping").values()
    assert mapping["EventSourceArn"] == {"Fn::GetAtt": ["TableOmsEventsOutbox", "StreamArn"]}
    assert mapping["FilterCriteria"] == {"Filters": [{"Pattern": '{"eventName":["INSERT"]}'}]}
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    queue = {"Fn::GetAtt": ["QueueOmsEventsRelayFailures", "Arn"]}
    assert mapping["DestinationConfig"] == {"OnFailure": {"Destination": queue}}
    table = by_name(made, "AWS::DynamoDB::Table", "TableName")["oms-events-outbox"]
    assert table["StreamSpecification"] == {"StreamViewType": "KEYS_ONLY"}
    assert "StreamSpecification" not in resources(template(), "AWS::DynamoDB::Table")["TableOmsEventsOutbox"]


def test_the_relay_is_swept_each_minute_and_knows_its_bus_and_table() -> None:
    made = template(relay={**RELAY, "environment": {"OMS_NATS_URL": "nats://nats:4222"}})
    sweep = rules(made)["oms-events-relay-sweep"]
    assert sweep["ScheduleExpression"] == "rate(1 minute)"
    assert [target["Arn"] for target in sweep["Targets"]] == [{"Fn::GetAtt": ["FunctionOmsEventsRelay", "Arn"]}]
    (function,) = resources(made, "AWS::Lambda::Function").values()
    assert function["Environment"]["Variables"] == {
        "OMS_EVENTBRIDGE_BUS_NAME": {"Ref": "BusOmsEvents"},
        "OMS_OUTBOX_TABLE": {"Ref": "TableOmsEventsOutbox"},
        "OMS_NATS_URL": "nats://nats:4222",
    }


def test_the_relays_role_may_do_no_more_than_relay() -> None:
    found = statements(template(relay=RELAY), "oms-events-relay-role")
    assert {sid: resource for sid, (_, resource) in found.items()} == {
        "Publish": [{"Fn::GetAtt": ["BusOmsEvents", "Arn"]}],
        "Outbox": [{"Fn::GetAtt": ["TableOmsEventsOutbox", "Arn"]}],
        "Stream": [{"Fn::GetAtt": ["TableOmsEventsOutbox", "StreamArn"]}],
        "FindStreams": ["*"],
        "Failures": [{"Fn::GetAtt": ["QueueOmsEventsRelayFailures", "Arn"]}],
        "Logs": [
            {
                "Fn::Sub": "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:"
                "/aws/lambda/oms-events-relay:*"
            }
        ],
    }
    assert found["Stream"][0] == ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"]
    assert found["FindStreams"][0] == ["dynamodb:ListStreams"]


def test_through_the_endpoint_one_can_publish_to_the_bus_and_do_nothing_else() -> None:
    other = "arn:aws:events:us-east-1:123456789012:event-bus/other"
    made = template(endpoint={**ENDPOINT, "other_buses": [other]})
    (endpoint,) = resources(made, "AWS::EC2::VPCEndpoint").values()
    assert endpoint["ServiceName"] == {"Fn::Sub": "com.amazonaws.${AWS::Region}.events"}
    (statement,) = endpoint["PolicyDocument"]["Statement"]
    assert statement["Action"] == ["events:DescribeEventBus", "events:PutEvents"]
    assert statement["Resource"] == [{"Fn::GetAtt": ["BusOmsEvents", "Arn"]}, other]
    assert endpoint["PrivateDnsEnabled"] is True


# ---------------------------------------------------------------------- alarms and dashboard


def test_the_alarms_watch_the_whole_bus() -> None:
    found = by_name(template(alarm_topic_arn=TOPIC), "AWS::CloudWatch::Alarm", "AlarmName")
    assert list(found) == ["oms-events-failed-invocations", "oms-events-few-invocations", "oms-events-error-rate"]
    failed, few, rate = found.values()
    (query,) = failed["Metrics"]
    assert query["Expression"] == (
        'SELECT SUM(FailedInvocations) FROM SCHEMA("AWS/Events", EventBusName, RuleName) '
        "WHERE EventBusName = 'oms-events'"
    )
    assert (failed["ComparisonOperator"], failed["Threshold"]) == ("GreaterThanThreshold", 0)
    assert (few["MetricName"], few["Dimensions"]) == (
        "InvocationAttempts",
        [{"Name": "EventBusName", "Value": BUS}],
    )
    assert few["Period"] * few["EvaluationPeriods"] == 15 * 60
    assert (few["ComparisonOperator"], few["Threshold"]) == ("LessThanThreshold", 1)
    assert few["TreatMissingData"] == "breaching"
    assert [query.get("Expression") for query in rate["Metrics"]] == [
        None,
        None,
        "100 * (tried - FILL(done, 0)) / tried",
    ]
    assert (rate["ComparisonOperator"], rate["Threshold"]) == ("GreaterThanThreshold", 10)
    assert all(alarm["AlarmActions"] == [TOPIC] for alarm in found.values())


def test_without_a_topic_alarms_tell_nobody_and_a_quiet_bus_can_do_without_one() -> None:
    found = by_name(template(min_invocations=0), "AWS::CloudWatch::Alarm", "AlarmName")
    assert list(found) == ["oms-events-failed-invocations", "oms-events-error-rate"]
    assert not any("AlarmActions" in alarm for alarm in found.values())


def test_the_topic_for_addresses_has_a_key_that_cloudwatch_may_use() -> None:
    made = template(alarm_emails=["oncall@example.com"])
    (topic,) = resources(made, "AWS::SNS::Topic").values()
    ((key, said),) = resources(made, "AWS::KMS::Key").items()
    assert topic["KmsMasterKeyId"] == {"Fn::GetAtt": [key, "Arn"]}
    services = [statement["Principal"].get("Service") for statement in said["KeyPolicy"]["Statement"]]
    assert services == [None, "cloudwatch.amazonaws.com"]
    (subscription,) = resources(made, "AWS::SNS::Subscription").values()
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "oncall@example.com")
    (policy,) = resources(made, "AWS::SNS::TopicPolicy").values()
    assert policy["PolicyDocument"]["Statement"][0]["Principal"] == {"Service": "cloudwatch.amazonaws.com"}


def test_the_dashboard_shows_the_rules_and_the_librarys_own_metrics() -> None:
    made = template(metrics_namespace="Acme/Oms", metrics_prefix="acme")
    (said,) = resources(made, "AWS::CloudWatch::Dashboard").values()
    widgets = json.loads(said["DashboardBody"]["Fn::Sub"])["widgets"]
    lines = [line["expression"] for widget in widgets for (line,) in widget["properties"].get("metrics", ())]
    of_rules = [line for line in lines if '{"AWS/Events","EventBusName","RuleName"}' in line]
    assert [metric for line in of_rules for metric in ("Invocations", "FailedInvocations", "MatchedEvents")
            if f'MetricName="{metric}" EventBusName="oms-events"' in line] == [
        "Invocations", "FailedInvocations", "MatchedEvents"
    ]  # fmt: skip
    own = [line for line in lines if '{"Acme/Oms"' in line]
    assert 'SEARCH(\'{"Acme/Oms","outcome","platform"} MetricName="acme_published_total"\', \'Sum\', 300)' in own
    assert len(own) == 6
    assert len([widget for widget in widgets if widget["type"] == "alarm"]) == 1


def test_the_dashboard_looks_for_the_labels_that_the_docs_have_the_agent_send() -> None:
    (said,) = resources(template(), "AWS::CloudWatch::Dashboard").values()
    searches = [
        line["expression"]
        for widget in json.loads(said["DashboardBody"]["Fn::Sub"])["widgets"]
        for (line,) in widget["properties"].get("metrics", ())
    ]
    looked_for = {
        found[2]: sorted(json.loads(f"[{found[1]}]"))
        for search in searches
        if (found := re.search(r'\{"OmsEvents",([^}]+)\} MetricName="(\w+)"', search))
    }
    page = (ROOT / "docs/reference/preset-oms.md").read_text(encoding="utf-8")
    (agent,) = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL) if "emf" in block]
    prometheus = agent["logs"]["metrics_collected"]["prometheus"]["emf_processor"]
    sent = {
        selector.strip("^$"): sorted(labels)
        for declaration in prometheus["metric_declaration"]
        for selector in declaration["metric_selectors"]
        for labels in declaration["dimensions"]
    }
    assert prometheus["metric_namespace"] == "OmsEvents"
    assert looked_for == sent


@pytest.mark.parametrize("file", ["infra_oms.toml", "first_infrastructure.toml"])
def test_the_example_files_are_deployable_as_they_are(file: str) -> None:
    made = synthesize(read_source(str(ROOT / "examples" / file)))
    assert "oms_schema_created_rule" in rules(made)
    assert len(made.body.encode()) < 51_200


# ---------------------------------------------------------------------- bad variables


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"event_bus_name": "oms events"}, ["event_bus_name = 'oms events'", "letters, digits"]),
        ({"event_bus_name": "b" * 257}, ["event_bus_name", "256"]),
        ({"event_bus_name": "default"}, ["default", "every account has"]),
        ({"event_bus_name": "1st"}, ["event_bus_name = '1st'", "give `name`"]),
        ({"event_bus_name": "b" * 41}, ["event_bus_name", "39", "give `name`"]),
        ({"name": "oms_events"}, ["name = 'oms_events'", "letters, digits and '-'"]),
        ({"name": "n" * 41}, ["name = ", "shorten it"]),
        ({"event_types": []}, ["event_types"]),
        ({"event_types": ["created"]}, ["event_types: 'created'", "last two segments"]),
        ({"event_types": ["a.x.created", "b.x.created"]}, ["a.x.created", "oms_x_created_rule", "keep one"]),
        ({"event_types": ["a.b", "a.b"]}, ["'a.b' stands more than once"]),
        ({"event_types": [f"a.{'b' * 60}"]}, ["1 to 64", "shorten it"]),
        ({"source_prefix": "aws"}, ["source_prefix", "AWS keeps"]),
        ({"targets": {"oms_schema_created": []}}, ["targets: 'oms_schema_created'", "neither", "rule"]),
        (
            {"targets": {"oms_schema_created_rule": [], EventType.SCHEMA_CREATED.value: []}},
            ["targets", "mean the same rule", "keep one"],
        ),
        ({"default_targets": [{"id": "a", "arn": "queue"}]}, ["default_targets", "is no ARN"]),
        (
            {"default_targets": [{"id": "a", "arn": {"ref": "queue:inbox"}}]},
            ["queue:inbox", "not in this stack", "oms-events-dlq"],
        ),
        ({"default_targets": [{"id": str(at), "arn": FUNCTION} for at in range(6)]}, ["targets: 6", "takes 5"]),
        ({"dlq_retention_days": 15}, ["dlq_retention_days = 15", "14"]),
        ({"archive_retention_days": -1}, ["archive_retention_days = -1"]),
        ({"publisher_trust": []}, ["publisher_trust"]),
        ({"publisher_trust": [{"principals": ["*"]}]}, ["publisher_trust", "'*'"]),
        (
            {"business_tables": ["arn:aws:dynamodb:us-east-1:123456789012:table/*"]},
            ["business_tables.0", "names no"],
        ),
        ({"business_tables": ["arn:aws:s3:::orders"]}, ["business_tables.0", "is no table of DynamoDB", "table/"]),
        ({"business_tables": ["*"]}, ["business_tables.0 = '*'", "is no table of DynamoDB"]),
        ({"business_tables": [f"{ORDERS}/stream/2026"]}, ["business_tables.0", "is no table of DynamoDB"]),
        (
            {"business_tables": ["arn:aws:dynamodb:us-east-1:*:table/orders"]},
            ["business_tables.0", "all accounts"],
        ),
        (
            {"business_tables": [{"ref": "table:oms-events-outbox", "attribute": "stream_arn"}]},
            ["business_tables.0", "stream_arn", "is no table"],
        ),
        (
            {"publisher_statements": [{"actions": ["s3:PutObject"], "resources": ["*"], "why": "large"}]},
            ["publisher_statements.0", "s3:PutObject", "name the resources"],
        ),
        ({"outbox_table_name": "o!"}, ["TableSpec 'o!'", "name = 'o!'"]),
        ({"outbox_table_name": "mine", "enable_outbox": False}, ["outbox_table_name", "enable_outbox = true"]),
        ({"relay": RELAY, "enable_outbox": False}, ["relay", "enable_outbox = true"]),
        ({"relay": {"handler": "a.b"}}, ["relay", "'code' is missing"]),
        ({"relay": {**RELAY, "timeout": 5}}, ["relay", "timeout = 5"]),
        ({"endpoint": {**ENDPOINT, "vpc_id": "main"}}, ["vpc_id", "'main' is no id", "vpc-"]),
        ({"alarm_topic_arn": TOPIC, "alarm_emails": ["a@example.com"]}, ["alarm_topic_arn and alarm_emails"]),
        ({"alarm_emails": ["oncall"]}, ["'oncall'", "team@example.com"]),
        ({"alarm_topic_arn": TOPIC, "enable_alarms": False}, ["enable_alarms = true"]),
        ({"min_invocations": -1}, ["min_invocations = -1"]),
        ({"max_error_percent": 100}, ["max_error_percent = 100"]),
        ({"metrics_namespace": "a'b"}, ['metrics_namespace = "a\'b"']),
        ({"bus": "a"}, ["unknown field 'bus'", "event_bus_name"]),
    ],
)
def test_bad_variables_are_refused_with_field_value_and_remedy(
    variables: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(SpecError) as refused:
        OmsPreset(**variables).stack()
    assert [word for word in words if word not in str(refused.value)] == []


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SpecError) as refused:
        OmsPreset(name="oms_events", event_types=["created"], relay=RELAY, enable_outbox=False)
    assert [word for word in ("name = ", "event_types", "relay") if word not in str(refused.value)] == []


# ---------------------------------------------------------------------- on the emulator


class Oms:
    """The preset's stack with a queue that gets every event."""

    def __init__(self, stack: DeployedStack) -> None:
        self.stack = stack

    def router(self) -> EventRouter:
        config = EventBridgeConfig(event_bus_name=BUS, **dict(self.stack.config))
        return EventRouter({"eventbridge": EventBridgePublisher(config)})

    async def received(self, queue: str = "oms-inbox", count: int = 1) -> list[dict[str, Any]]:
        client = await self.stack.client("sqs")
        url = (await client.get_queue_url(QueueName=queue))["QueueUrl"]
        return await queue_messages(client, url, count=count)


IN_USE = {"queues": [INBOX], "default_targets": [TO_INBOX]}


@pytest_asyncio.fixture(scope="module")
async def oms(oms_aws_emulator: AwsEmulator) -> AsyncIterator[Oms]:
    async with deployed(template(**IN_USE), oms_aws_emulator) as made:
        yield Oms(made)


async def test_the_services_have_what_the_outputs_say(oms: Oms) -> None:
    found = oms.stack.outputs
    events = await oms.stack.client("events")
    assert (await events.describe_event_bus(Name=BUS))["Arn"] == found["event_bus_arn"]
    assert found["event_bus_name"] == BUS
    there = {rule["Name"]: rule for rule in (await events.list_rules(EventBusName=BUS))["Rules"]}
    assert found["rule_names"] == {kind.value: f"oms_{kind.family}_{kind.change}_rule" for kind in EventType}
    assert {rule["Arn"] for rule in there.values()} == set(found["rule_arns"].values())
    assert {rule["State"] for rule in there.values()} == {"ENABLED"}
    archive = await events.describe_archive(ArchiveName="oms-events-archive")
    assert (archive["ArchiveArn"], archive["RetentionDays"]) == (found["archive_arn"], 365)
    (target,) = (await events.list_targets_by_rule(Rule="oms_schema_created_rule", EventBusName=BUS))["Targets"]
    assert target["DeadLetterConfig"]["Arn"] == found["dlq_arn"]
    dynamodb = await oms.stack.client("dynamodb")
    for name, keys in (("outbox", ["pk", "sk"]), ("idempotency", ["pk"])):
        table = (await dynamodb.describe_table(TableName=found[f"{name}_table_name"]))["Table"]
        assert (table["TableName"], table["TableArn"]) == (f"oms-events-{name}", found[f"{name}_table_arn"])
        assert [key["AttributeName"] for key in table["KeySchema"]] == keys
        assert table["SSEDescription"]["Status"] == "ENABLED"
    ttl = await dynamodb.describe_time_to_live(TableName="oms-events-idempotency")
    assert ttl["TimeToLiveDescription"] == {"AttributeName": "ttl", "TimeToLiveStatus": "ENABLED"}
    iam = await oms.stack.client("iam")
    role = (await iam.get_role(RoleName=found["publisher_role_name"]))["Role"]
    assert role["Arn"] == found["publisher_role_arn"]
    alarms = await oms.stack.alarms("oms-events-few-invocations", "oms-events-error-rate")
    assert alarms["oms-events-few-invocations"]["Threshold"] == 1
    cloudwatch = await oms.stack.client("cloudwatch")
    body = json.loads((await cloudwatch.get_dashboard(DashboardName=found["dashboard_name"]))["DashboardBody"])
    assert {widget["properties"].get("region", "us-east-1") for widget in body["widgets"]} == {"us-east-1"}


@pytest.mark.parametrize("kind", EventType)
async def test_the_service_itself_finds_that_the_rule_matches(oms: Oms, kind: EventType) -> None:
    events = await oms.stack.client("events")
    rule = await events.describe_rule(Name=oms.stack.outputs["rule_names"][kind], EventBusName=BUS)

    async def matches(pattern: str, event: dict[str, Any]) -> bool:
        return bool((await events.test_event_pattern(EventPattern=pattern, Event=json.dumps(event)))["Result"])

    assert await matches(rule["EventPattern"], delivered(kind))
    assert not await matches(rule["EventPattern"], delivered("com.foundry.oms.schema.moved"))
    assert not await matches(json.dumps({"source": ["oms"]}), delivered(kind))


async def test_every_event_that_the_router_publishes_arrives_once(oms: Oms) -> None:
    sent = [build_event(kind, "/oms/main", {"at": at}) for at, kind in enumerate(EventType)]
    async with oms.router() as router:
        results = await router.publish_events(sent)
    assert all(result.delivered for result in results)
    got = [from_eventbridge_event(event) for event in await oms.received(count=len(sent))]
    assert sorted(event.get_id() for event in got) == sorted(event.get_id() for event in sent)


async def test_a_second_deploy_adds_the_relay_and_the_archive_delivers_again(oms: Oms) -> None:
    begin = datetime.now(UTC) - timedelta(minutes=1)
    relay = {"code": {"inline": echo_code("oms-echo")}, "handler": "index.handler"}
    targets = {"oms_system_error_rule": [], EventType.SYSTEM_MAINTENANCE.value: []}
    queues = [INBOX, {"name": "oms-echo"}]
    await oms.stack.redeploy(template(**{**IN_USE, "queues": queues, "targets": targets, "relay": relay}))
    assert oms.stack.outputs["relay_function_name"] == "oms-events-relay"
    events = await oms.stack.client("events")
    sweep = await events.describe_rule(Name="oms-events-relay-sweep")
    assert (sweep["ScheduleExpression"], sweep["State"]) == ("rate(1 minute)", "ENABLED")

    error = build_event(EventType.SYSTEM_ERROR, "/oms/system/db", {})
    created = build_event(EventType.SCHEMA_CREATED, "/oms/main", {})
    async with oms.router() as router:
        await router.publish_events([error, created])
    (got,) = await oms.received()
    assert from_eventbridge_event(got).get_id() == created.get_id()

    await events.start_replay(
        ReplayName="oms-again",
        EventSourceArn=oms.stack.outputs["archive_arn"],
        EventStartTime=begin,
        EventEndTime=datetime.now(UTC) + timedelta(minutes=1),
        Destination={"Arn": oms.stack.outputs["event_bus_arn"]},
    )
    replayed = [await oms.received()]
    # After those of before, perhaps.
    while created.get_id() not in {from_eventbridge_event(event).get_id() for event in replayed[-1]}:
        replayed.append(await oms.received())

    config = OutboxConfig(table_name=oms.stack.outputs["outbox_table_name"], **dict(oms.stack.config))
    async with DynamoDBOutbox(config) as outbox:
        await outbox.add(build_event(EventType.BRANCH_CREATED, "/oms/main", {}, partitionkey="main"))
    # The layout is an INSERT too, and no bucket's.
    while not any(buckets_of(event) for event in await oms.received("oms-echo")):
        pass
