"""What is told when credentials are missing, wrong or expired, and when something is not allowed."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from oms_events._aws.config import AwsConfig
from oms_events.errors import AccessError, ConfigurationError
from oms_events.provisioning.deployment.changes import plan
from oms_events.provisioning.deployment.deploy import apply
from oms_events.provisioning.deployment.progress import StackEvent, follow
from oms_events.testing.clock import ManualClock
from tests.provisioning.cloudformation import (
    BEFORE,
    EXPIRED,
    PLAN,
    STACK_ID,
    TEMPLATE,
    THROTTLED,
    CloudFormation,
    Refusal,
    event,
    events,
    fail,
    stack,
    through,
)


@pytest.mark.parametrize(
    ("refusal", "remedy"),
    [
        (EXPIRED, "get new ones"),
        (Refusal("AccessDenied", "User is not authorized to perform: cloudformation:CreateChangeSet", 403),
         "allow CreateChangeSet"),
        (Refusal("InvalidClientTokenId", "The security token included in the request is invalid.", 403),
         "check the credentials"),
    ],
)  # fmt: skip
async def test_no_access_names_the_call_and_what_to_do(
    aws: CloudFormation, clock: ManualClock, refusal: Refusal, remedy: str
) -> None:
    aws.answer("CreateChangeSet", refusal)
    error = await fail(clock, plan(TEMPLATE, **aws.here, clock=clock), AccessError)
    assert (error.operation, error.code) == ("CreateChangeSet", refusal.code)
    assert remedy in str(error)
    assert str(error).startswith("CreateChangeSet: ")


async def test_a_bad_signature_does_not_show_what_was_signed(aws: CloudFormation, clock: ManualClock) -> None:
    text = "The Canonical String should have been x-amz-security-token:a-secret-token"
    aws.answer("DescribeStacks", Refusal("SignatureDoesNotMatch", text, 403))
    error = await fail(clock, plan(TEMPLATE, **aws.here, clock=clock), AccessError)
    assert "a-secret-token" not in "".join(traceback.format_exception(error))


async def test_without_credentials_it_is_said_what_to_give(
    aws: CloudFormation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(AccessError, match=r"no credentials that can be used: .*give a profile, a role or keys"):
        await plan(TEMPLATE, aws.here["config"])
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with pytest.raises(ConfigurationError, match="'aws_region' is missing"):
        await plan(TEMPLATE, AwsConfig())
    assert aws.calls == []


async def test_a_role_that_cannot_be_assumed_is_told_as_such(aws: CloudFormation) -> None:
    url = aws.here["config"].endpoint_url
    role = {"role_arn": "arn:aws:iam::123456789012:role/deployer", "sts_endpoint_url": url, "endpoint_url": url}
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "aws_region": "eu-west-1"}
    aws.answer("AssumeRole", Refusal("AccessDenied", "User is not authorized to perform: sts:AssumeRole", 403))
    with pytest.raises(AccessError, match="the role cannot be assumed: check role_arn") as caught:
        await plan(TEMPLATE, AwsConfig(**role, **keys))
    assert (caught.value.operation, aws.changes) == ("DescribeStacks", ["AssumeRole"])


async def test_throttling_is_waited_out(aws: CloudFormation, clock: ManualClock) -> None:
    aws.answer("DescribeStacks", THROTTLED, stack("UPDATE_COMPLETE"))
    assert not (await through(clock, plan(TEMPLATE, **aws.here, clock=clock))).is_empty
    assert len(aws.asked("DescribeStacks")) == 2


async def test_credentials_that_expire_meanwhile_leave_a_deployment_that_can_be_followed(
    aws: CloudFormation, clock: ManualClock
) -> None:
    aws.answer("DescribeStackEvents", BEFORE, events(event(1, "UPDATE_IN_PROGRESS")), EXPIRED)
    error = await fail(clock, apply(PLAN, **aws.here, clock=clock), AccessError)
    assert (error.code, error.operation) == ("ExpiredToken", "DescribeStackEvents")
    assert "CloudFormation goes on" in str(error)
    assert f"infra follow --stack-name {STACK_ID}" in str(error)
    history = events(event(0, "CREATE_COMPLETE"), event(1, "UPDATE_IN_PROGRESS"), event(2, "UPDATE_COMPLETE"))
    aws.answer("DescribeStackEvents", history)
    told: list[StackEvent] = []
    assert (await follow(STACK_ID, **aws.here, on_event=told.append)).status == "UPDATE_COMPLETE"
    assert [one.id for one in told] == ["event-1", "event-2"]
