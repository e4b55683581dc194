"""What a resource's policy says of EventBridge: yes, no, or what only AWS can decide."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oms_events.provisioning.checks.permits import Request, Verdict, decide

QUEUE = "arn:aws:sqs:eu-central-1:123456789012:orders"
RULE = "arn:aws:events:eu-central-1:123456789012:rule/oms-events/created"
REQUEST = Request("events.amazonaws.com", "sqs:SendMessage", QUEUE, RULE)
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
        (when("StringEquals", "aws:SourceAccount", "123456789012"), Verdict.ALLOWED),
        (when("StringEquals", "aws:SourceAccount", "999999999999"), Verdict.DENIED),
        (when("Bool", "aws:SecureTransport", True), Verdict.ALLOWED),
        (when("Null", "aws:SourceArn", False), Verdict.ALLOWED),
        (when("Null", "aws:SourceArn", "true"), Verdict.DENIED),
        (when("StringEquals", "AWS:SourceOwner", "123456789012"), Verdict.DENIED),
        (when("StringEqualsIfExists", "AWS:SourceOwner", "123456789012"), Verdict.ALLOWED),
        (when("StringEquals", "aws:SourceOrgID", "o-1"), Verdict.UNCLEAR),
        (when("DateGreaterThan", "aws:SourceArn", "2026-01-01"), Verdict.UNCLEAR),
        ({"NotAction": "sqs:DeleteQueue"}, Verdict.UNCLEAR),
    ],
)
def test_a_statement_allows_who_and_what_it_names(changes: dict[str, Any], verdict: Verdict) -> None:
    statement = {**ALLOW, **changes}
    if "NotAction" in changes:
        del statement["Action"]
    assert decide(json.dumps({"Statement": [statement]}), REQUEST) is verdict


@pytest.mark.parametrize(
    ("deny", "verdict"),
    [
        (when("Bool", "aws:SecureTransport", "false"), Verdict.ALLOWED),
        (when("ArnNotEquals", "aws:SourceArn", RULE), Verdict.ALLOWED),
        (when("StringNotEquals", "aws:SourceAccount", "1"), Verdict.DENIED),
        (when("StringNotEquals", "aws:PrincipalOrgID", "o-1"), Verdict.UNCLEAR),
        ({}, Verdict.DENIED),
    ],
)
def test_a_statement_that_denies_goes_before(deny: dict[str, Any], verdict: Verdict) -> None:
    denying = {**ALLOW, "Effect": "Deny", "Principal": "*", **deny}
    assert decide(json.dumps({"Statement": [ALLOW, denying]}), REQUEST) is verdict


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
    assert decide(policy, REQUEST) is verdict


def test_a_trust_policy_names_no_resource() -> None:
    trust = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sts:AssumeRole"}
    request = Request("events.amazonaws.com", "sts:AssumeRole", "", RULE)
    assert decide({"Statement": [trust]}, request) is Verdict.ALLOWED
