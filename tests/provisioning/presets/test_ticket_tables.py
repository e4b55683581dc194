"""The preset `ticket-tables`: its template, and its stack on the emulator, used under its own roles."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from oms_events import (
    DynamoDBOutbox,
    EventBridgeConfig,
    EventRouter,
    OutboxConfig,
    OutboxProcessor,
    build_event,
)
from oms_events.devstack import AwsEmulator
from oms_events.errors import SpecError
from oms_events.idempotency import DynamoDBIdempotencyStore, IdempotencyConfig, idempotent
from oms_events.provisioning.presets.ticket_tables import TicketTablesPreset
from oms_events.provisioning.sources import read_source
from oms_events.provisioning.synthesis import synthesize
from oms_events.provisioning.template import Template
from oms_events.publishers.eventbridge import EventBridgePublisher
from tests.provisioning.embedded import DeployedStack, deployed, queue_messages
from tests.provisioning.linting import findings
from tests.provisioning.permissions import Call, Role, enforcing_emulator

EXAMPLES = Path(__file__).parents[3] / "examples"

ACCOUNT = "000000000000"
TRUSTED = [{"principals": [ACCOUNT]}]
TOPIC = "arn:aws:sns:us-east-1:123456789012:alarms"
KEY = "1234abcd-12ab-34cd-56ef-1234567890ab"
PROVIDER = "arn:aws:iam::123456789012:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE"

TABLES = {
    "tickets": ("ticket_id", None),
    "users": ("user_id", None),
    "ticket-events": ("pk", "sk"),
    "reservation-reservations": ("pk", "sk"),
    "reservation-orders": ("pk", "sk"),
    "reservation-idempotency": ("pk", None),
    "reservation-outbox": ("pk", "sk"),
}
INDEXES = {
    "tickets": {"user-index": ["user_id"], "status-index": ["status"]},
    "users": {"email-index": ["email"]},
    "reservation-reservations": {"GSI1": ["gsi1pk", "gsi1sk"]},
    "reservation-orders": {"GSI1": ["gsi1pk", "gsi1sk"]},
}

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "another name": {"name": "prod"},
    "streams": {"tables": {"tickets": {"stream": "new_image"}, "reservation-outbox": {"stream": "keys_only"}}},
    "capacities": {"tables": {"tickets": {"billing": {"read": 10, "write": 10}}}},
    "autoscaling": {
        "tables": {"users": {"billing": {"read": 5, "write": 5, "autoscaling": {"min": 5, "max": 50}}}}
    },
    "a key of ones own": {"kms_key_id": KEY},
    "a key of ones own by ARN": {"kms_key_id": f"arn:aws:kms:us-east-1:123456789012:key/{KEY}"},
    "the service's key": {"server_side_encryption": False},
    "protected": {"enable_deletion_protection": True, "enable_point_in_time_recovery": False},
    "more tables and fewer": {
        "tables": [
            {"name": "seats", "hash_key": "seat", "range_key": "row", "attribute_types": {"row": "N"}},
            {"name": "reservation-holds", "hash_key": "pk", "ttl_attribute": "ttl"},
            {"name": "users", "enabled": False},
        ]
    },
    "no reservations": {
        "tables": {key: {"enabled": False} for key in TABLES if key.startswith("reservation-")},
    },
    "a cluster": {
        "reservation_trust": [
            {"service": "ecs-tasks.amazonaws.com"},
            {"provider": PROVIDER, "service_accounts": ["tickets/reservation-api"]},
        ]
    },
}


def template(**variables: Any) -> Template:
    return synthesize(TicketTablesPreset(**variables).stack())


def resources(made: Template, kind: str, name: str) -> dict[str, Any]:
    found = [entry["Properties"] for entry in made.resources.values() if entry["Type"] == kind]
    return {entry[name]: entry for entry in found}


def tables(made: Template) -> dict[str, Any]:
    return resources(made, "AWS::DynamoDB::Table", "TableName")


def statements(made: Template, role: str) -> dict[str, Any]:
    (policy,) = resources(made, "AWS::IAM::Role", "RoleName")[role]["Policies"]
    return {statement["Sid"]: statement for statement in policy["PolicyDocument"]["Statement"]}


# ---------------------------------------------------------------------- the template


def test_cfn_lint_finds_nothing_in_any_option() -> None:
    # Several in one, as a template of this size costs cfn-lint more than a second.
    autoscaling = {"billing": {"read": 5, "write": 5, "autoscaling": {"min": 5, "max": 50}}}
    assert (
        findings(
            template(),
            template(**OPTIONS["no reservations"], **OPTIONS["protected"], server_side_encryption=False),
            template(
                name="prod",
                kms_key_id=KEY,
                alarm_topic_arn=TOPIC,
                **OPTIONS["a cluster"],
                tables=[
                    {"name": "tickets", "stream": "new_image", **autoscaling},
                    *OPTIONS["more tables and fewer"]["tables"],
                ],
            ),
        )
        == []
    )


@pytest.mark.parametrize("variables", OPTIONS.values(), ids=OPTIONS)
def test_the_same_variables_give_the_same_short_template(variables: dict[str, Any]) -> None:
    made = template(**variables)
    assert made.body == template(**variables).body
    assert len(made.body.encode()) < 51_200


def test_outputs_are_exactly_those_of_the_module() -> None:
    layout = template(**OPTIONS["streams"]).outputs_layout
    assert list(layout) == [
        "table_names",
        "table_arns",
        "table_stream_arns",
        "application_role_arn",
        "application_role_name",
        "readonly_role_arn",
        "readonly_role_name",
        "reservation_service_role_arn",
        "reservation_service_role_name",
        "reservation_tables",
    ]
    assert list(layout["table_names"]) == list(layout["table_arns"]) == list(TABLES)
    assert list(layout["table_stream_arns"]) == ["tickets", "reservation-outbox"]
    assert list(layout["reservation_tables"]) == [key for key in TABLES if key.startswith("reservation-")]
    assert template().outputs_layout["table_stream_arns"] == {}


def test_tables_are_on_demand_encrypted_recoverable_and_without_streams_by_default() -> None:
    for said in tables(template()).values():
        assert said["BillingMode"] == "PAY_PER_REQUEST"
        assert said["SSESpecification"] == {"SSEEnabled": True}
        assert said["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
        assert said["DeletionProtectionEnabled"] is False
        assert "StreamSpecification" not in said


def test_the_options_of_all_tables_reach_all_tables() -> None:
    made = tables(template(**OPTIONS["protected"], kms_key_id=KEY))
    assert len(made) == len(TABLES)
    for said in made.values():
        assert said["DeletionProtectionEnabled"] is True
        assert said["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": False}
        assert said["SSESpecification"]["KMSMasterKeyId"] == {
            "Fn::Sub": f"arn:${{AWS::Partition}}:kms:${{AWS::Region}}:${{AWS::AccountId}}:key/{KEY}"
        }


def test_options_of_one_table_change_that_table_only_and_none_goes_by_being_left_out() -> None:
    default, changed = tables(template()), tables(template(**OPTIONS["autoscaling"]))
    assert {name for name in default if default[name] != changed[name]} == {"ticket-users"}
    assert changed["ticket-users"]["ProvisionedThroughput"] == {"ReadCapacityUnits": 5, "WriteCapacityUnits": 5}
    scaled = resources(
        template(**OPTIONS["autoscaling"]), "AWS::ApplicationAutoScaling::ScalableTarget", "ScalableDimension"
    )
    assert {(each["MinCapacity"], each["MaxCapacity"]) for each in scaled.values()} == {(5, 50)}
    assert set(scaled) == {
        f"dynamodb:{part}:{way}CapacityUnits" for part in ("table", "index") for way in ("Read", "Write")
    }


def test_tables_of_ones_own_are_in_roles_alarms_and_outputs_and_removed_ones_are_not() -> None:
    made = template(**OPTIONS["more tables and fewer"])
    layout = made.outputs_layout
    assert set(layout["table_names"]) == {*TABLES, "seats", "reservation-holds"} - {"users"}
    assert set(layout["reservation_tables"]) >= {"reservation-holds", "reservation-outbox"}
    assert {"ticket-seats-read-throttle", "ticket-seats-write-throttle"} <= set(
        resources(made, "AWS::CloudWatch::Alarm", "AlarmName")
    )
    ours = {"Fn::GetAtt": ["TableReservationHolds", "Arn"]}
    for role in ("dynamodb-application-role", "dynamodb-readonly-role", "reservation-api-service-role"):
        assert ours in statements(made, f"ticket-{role}")["UseTables"]["Resource"]
    seats = {"Fn::GetAtt": ["TableSeats", "Arn"]}
    assert seats not in statements(made, "ticket-reservation-api-service-role")["UseTables"]["Resource"]


def test_each_table_has_a_read_and_a_write_alarm() -> None:
    alarms = resources(template(), "AWS::CloudWatch::Alarm", "AlarmName")
    assert set(alarms) == {f"ticket-{key}-{way}-throttle" for key in TABLES for way in ("read", "write")}
    for name, said in alarms.items():
        assert said["MetricName"] == ("ReadThrottleEvents" if "-read-" in name else "WriteThrottleEvents")
        assert (said["Threshold"], said["EvaluationPeriods"], said["Period"]) == (0, 2, 300)
        assert (said["Namespace"], said["Statistic"]) == ("AWS/DynamoDB", "Sum")


def test_roles_may_do_exactly_what_the_module_lists() -> None:
    made = template()
    items = {f"dynamodb:{name}" for name in ("GetItem", "Query", "Scan", "BatchGetItem")}
    writes = {f"dynamodb:{name}" for name in ("PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem")}
    application = statements(made, "ticket-dynamodb-application-role")
    readonly = statements(made, "ticket-dynamodb-readonly-role")
    assert set(application["UseTables"]["Action"]) == items | writes
    assert set(readonly["UseTables"]["Action"]) == items | {"dynamodb:DescribeTable"}
    for role in (application, readonly):
        assert set(role) == {"UseTables", "UseIndexes"}
        assert set(role["UseIndexes"]["Action"]) == {"dynamodb:Query", "dynamodb:Scan"}
        assert len(role["UseTables"]["Resource"]) == len(TABLES)
        assert len(role["UseIndexes"]["Resource"]) == len(INDEXES)
    reservation = statements(made, "ticket-reservation-api-service-role")
    assert set(reservation) == {"UseTables", "UseIndexes", "PublishEvents", "WriteLogs"}
    bus = "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus/reservation-events"
    assert reservation["PublishEvents"]["Action"] == ["events:PutEvents"]
    assert reservation["PublishEvents"]["Resource"] == [{"Fn::Sub": bus}]
    (logs,) = reservation["WriteLogs"]["Resource"]
    assert logs["Fn::Sub"].endswith(":log-group:/aws/ecs/reservation-api:*")


def test_with_a_key_of_ones_own_the_roles_may_use_it_through_dynamodb_and_readers_only_decrypt() -> None:
    made = template(kms_key_id=KEY)
    readonly = statements(made, "ticket-dynamodb-readonly-role")["UseKey"]
    application = statements(made, "ticket-dynamodb-application-role")["UseKey"]
    assert readonly["Action"] == ["kms:Decrypt", "kms:DescribeKey"]
    assert "kms:Encrypt" in application["Action"]
    for statement in (readonly, application):
        ((via, _),) = statement["Condition"]["StringEquals"].items()
        assert via == "kms:ViaService"


def test_the_reservation_role_is_for_ecs_tasks_and_for_the_service_account_of_a_cluster() -> None:
    made = template(**OPTIONS["a cluster"])
    trust = resources(made, "AWS::IAM::Role", "RoleName")["ticket-reservation-api-service-role"]
    tasks, account = trust["AssumeRolePolicyDocument"]["Statement"]
    assert tasks["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
    assert account["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert account["Principal"] == {"Federated": PROVIDER}
    issuer = PROVIDER.partition("/")[2]
    assert account["Condition"]["StringEquals"] == {
        f"{issuer}:sub": ["system:serviceaccount:tickets:reservation-api"],
        f"{issuer}:aud": "sts.amazonaws.com",
    }


def test_every_alarm_tells_the_topic_when_there_is_one() -> None:
    for topic in (TOPIC, None):
        alarms = resources(template(alarm_topic_arn=topic), "AWS::CloudWatch::Alarm", "AlarmName").values()
        assert len(alarms) == 2 * len(TABLES)
        assert all(alarm.get("AlarmActions", []) == ([topic] if topic else []) for alarm in alarms)


def test_the_reservation_service_may_do_more_when_it_is_said_and_the_others_may_not() -> None:
    bucket = "arn:aws:s3:::shop-large-events/*"
    more = {"sid": "LargeEvents", "actions": ["s3:PutObject"], "resources": [bucket], "why": "large events"}
    made = template(reservation_statements=[more])
    said = statements(made, "ticket-reservation-api-service-role")["LargeEvents"]
    assert (said["Action"], said["Resource"]) == (["s3:PutObject"], [bucket])
    for role in ("application", "readonly"):
        assert "LargeEvents" not in statements(made, f"ticket-dynamodb-{role}-role")


def test_what_is_done_to_the_variables_later_changes_nothing() -> None:
    index = {"name": "by-row", "hash_key": "row"}
    seats = {"hash_key": "seat", "indexes": [index], "billing": {"read": 5, "write": 5}}
    preset = TicketTablesPreset(tables={"seats": seats})
    before = synthesize(preset.stack()).body
    index["hash_key"] = "column"
    seats["billing"]["read"] = 50
    assert synthesize(preset.stack()).body == before


def test_the_example_file_is_one_that_can_be_deployed() -> None:
    stack = read_source(str(EXAMPLES / "infra_ticket_tables.toml"))
    assert stack.name == "shop-tables"
    assert findings(synthesize(stack)) == []


# ---------------------------------------------------------------------- bad variables


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"name": "t" * 36}, ["name = ", "35", "shorten it"]),
        ({"name": "1"}, ["name = '1'", "begins with a letter"]),
        ({"kms_key_id": "alias/tickets"}, ["kms_key_id = 'alias/tickets'", "look it up"]),
        ({"kms_key_id": KEY, "server_side_encryption": False}, ["kms_key_id", "server_side_encryption = true"]),
        ({"tables": 7}, ["tables", "int is neither"]),
        ({"tables": [{"hash_key": "pk"}]}, ["tables", "no name"]),
        ({"tables": {"tickets": {"streams": "new_image"}}}, ["tables", "tickets", "'streams'", "stream"]),
        ({"tables": {"tickets": {"stream": "all"}}}, ["ticket-tickets", "stream", "'all'"]),
        ({"tables": {"tickets": {"enabled": "no"}}}, ["tables", "tickets", "enabled = 'no'"]),
        ({"tables": {"tickets": {"name": "other"}}}, ["tables", "tickets", "name", "leave it out"]),
        (
            {"tables": {"reservation-outbox": {"hash_key": "id"}}},
            ["reservation-outbox", "hash_key = 'id'", "make another table"],
        ),
        ({"tables": {"seats": {}}}, ["ticket-seats", "hash_key", "missing"]),
        (
            {"tables": {"seats": {"hash_key": "a", "billing": {"read": 0, "write": 1}}}},
            ["ticket-seats", "read = 0"],
        ),
        ({"tables": {key: {"enabled": False} for key in TABLES}}, ["tables", "none is left"]),
        ({"application_trust": []}, ["application_trust"]),
        ({"readonly_trust": [{"principals": ["*"]}]}, ["readonly_trust", "'*'"]),
        (
            {"reservation_trust": [{"provider": PROVIDER, "service_accounts": ["*/*"]}]},
            ["service_accounts", "'*/*'"],
        ),
        ({"reservation_bus_name": "a b"}, ["reservation_bus_name = 'a b'"]),
        ({"reservation_log_group": "a b"}, ["reservation_log_group = 'a b'"]),
        ({"kms_key": KEY}, ["unknown field 'kms_key'", "kms_key_id"]),
    ],
)
def test_bad_variables_are_refused_with_field_value_and_remedy(
    variables: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(SpecError) as refused:
        TicketTablesPreset(**variables).stack()
    assert [word for word in words if word not in str(refused.value)] == []


# ---------------------------------------------------------------------- on the emulator, which checks permissions


@pytest.fixture(scope="module")
def emulator() -> Iterator[AwsEmulator]:
    with enforcing_emulator() as emulator:
        yield emulator


@pytest_asyncio.fixture(scope="module")
async def shop(emulator: AwsEmulator) -> AsyncIterator[DeployedStack]:
    made = template(application_trust=TRUSTED, readonly_trust=TRUSTED, reservation_trust=TRUSTED)
    async with deployed(made, emulator) as stack:
        yield stack


def role(stack: DeployedStack, name: str) -> Role:
    return Role(stack.emulator, stack.outputs[f"{name}_role_arn"])


def calls(table: str, key: dict[str, Any], index: str = "") -> list[Call]:
    """Calls on a table's items, on those of an index by `user_id`, and on the table."""

    def query(name: str, **more: str) -> dict[str, Any]:
        return {
            "TableName": table,
            "KeyConditionExpression": "#k = :v",
            "ExpressionAttributeNames": {"#k": name},
            "ExpressionAttributeValues": {":v": {"S": "1"}},
            **more,
        }

    of_items = {
        "PutItem": {"TableName": table, "Item": key},
        "UpdateItem": {"TableName": table, "Key": key},
        "GetItem": {"TableName": table, "Key": key},
        "Query": query(next(iter(key))),
        "Scan": {"TableName": table},
        "BatchGetItem": {"RequestItems": {table: {"Keys": [key]}}},
        "BatchWriteItem": {"RequestItems": {table: [{"PutRequest": {"Item": key}}]}},
        "DeleteItem": {"TableName": table, "Key": key},
        "DescribeTable": {"TableName": table},
        "DeleteTable": {"TableName": table},
        "UpdateTable": {"TableName": table, "DeletionProtectionEnabled": True},
    }
    of_index = {"Query": query("user_id", IndexName=index), "Scan": {"TableName": table, "IndexName": index}}
    return [
        *(Call("dynamodb", operation, parameters) for operation, parameters in of_items.items()),
        *(Call("dynamodb", operation, asked, "of the index") for operation, asked in of_index.items() if index),
    ]


async def refused(role: Role, asked: list[Call]) -> set[str]:
    return {str(call) for call in asked if await role.is_refused(call)}


async def test_the_service_has_the_tables_that_the_module_promises(shop: DeployedStack) -> None:
    dynamodb = await shop.client("dynamodb")
    for key, (hash_key, range_key) in TABLES.items():
        said = (await dynamodb.describe_table(TableName=f"ticket-{key}"))["Table"]
        keys = {each["KeyType"]: each["AttributeName"] for each in said["KeySchema"]}
        assert (keys["HASH"], keys.get("RANGE")) == (hash_key, range_key)
        assert {each["AttributeType"] for each in said["AttributeDefinitions"]} == {"S"}
        indexes = {
            index["IndexName"]: [each["AttributeName"] for each in index["KeySchema"]]
            for index in said.get("GlobalSecondaryIndexes", ())
        }
        assert indexes == INDEXES.get(key, {})
        assert said["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        assert said["SSEDescription"]["Status"] == "ENABLED"
        assert shop.outputs["table_arns"][key] == said["TableArn"]
        backups = await dynamodb.describe_continuous_backups(TableName=f"ticket-{key}")
        recovery = backups["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]
        assert recovery["PointInTimeRecoveryStatus"] == "ENABLED"
    ttl = await dynamodb.describe_time_to_live(TableName="ticket-reservation-idempotency")
    assert ttl["TimeToLiveDescription"] == {"TimeToLiveStatus": "ENABLED", "AttributeName": "ttl"}
    names = {key: f"ticket-{key}" for key in TABLES}
    assert shop.outputs["table_names"] == names
    assert shop.outputs["reservation_tables"] == {
        key: {"name": name, "arn": shop.outputs["table_arns"][key]}
        for key, name in names.items()
        if key.startswith("reservation-")
    }
    iam = await shop.client("iam")
    for output, part in (
        ("application", "dynamodb-application-role"),
        ("readonly", "dynamodb-readonly-role"),
        ("reservation_service", "reservation-api-service-role"),
    ):
        role = (await iam.get_role(RoleName=f"ticket-{part}"))["Role"]
        assert shop.outputs[f"{output}_role_name"] == role["RoleName"]
        assert shop.outputs[f"{output}_role_arn"] == role["Arn"]
    alarm = (await shop.alarms("ticket-tickets-write-throttle"))["ticket-tickets-write-throttle"]
    assert (alarm["MetricName"], alarm["EvaluationPeriods"], alarm["Period"]) == ("WriteThrottleEvents", 2, 300)


async def test_the_application_role_works_with_items_and_touches_no_table(shop: DeployedStack) -> None:
    dynamodb = await shop.client("dynamodb")
    await dynamodb.create_table(
        TableName="other",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    application = role(shop, "application")
    tickets = calls("ticket-tickets", {"ticket_id": {"S": "T-1"}}, "user-index")
    assert await refused(application, tickets) == {"DescribeTable", "DeleteTable", "UpdateTable"}
    others = calls("other", {"pk": {"S": "T-1"}})
    assert await refused(application, others) == set(map(str, others))
    await dynamodb.delete_table(TableName="other")


async def test_the_readonly_role_reads_and_describes(shop: DeployedStack) -> None:
    asked = calls("ticket-tickets", {"ticket_id": {"S": "T-1"}}, "user-index")
    assert set(map(str, asked)) - await refused(role(shop, "readonly"), asked) == {
        "GetItem",
        "Query",
        "Scan",
        "BatchGetItem",
        "DescribeTable",
        "Query of the index",
        "Scan of the index",
    }


async def test_the_reservation_role_has_the_reservation_tables_and_no_others(shop: DeployedStack) -> None:
    reservation = role(shop, "reservation_service")
    orders = calls("ticket-reservation-orders", {"pk": {"S": "R-1"}, "sk": {"S": "order"}})
    assert await refused(reservation, orders) == {"DeleteTable", "UpdateTable"}
    tickets = calls("ticket-tickets", {"ticket_id": {"S": "T-1"}}, "user-index")
    assert await refused(reservation, tickets) == set(map(str, tickets))
    entry = {"Source": "x", "DetailType": "x", "Detail": "{}", "EventBusName": "default"}
    assert await reservation.is_refused(Call("events", "PutEvents", {"Entries": [entry]}))


async def test_the_outbox_relays_to_the_reservation_bus_under_the_reservation_role(shop: DeployedStack) -> None:
    queue = await reservation_bus(shop)
    settings = role(shop, "reservation_service").settings
    outbox_config = OutboxConfig(
        table_name=shop.outputs["reservation_tables"]["reservation-outbox"]["name"], **settings
    )
    # The role may put events on the bus, and ask nothing about it.
    bus_config = EventBridgeConfig(
        event_bus_name="reservation-events", mapping="plain", verify_bus=False, **settings
    )
    async with (
        DynamoDBOutbox(outbox_config) as outbox,
        EventRouter({"eventbridge": EventBridgePublisher(bus_config)}) as router,
        OutboxProcessor(outbox, router) as processor,
    ):
        async with outbox.transaction() as tx:
            tx.check("ticket-reservation-reservations", {"pk": "R-1", "sk": "hold"}, "attribute_not_exists(gone)")
            tx.put("ticket-reservation-orders", {"pk": "O-1", "sk": "order"}, condition="attribute_not_exists(pk)")
            tx.add(build_event("shop.order.placed", "/reservations", {"order": "O-1"}, partitionkey="O-1"))
        assert await processor.drain(timeout=10)
    (event,) = await queue_messages(await shop.client("sqs"), queue)
    assert (event["detail-type"], event["detail"]["order"]) == ("placed", "O-1")


async def reservation_bus(stack: DeployedStack) -> str:
    """A bus beside the stack, whose events go into the queue with the URL that is returned."""
    events, queues = await stack.client("events"), await stack.client("sqs")
    await events.create_event_bus(Name="reservation-events")
    url = (await queues.create_queue(QueueName="reservations"))["QueueUrl"]
    attributes = await queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    where = {"EventBusName": "reservation-events"}
    await events.put_rule(Name="all", EventPattern='{"source": [{"exists": true}]}', **where)
    target = {"Id": "queue", "Arn": attributes["Attributes"]["QueueArn"]}
    await events.put_targets(Rule="all", Targets=[target], **where)
    return url


async def test_the_idempotency_store_works_under_the_reservation_role(shop: DeployedStack) -> None:
    config = IdempotencyConfig(
        table_name="ticket-reservation-idempotency", **role(shop, "reservation_service").settings
    )
    charged = []
    async with DynamoDBIdempotencyStore(config) as store:

        @idempotent(store, prefix="charge", key="order")
        async def charge(order: str) -> str:
            charged.append(order)
            return "receipt"

        assert [await charge("O-1"), await charge("O-1")] == ["receipt", "receipt"]
    assert charged == ["O-1"]


async def test_a_second_deploy_adds_streams_and_tables_and_keeps_the_data(shop: DeployedStack) -> None:
    dynamodb = await shop.client("dynamodb")
    await dynamodb.put_item(TableName="ticket-users", Item={"user_id": {"S": "U-1"}})
    await shop.redeploy(
        template(
            tables={"users": {"stream": "new_image"}, "seats": {"hash_key": "seat"}},
            application_trust=TRUSTED,
            readonly_trust=TRUSTED,
            reservation_trust=TRUSTED,
        )
    )
    assert list(shop.outputs["table_stream_arns"]) == ["users"]
    users = (await dynamodb.describe_table(TableName="ticket-users"))["Table"]
    assert users["StreamSpecification"] == {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
    assert shop.outputs["table_stream_arns"]["users"] == users["LatestStreamArn"]
    assert (await dynamodb.scan(TableName="ticket-users"))["Count"] == 1
    assert (await dynamodb.describe_table(TableName="ticket-seats"))["Table"]["KeySchema"] == [
        {"AttributeName": "seat", "KeyType": "HASH"}
    ]
    put = Call("dynamodb", "PutItem", {"TableName": "ticket-seats", "Item": {"seat": {"S": "1"}}})
    assert not await role(shop, "application").is_refused(put)
