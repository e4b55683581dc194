from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import pytest

from oms_events.errors import SpecError
from oms_events.provisioning.specs.actions import SLIPS, WITHOUT_RESOURCE
from oms_events.provisioning.specs.base import check_arn
from oms_events.provisioning.specs.buckets import BucketSpec
from oms_events.provisioning.specs.logs import LogGroupSpec
from oms_events.provisioning.specs.roles import (
    OidcTrust,
    PermissionRow,
    PrincipalTrust,
    RoleSpec,
    ServiceTrust,
    StatementSpec,
    Suffixed,
    permission_rows,
)
from oms_events.provisioning.specs.stack import StackSpec
from oms_events.provisioning.specs.tables import TableSpec
from oms_events.provisioning.synthesis import synthesize
from oms_events.provisioning.template import Template
from tests.provisioning.linting import findings

BUS = "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus/orders"
RULE = "arn:aws:events:us-east-1:123456789012:rule/orders/placed"
PROVIDER = "arn:aws:iam::123456789012:oidc-provider/oidc.eks.us-east-1.amazonaws.com/id/EXAMPLE"
ACCOUNT = "123456789012"
AWS = "arn:aws:dynamodb:us-east-1:123456789012:"

tickets = TableSpec(name="tickets", hash_key="pk", stream="new_image")
publish: Mapping[str, Any] = {"actions": ["events:PutEvents"], "resources": [BUS], "why": "publishes orders"}


def statement(**values: Any) -> StatementSpec:
    return StatementSpec(**({**publish} | values))


def role(**values: Any) -> RoleSpec:
    given = {"name": "publisher", "trust": ({"service": "lambda.amazonaws.com"},), "statements": (publish,)}
    return RoleSpec(**(given | values))


def template(*roles: RoleSpec, **values: Any) -> Template:
    return synthesize(StackSpec(name="roles", roles=roles, **values))


def properties(spec: RoleSpec, **values: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = template(spec, **values).resources[spec.logical_id]["Properties"]
    return found


def trusted(trust: Mapping[str, Any]) -> Mapping[str, Any]:
    [found] = properties(role(trust=(trust,)))["AssumeRolePolicyDocument"]["Statement"]
    return found


@pytest.mark.parametrize(
    ("values", "field", "remedy"),
    [
        ({"name": "a" * 65}, "name", "1 to 64"),
        ({"name": "orders/publisher", "key": "x"}, "name", "letters"),
        ({"description": "Bücher"}, None, None),
        ({"description": "本"}, "description", "Latin-1"),
        ({"trust": ()}, "trust", "name one at least"),
        ({"trust": ({"role": "x"},)}, "trust.0", "give one of service, principals, provider"),
        ({"trust": ("lambda.amazonaws.com",)}, "trust.0", "give one of service"),
        ({"max_session_duration": 60}, "max_session_duration = 60", "3600"),
        ({"managed_policies": ("arn:aws:iam::aws:role/x",)}, "managed_policies", "policy/<name>"),
        ({"permissions_boundary": "arn:aws:s3:::x"}, "permissions_boundary", "policy/<name>"),
        ({"statements": ({**publish, "sid": "A"}, {**publish, "sid": "A"})}, "sid 'A' stands twice", "its own"),
        ({"statements": ({**publish, "sid": "put-events"},)}, "statements.0: StatementSpec: sid", "pattern"),
    ],
)
def test_a_role_refuses_what_iam_would_refuse(
    values: Mapping[str, Any], field: str | None, remedy: str | None
) -> None:
    if field is None or remedy is None:
        role(**values)
        return
    with pytest.raises(SpecError) as raised:
        role(**values)
    assert field in str(raised.value)
    assert remedy in str(raised.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"actions": []}, "actions: is empty; name one at least"),
        ({"actions": ["events:*"]}, "'events:*' has a wildcard; name each action"),
        ({"actions": ["events:Put?vents"]}, "has a wildcard"),
        ({"actions": ["*"]}, "has a wildcard"),
        ({"actions": ["PutEvents"]}, "write service:Action"),
        ({"actions": ["eventbridge:PutEvents"]}, "has the prefix 'eventbridge'; write events:PutEvents"),
        ({"actions": ["events:Put-Events"]}, "write service:Action"),
        ({"resources": []}, "resources: is empty; name one at least"),
        ({"resources": ["*"]}, "name the resources of events:PutEvents; where IAM knows none for it, set"),
        ({"resources": ["*"], "actions": ["a:B", "xray:PutTraceSegments"]}, "name the resources of a:B;"),
        ({"any_resource": True}, "any_resource is for resources = ['*']"),
        ({"resources": ["*", BUS], "actions": ["xray:PutTraceSegments"]}, "'*' means the others too"),
        ({"actions": ["dynamodb:ListTables"]}, "IAM knows no resources for dynamodb:ListTables"),
        ({"resources": ["orders"]}, "is no ARN"),
        ({"resources": ["arn:aws:sqs:us-east-1:orders"]}, "is no ARN"),
        ({"resources": ["arn:aws:sqs:${a:b}:orders"]}, "is no ARN"),
        ({"resources": [7]}, "7 is neither an ARN nor a reference"),
        ({"resources": [{"ref": "bus:orders", "attribute": "name"}]}, "a policy takes ARNs"),
        ({"resources": [{"ref": "table:x", "suffix": "index"}]}, "a suffix begins with '/' or ':'"),
        (
            {"why": "", "any_resource": True, "resources": ["*"], "actions": ["a:B"]},
            "any_resource = true needs `why`",
        ),
        ({"resources": ["arn:aws:sqs:us-east-1:12345:x"]}, "'12345' is no account; write its 12 digits"),
        ({"resources": ["arn:aws:sqs:us-east-1:${AWS::Region}:x"]}, "is no account"),
        ({"why": "first line\nsecond line"}, "why"),
        ({"conditions": {"Equals": {"aws:x": "y"}}}, "'Equals' is no operator of IAM"),
        ({"conditions": {"StringEquals": {}}}, "StringEquals has no keys"),
        ({"conditions": {"StringEquals": {"source": "y"}}}, "'source' is no condition key"),
        ({"conditions": {"StringEquals": {"aws:x": []}}}, "has no values"),
        ({"conditions": {"StringEquals": {"aws:x": [""]}}}, "'' is no value of a condition"),
    ],
)
def test_a_statement_refuses_what_is_wrong_or_too_wide(values: Mapping[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as raised:
        statement(**values)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "arn",
    [
        f"{AWS}*",
        f"{AWS}table/*",
        f"{AWS}table/?*",
        f"{AWS}table/*/index/by-kind",
        f"{AWS}*/tickets",
        f"{AWS}table*",
        f"{AWS}t?ble/tickets",
        "arn:aws:iam::123456789012:role*",
        "arn:aws:kms:us-east-1:123456789012:key*",
        "arn:aws:secretsmanager:us-east-1:123456789012:secret*",
        "arn:aws:lambda:us-east-1:123456789012:function*",
        "arn:aws:events:us-east-1:123456789012:event-bus*",
        "arn:aws:events:us-east-1:123456789012:event*/a*",
        "arn:aws:logs:us-east-1:123456789012:log-group*",
        "arn:aws:apigateway:us-east-1::/restapis/*",
        "arn:aws:s3:us-east-1:123456789012:accesspoint/*",
        "arn:aws:dynamodb:us-east-1:*:table/tickets",
        "arn:aws:dynamodb:us-east-1:**:table/tickets",
        "arn:aws:dynamodb:us-east-1:?*:table/tickets",
        "arn:aws:dynamodb:us-east-1:1*:table/tickets",
        "arn:aws:dynamodb:us-east-1:????????????:table/tickets",
        "arn:aws:dynamodb:us-east-1:${aws:PrincipalAccount}:table/*",
        "arn:aws:s3:::*",
        "arn:aws:sqs:us-east-1:123456789012:*",
        "arn:aws:logs:us-east-1:123456789012:log-group:*",
        "arn:aws:logs:us-east-1:123456789012:log-group:/*",
        "arn:aws:lambda:us-east-1:123456789012:function:*",
        "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus/*",
        "arn:${AWS::Partition}:sqs:${AWS::Region}:*:orders",
    ],
)
def test_a_resource_that_names_nothing_is_refused(arn: str) -> None:
    with pytest.raises(SpecError, match=r"names no resource|is for all accounts"):
        statement(resources=[arn])


@pytest.mark.parametrize(
    "arn",
    [
        f"{AWS}table/tickets",
        f"{AWS}table/dev-*",
        f"{AWS}table/tickets/index/*",
        f"{AWS}table/tickets/stream/*",
        "arn:aws:s3:::objects/*",
        "arn:aws:sqs:us-east-1:123456789012:orders",
        "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:/aws/lambda/x:*",
        "arn:aws:logs:us-east-1:123456789012:log-group:/aws/lambda/x:log-stream:*",
        "arn:aws:lambda:us-east-1:123456789012:function:handler:*",
        "arn:aws:ec2:us-east-1:123456789012:network-interface/*",
        "arn:aws:apigateway:us-east-1::/restapis/x",
        "arn:aws:apigateway:us-east-1::/restapis/x/*",
        "arn:aws:glue:us-east-1:123456789012:catalog",
        f"{AWS}table/${{aws:PrincipalTag/team}}",
        BUS,
    ],
)
def test_what_belongs_to_a_named_resource_is_fine(arn: str) -> None:
    assert statement(resources=[arn]).resources == (arn,)


def test_actions_that_the_library_does_not_know_may_be_allowed_where_iam_knows_no_resource() -> None:
    made = role(statements=(statement(actions=("newservice:Look",), resources=("*",), any_resource=True),))
    [policy] = properties(made)["Policies"]
    [allowed] = policy["PolicyDocument"]["Statement"]
    assert (allowed["Action"], allowed["Resource"]) == (["newservice:Look"], ["*"])


def test_a_policy_variable_in_a_suffix_stays_one() -> None:
    own = statement(resources=(Suffixed.of(tickets.arn, "/${aws:username}/${AWS::Region}"),))
    [policy] = properties(role(statements=(own,)), tables=(tickets,))["Policies"]
    [text, variables] = policy["PolicyDocument"]["Statement"][0]["Resource"][0]["Fn::Sub"]
    assert text == "${Arn}/${!aws:username}/${AWS::Region}"
    assert variables == {"Arn": {"Fn::GetAtt": ["TableTickets", "Arn"]}}
    assert findings(template(role(statements=(own,)), tables=(tickets,))) == []


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:s3:::orders/*",
        "arn:aws:iam::aws:policy/ReadOnlyAccess",
        "arn:aws:sqs:us-east-1:${AWS::AccountId}:orders",
        "arn:aws:automate:us-east-1:ec2:stop",
    ],
)
def test_an_arn_has_the_account_that_aws_gives_it(arn: str) -> None:
    assert check_arn(arn) == arn


def test_a_statement_needs_no_reason() -> None:
    assert StatementSpec(actions=("events:PutEvents",), resources=(BUS,)).why == ""


def test_all_problems_of_a_role_are_told_at_once() -> None:
    with pytest.raises(SpecError) as raised:
        role(
            statements=(
                {"actions": ["a"], "resources": ["*"], "why": "a\nb"},
                {**publish, "actions": ["events:*"]},
            )
        )
    said = raised.value.problems
    assert ["statements.0" in problem for problem in said] == [True, True, False]
    assert "statements.1: StatementSpec: actions: 'events:*'" in said[2]


@pytest.mark.parametrize(
    "service",
    ["lambda.amazonaws.com", "ec2.amazonaws.com", "ec2.amazonaws.com.cn", "lambda.us-east-1.amazonaws.com"],
)
def test_a_service_that_does_not_say_for_whom_it_works_is_trusted_as_such(service: str) -> None:
    assert trusted({"service": service}) == {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sts:AssumeRole",
    }
    for given in ({"source_arns": [RULE]}, {"source_account": ACCOUNT}):
        with pytest.raises(SpecError, match="does not say for whom it works, and could not take the role"):
            role(trust=({"service": service, **given},))


@pytest.mark.parametrize(
    "service",
    [
        "ecs-tasks.amazonaws.com",
        "states.us-east-1.amazonaws.com",
        "states.${AWS::Region}.amazonaws.com",
        "events.amazonaws.com.cn",
    ],
)
def test_a_service_that_says_for_whom_it_works_may_work_for_this_account_only(service: str) -> None:
    assert trusted({"service": service})["Condition"] == {
        "StringEquals": {"aws:SourceAccount": {"Fn::Sub": "${AWS::AccountId}"}}
    }


def test_the_account_and_the_resources_that_a_service_works_for_are_never_left_out() -> None:
    other = {"service": "glue.amazonaws.com", "source_account": ACCOUNT}
    assert trusted(other)["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
    assert "Condition" not in trusted({"service": "glue.amazonaws.com"})
    given = {"service": "events.amazonaws.com", "source_arns": [RULE], "source_account": ACCOUNT}
    assert trusted(given)["Condition"] == {
        "StringEquals": {"aws:SourceAccount": ACCOUNT},
        "ArnLike": {"aws:SourceArn": [RULE]},
    }


def test_pods_of_eks_may_tag_their_sessions() -> None:
    assert trusted({"service": "pods.eks.amazonaws.com"})["Action"] == ["sts:AssumeRole", "sts:TagSession"]


def test_identities_are_trusted_by_account_or_arn() -> None:
    another = role(name="another")
    given = role(
        trust=(PrincipalTrust(principals=(ACCOUNT, "${AWS::AccountId}", another.arn), external_id="shared-1"),)
    )
    made = template(given, another).resources["RolePublisher"]["Properties"]
    [trust] = made["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"]["AWS"] == [
        {"Fn::Sub": f"arn:${{AWS::Partition}}:iam::{ACCOUNT}:root"},
        {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"},
        {"Fn::GetAtt": ["RoleAnother", "Arn"]},
    ]
    assert trust["Condition"] == {"StringEquals": {"sts:ExternalId": "shared-1"}}


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:iam::123456789012:root",
        "arn:aws:iam::123456789012:role/path/x",
        "arn:${AWS::Partition}:iam::${AWS::AccountId}:user/x",
        "arn:aws:sts::123456789012:assumed-role/x/session",
    ],
)
def test_an_identity_is_a_role_a_user_an_account_or_a_session(arn: str) -> None:
    assert PrincipalTrust(principals=(arn,)).principals == (arn,)


def test_a_service_account_of_a_cluster_is_trusted_by_its_name_and_audience() -> None:
    trust = trusted({"provider": PROVIDER, "service_accounts": ["reservations/api"]})
    issuer = "oidc.eks.us-east-1.amazonaws.com/id/EXAMPLE"
    assert trust == {
        "Effect": "Allow",
        "Principal": {"Federated": PROVIDER},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {
            "StringEquals": {
                f"{issuer}:sub": ["system:serviceaccount:reservations:api"],
                f"{issuer}:aud": "sts.amazonaws.com",
            }
        },
    }


@pytest.mark.parametrize(
    ("trust", "said"),
    [
        ({"service": "lambda"}, "is no service principal"),
        ({"service": "events.amazonaws.com", "source_account": "12"}, "write its 12 digits"),
        ({"principals": []}, "name one at least"),
        ({"principals": ["*"]}, "'*' is no identity"),
        ({"principals": ["arn:aws:iam::123456789012:role/*"]}, "is no identity"),
        ({"principals": [BUS]}, "is no identity"),
        ({"principals": ["arn:aws:iam::123456789012:policy/x"]}, "is no identity"),
        ({"principals": ["arn:aws:iam::123456789012:role/?"]}, "is no identity"),
        ({"principals": ["arn:aws:iam::aws:role/x"]}, "is no identity"),
        ({"principals": [{"ref": "table:x"}]}, "'table:x' is no identity"),
        ({"principals": [{"ref": "role:x", "attribute": "name"}]}, "is no identity"),
        (
            {"provider": PROVIDER.replace("aws:", "${AWS::Partition}:", 1), "service_accounts": ["a"]},
            "namespace/name",
        ),
        ({"principals": [ACCOUNT], "external_id": "x"}, "2 to 1224"),
        ({"provider": "oidc.eks.us-east-1.amazonaws.com/id/A", "service_accounts": ["a/b"]}, "is no provider"),
        (
            {"provider": PROVIDER.replace("us-east-1", "${AWS::Region}"), "service_accounts": ["a/b"]},
            "no provider",
        ),
        ({"provider": PROVIDER, "service_accounts": ["a/*"]}, "'a/*': write namespace/name, without wildcards"),
        ({"provider": PROVIDER, "service_accounts": []}, "name one at least"),
    ],
)
def test_a_trust_that_is_wrong_or_too_wide_is_refused(trust: Mapping[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as raised:
        role(trust=(trust,))
    assert said in str(raised.value)


def test_one_resource_is_one_role_with_all_that_it_may_do() -> None:
    made = role(
        description="Publishes orders",
        statements=(
            statement(
                sid="Read",
                actions=("dynamodb:Query",),
                resources=(tickets.arn, Suffixed.of(tickets.arn, "/index/*")),
                conditions={"StringEquals": {"aws:SourceVpc": "vpc-1", "aws:PrincipalArn": [tickets.arn]}},
                why="reads tickets",
            ),
        ),
        managed_policies=("arn:aws:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole",),
        max_session_duration=7200,
        permissions_boundary="arn:${AWS::Partition}:iam::${AWS::AccountId}:policy/limits",
    )
    arn = {"Fn::GetAtt": ["TableTickets", "Arn"]}
    assert template(made, tables=(tickets,)).resources["RolePublisher"]["Type"] == "AWS::IAM::Role"
    found = dict(properties(made, tables=(tickets,)))
    del found["AssumeRolePolicyDocument"]
    assert found == {
        "RoleName": "publisher",
        "Description": "Publishes orders",
        "Policies": [
            {
                "PolicyName": "publisher",
                "PolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Sid": "Read",
                            "Effect": "Allow",
                            "Action": ["dynamodb:Query"],
                            "Resource": [arn, {"Fn::Sub": ["${Arn}/index/*", {"Arn": arn}]}],
                            "Condition": {"StringEquals": {"aws:SourceVpc": ["vpc-1"], "aws:PrincipalArn": [arn]}},
                        }
                    ],
                },
            }
        ],
        "ManagedPolicyArns": ["arn:aws:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole"],
        "MaxSessionDuration": 7200,
        "PermissionsBoundary": {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:policy/limits"},
    }


def test_a_role_can_be_written_as_data() -> None:
    written = {
        "name": "reader",
        "trust": [{"service": "lambda.amazonaws.com"}],
        "statements": [
            {
                "actions": ["dynamodb:GetItem"],
                "resources": [{"ref": "table:tickets"}, {"ref": "table:tickets", "suffix": "/index/*"}],
                "conditions": {"Bool": {"aws:SecureTransport": True}, "NumericLessThan": {"s3:max-keys": 10}},
                "why": "reads tickets",
            }
        ],
    }
    [found] = RoleSpec(**written).statements
    assert found.resources == (tickets.arn, Suffixed.of(tickets.arn, "/index/*"))
    assert found.conditions["Bool"]["aws:SecureTransport"] == ("true",)
    assert found.conditions["NumericLessThan"]["s3:max-keys"] == ("10",)


def test_what_a_statement_refers_to_must_be_in_the_stack() -> None:
    reader = role(statements=(statement(resources=(Suffixed.of(tickets.arn, "/index/*"),)),))
    with pytest.raises(SpecError, match="'table:tickets' is not in this stack"):
        template(reader)


def test_the_table_of_permissions_has_a_row_for_each_action_on_each_resource() -> None:
    reader = role(
        statements=(
            statement(
                actions=("dynamodb:GetItem", "dynamodb:Query"),
                resources=(tickets.reference("stream_arn"), Suffixed.of(tickets.arn, "/index/*")),
                conditions={"StringEquals": {"aws:SourceVpc": ["a", "b"]}, "Bool": {"aws:SecureTransport": True}},
                why="reads tickets",
            ),
        ),
        managed_policies=("arn:aws:iam::aws:policy/X",),
    )
    condition = "aws:SourceVpc StringEquals a, b and aws:SecureTransport Bool true"
    assert list(permission_rows([reader, role(name="second")])) == [
        PermissionRow("publisher", "dynamodb:GetItem", "table:tickets.stream_arn", condition, "reads tickets"),
        PermissionRow("publisher", "dynamodb:GetItem", "table:tickets/index/*", condition, "reads tickets"),
        PermissionRow("publisher", "dynamodb:Query", "table:tickets.stream_arn", condition, "reads tickets"),
        PermissionRow("publisher", "dynamodb:Query", "table:tickets/index/*", condition, "reads tickets"),
        PermissionRow("publisher", "arn:aws:iam::aws:policy/X", "as the policy says", "", "a managed policy"),
        PermissionRow("second", "events:PutEvents", BUS, "", "publishes orders"),
    ]


def test_what_is_said_of_iams_actions_is_what_aws_says() -> None:
    known = json.loads(files("cfnlint.data.AdditionalSpecs").joinpath("Policies.json").read_text())
    assert set(known) >= set(SLIPS.values())
    assert not set(known) & set(SLIPS)
    for action in WITHOUT_RESOURCE:
        service, _, name = action.partition(":")
        # CloudWatch's datasets are optional: without one the action needs all resources.
        assert set(known[service]["Actions"][name.lower()].get("Resources", ())) <= {"dataset"}, action


def test_cfn_lint_finds_nothing() -> None:
    objects = BucketSpec(name="tickets-objects")
    logs = LogGroupSpec(name="/tickets/handlers", retention_days=7)
    everything = role(
        name="everything",
        trust=(
            ServiceTrust(service="events.amazonaws.com", source_arns=(RULE,)),
            ServiceTrust(service="ecs-tasks.amazonaws.com"),
            PrincipalTrust(principals=(ACCOUNT, "${AWS::AccountId}"), external_id="shared-1"),
            OidcTrust(provider=PROVIDER, service_accounts=("reservations/api",)),
        ),
        statements=(
            statement(sid="Publish"),
            statement(actions=("dynamodb:Query",), resources=(tickets.arn, Suffixed.of(tickets.arn, "/index/*"))),
            statement(actions=("dynamodb:GetRecords",), resources=(tickets.reference("stream_arn"),)),
            statement(actions=("s3:GetObject",), resources=(Suffixed.of(objects.arn, "/*"),)),
            statement(actions=("logs:PutLogEvents",), resources=(logs.arn,)),
            statement(actions=("xray:PutTraceSegments", "cloudwatch:PutMetricData"), resources=("*",)),
            statement(
                actions=("kms:Decrypt",),
                resources=("arn:aws:kms:us-east-1:123456789012:key/0b7a",),
                conditions={"StringEquals": {"kms:ViaService": "dynamodb.us-east-1.amazonaws.com"}},
            ),
        ),
        managed_policies=("arn:${AWS::Partition}:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole",),
        description="Does everything",
    )
    second = role(name="second", trust=(PrincipalTrust(principals=(everything.arn,)),), statements=())
    made = template(everything, second, tables=(tickets,), buckets=(objects,), log_groups=(logs,))
    assert findings(made) == []
    assert made.capabilities == ("CAPABILITY_NAMED_IAM",)
