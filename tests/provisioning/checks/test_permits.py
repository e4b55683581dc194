"""What a resource's policy says of EventBridge: yes, no, or what only AWS can decide."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oms_events.provisioning.checks.permits import Tells, Verdict, by_events, by_principal, decide, denies

ACCOUNT, SOURCE_ACCOUNT = "123456789012", "aws:SourceAccount"
QUEUE = "arn:aws:sqs:eu-central-1:123456789012:orders"
RULE = "arn:aws:events:eu-central-1:123456789012:rule/oms-events/created"
REQUEST = by_events("sqs:SendMessage", QUEUE, RULE)
ROLE = "arn:aws:iam::123456789012:role/orders"
BUS = "arn:aws:events:eu-central-1:123456789012:event-bus/oms-events"
ALLOW = {
    "Effect": "Allow",
    "Principal": {"Service": "events.amazonaws.com"},
    "Action": "sqs:SendMessage",
    "Resource": QUEUE,
}


def when(operator: str, key: str, *values: Any) -> dict[str, Any]:
    return {"Condition": {operator: {key: list(values)}}}


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict.ALLOWED),
        ({"Principal": "*"}, Verdict.ALLOWED),
        ({"Principal": {"AWS": "*"}}, Verdict.ALLOWED),
        ({"Principal": {"Service": ["sns.amazonaws.com", "events.amazonaws.com"]}}, Verdict.ALLOWED),
        ({"Principal": {"Service": "sns.amazonaws.com"}}, Verdict.DENIED),
        ({"Principal": {"AWS": "123456789012"}}, Verdict.DENIED),
        ({"Action": ["sqs:ReceiveMessage", "SQS:Send*"]}, Verdict.ALLOWED),
        ({"Action": "sqs:ReceiveMessage"}, Verdict.DENIED),
        ({"Resource": "arn:aws:sqs:*:*:ord?rs"}, Verdict.ALLOWED),
        ({"Resource": "arn:aws:sqs:*:*:ord?r"}, Verdict.DENIED),
        (when("ArnLike", "aws:SourceArn", f"{RULE[:-7]}*"), Verdict.ALLOWED),
        (when("ArnEquals", "AWS:SourceArn", "other", RULE), Verdict.ALLOWED),
        (when("StringEquals", "aws:SourceArn", f"{RULE[:-1]}*"), Verdict.DENIED),
        (when("ArnNotLike", "aws:SourceArn", RULE), Verdict.DENIED),
        (when("StringEquals", SOURCE_ACCOUNT, ACCOUNT), Verdict.UNCLEAR),
        (when("StringEqualsIfExists", SOURCE_ACCOUNT, ACCOUNT), Verdict.ALLOWED),
        (when("StringEquals", SOURCE_ACCOUNT, "999999999999"), Verdict.DENIED),
        (when("Bool", "aws:SecureTransport", True), Verdict.ALLOWED),
        (when("Null", "aws:SourceArn", False), Verdict.ALLOWED),
        (when("Null", "aws:SourceArn", "true"), Verdict.DENIED),
        (when("StringEquals", "AWS:SourceOwner", "123456789012"), Verdict.DENIED),
        (when("StringEqualsIfExists", "AWS:SourceOwner", "123456789012"), Verdict.ALLOWED),
        (when("StringEquals", "aws:SourceOrgID", "o-1"), Verdict.UNCLEAR),
        (when("StringNotEquals", "AWS:SourceOwner", ACCOUNT), Verdict.ALLOWED),
        (when("ForAllValues:StringEquals", "AWS:SourceOwner", ACCOUNT), Verdict.UNCLEAR),
        (when("ArnLike", "aws:SourceArn", "arn:aws:events:*:*:rule/*"), Verdict.ALLOWED),
        (when("ArnLike", "aws:SourceArn", "arn:aws:events:*"), Verdict.DENIED),
        (when("ArnLike", "aws:SourceArn", "arn:*:rule/*"), Verdict.DENIED),
        (when("ArnLike", "aws:SourceArn", "arn:aws:events:*:rule/*:*"), Verdict.DENIED),
        (when("StringLike", "aws:SourceArn", "arn:*:rule/*"), Verdict.ALLOWED),
        (when("StringEquals", "aws:SourceArn", "${aws:PrincipalTag/rule}"), Verdict.UNCLEAR),
        ({"Resource": "arn:aws:sqs:*:*:${aws:PrincipalTag/queue}"}, Verdict.UNCLEAR),
        (when("DateGreaterThan", "aws:SourceArn", "2026-01-01"), Verdict.UNCLEAR),
        ({"NotAction": "sqs:DeleteQueue"}, Verdict.UNCLEAR),
    ],
)
def test_a_statement_allows_who_and_what_it_names(changes: dict[str, Any], verdict: Verdict) -> None:
    statement = {**ALLOW, **changes}
    if "NotAction" in changes:
        del statement["Action"]
    assert decide(REQUEST, json.dumps({"Statement": [statement]})) is verdict


@pytest.mark.parametrize(
    ("deny", "verdict"),
    [
        (when("Bool", "aws:SecureTransport", "false"), Verdict.ALLOWED),
        (when("ArnNotEquals", "aws:SourceArn", RULE), Verdict.ALLOWED),
        (when("StringNotEquals", SOURCE_ACCOUNT, "1"), Verdict.DENIED),
        (when("StringNotEquals", SOURCE_ACCOUNT, ACCOUNT), Verdict.UNCLEAR),
        (when("StringNotEquals", "aws:SourceOwner", ACCOUNT), Verdict.DENIED),
        (when("StringNotEqualsIfExists", "aws:SourceOwner", ACCOUNT), Verdict.DENIED),
        (when("StringEquals", "aws:SourceOwner", ACCOUNT), Verdict.ALLOWED),
        (when("StringNotEquals", "aws:PrincipalOrgID", "o-1"), Verdict.UNCLEAR),
        ({}, Verdict.DENIED),
    ],
)
def test_a_statement_that_denies_goes_before(deny: dict[str, Any], verdict: Verdict) -> None:
    denying = {**ALLOW, "Effect": "Deny", "Principal": "*", **deny}
    assert decide(REQUEST, json.dumps({"Statement": [ALLOW, denying]})) is verdict


@pytest.mark.parametrize(
    ("policy", "verdict"),
    [
        (None, Verdict.DENIED),
        ("", Verdict.DENIED),
        ({"Statement": ALLOW}, Verdict.ALLOWED),
        ('{"Statement": []}', Verdict.DENIED),
        ("{", Verdict.UNCLEAR),
        ('{"Statement": [{"Action": "*"}]}', Verdict.UNCLEAR),
        ("[]", Verdict.UNCLEAR),
    ],
)
def test_a_policy_may_be_missing_parsed_or_unreadable(policy: Any, verdict: Verdict) -> None:
    assert decide(REQUEST, policy) is verdict


def test_a_trust_policy_names_no_resource() -> None:
    trust = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sts:AssumeRole"}
    request = by_events("sts:AssumeRole", "", RULE, tells=Tells.ALL)
    assert decide(request, {"Statement": [trust]}) is Verdict.ALLOWED


@pytest.mark.parametrize(
    ("tells", "of_source", "of_account"),
    [
        (Tells.ALL, Verdict.ALLOWED, Verdict.ALLOWED),
        (Tells.ARN, Verdict.ALLOWED, Verdict.UNCLEAR),
        (Tells.UNKNOWN, Verdict.UNCLEAR, Verdict.UNCLEAR),
        (Tells.NOTHING, Verdict.DENIED, Verdict.DENIED),
    ],
)
def test_a_condition_on_the_source_holds_where_the_request_tells_it(
    tells: Tells, of_source: Verdict, of_account: Verdict
) -> None:
    request = by_events("sqs:SendMessage", QUEUE, RULE, tells=tells)
    source, account = when("ArnEquals", "aws:SourceArn", RULE), when("StringEquals", SOURCE_ACCOUNT, ACCOUNT)
    assert decide(request, {"Statement": {**ALLOW, **source}}) is of_source
    assert decide(request, {"Statement": {**ALLOW, **account}}) is of_account
    assert decide(request, {"Statement": ALLOW}) is Verdict.ALLOWED


def test_several_policies_decide_together() -> None:
    denying = {"Statement": {**ALLOW, "Effect": "Deny", "Principal": "*"}}
    allowing: dict[str, Any] = {"Statement": ALLOW}
    assert decide(REQUEST, None, allowing) is Verdict.ALLOWED
    assert decide(REQUEST, allowing, denying) is Verdict.DENIED
    assert decide(REQUEST, allowing, "{") is Verdict.UNCLEAR
    assert decide(REQUEST) is Verdict.DENIED


@pytest.mark.parametrize(
    ("principal", "more", "denied"),
    [
        ("*", {}, True),
        ({"AWS": ROLE}, {}, True),
        ({"AWS": ACCOUNT}, {}, True),
        ({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, {}, True),
        ({"AWS": f"arn:aws:sts::{ACCOUNT}:assumed-role/orders/s"}, {}, True),
        ({"AWS": "arn:aws:iam::123456789012:role/other"}, {}, False),
        ({"Service": "events.amazonaws.com"}, {}, False),
        ("*", {"Effect": "Allow"}, False),
        ("*", {"Action": "events:PutRule"}, False),
        ("*", when("StringNotEquals", "aws:PrincipalAccount", "9"), True),
        ("*", when("ArnNotEquals", "aws:PrincipalArn", ROLE), False),
        ("*", when("StringNotEquals", "aws:PrincipalOrgID", "o-1"), None),
        ("*", when("Bool", "aws:SecureTransport", "false"), False),
    ],
)
def test_a_resource_may_deny_what_a_user_or_role_is_allowed(
    principal: Any, more: dict[str, Any], denied: bool | None
) -> None:
    request = by_principal(ROLE, "events:PutEvents", BUS, session=f"arn:aws:sts::{ACCOUNT}:assumed-role/orders/s")
    statement = {"Effect": "Deny", "Principal": principal, "Action": "events:PutEvents", "Resource": BUS, **more}
    assert denies(request, {"Statement": [statement]}) is denied
    assert denies(request, None) is False
