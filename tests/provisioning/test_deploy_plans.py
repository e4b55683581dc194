"""What plans make of CloudFormation's answers: of those that the emulator does not give."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from oms_events._aws.config import AwsConfig
from oms_events.errors import (
    AccessError,
    ConfigurationError,
    DataLossRefusedError,
    DeploymentError,
    ProvisioningError,
    StackBusyError,
    StackStateError,
)
from oms_events.provisioning.deployment.changes import Action, PropertyChange, discard, plan
from oms_events.provisioning.deployment.deploy import apply, deploy
from oms_events.provisioning.template import Template
from oms_events.testing.clock import ManualClock
from tests.provisioning.cloudformation import (
    BEFORE,
    CHANGE_SET_ID,
    EXPIRED,
    MISSING,
    NO_CHANGES,
    QUEUE,
    STACK,
    STACK_ID,
    TABLE,
    TEMPLATE,
    THROTTLED,
    Answer,
    CloudFormation,
    Refusal,
    change_set,
    event,
    events,
    fail,
    stack,
    through,
)

# ---------------------------------------------------------------------- plan


async def test_a_plan_is_a_change_set_read_to_its_last_page(aws: CloudFormation, clock: ManualClock) -> None:
    aws.answer(
        "DescribeChangeSet",
        change_set("CREATE_PENDING"),
        change_set("CREATE_IN_PROGRESS"),
        change_set(changes=[QUEUE], NextToken="more"),
        change_set(changes=[TABLE]),
    )
    made = await through(clock, plan(TEMPLATE, **aws.here, clock=clock))
    assert [(change.action, change.logical_id) for change in made.changes] == [
        (Action.ADD, "Queue"),
        (Action.REMOVE, "Table"),
    ]
    assert (made.change_set_id, made.creates, made.is_empty) == (CHANGE_SET_ID, False, False)
    (asked,) = aws.asked("CreateChangeSet")
    assert (asked["ChangeSetType"], asked["StackName"], asked["TemplateBody"]) == ("UPDATE", STACK, TEMPLATE.body)
    assert (asked["Tags.member.1.Key"], asked["Tags.member.1.Value"]) == ("team", "oms")
    assert "OnStackFailure" not in asked
    assert {found["ChangeSetName"] for found in aws.asked("DescribeChangeSet")} == {CHANGE_SET_ID}
    assert {found["IncludePropertyValues"] for found in aws.asked("DescribeChangeSet")} == {"true"}
    assert aws.changes == ["CreateChangeSet"]


@pytest.mark.parametrize("found", [MISSING, stack("REVIEW_IN_PROGRESS")], ids=["no stack", "an empty stack"])
async def test_a_stack_that_is_not_there_is_created_and_deleted_if_that_fails(
    aws: CloudFormation, clock: ManualClock, found: Answer
) -> None:
    aws.answer("DescribeStacks", found)
    made = await through(clock, plan(TEMPLATE, **aws.here, clock=clock))
    (asked,) = aws.asked("CreateChangeSet")
    assert (asked["ChangeSetType"], asked["OnStackFailure"], made.creates) == ("CREATE", "DELETE", True)


@pytest.mark.parametrize("reason", [NO_CHANGES, "No updates are to be performed."])
async def test_a_plan_without_changes_leaves_no_change_set(
    aws: CloudFormation, clock: ManualClock, reason: str
) -> None:
    aws.answer("DescribeChangeSet", change_set("FAILED", StatusReason=reason))
    made = await through(clock, plan(TEMPLATE, **aws.here, clock=clock))
    assert (made.is_empty, made.changes) == (True, ())
    assert aws.changes == ["CreateChangeSet", "DeleteChangeSet"]
    assert (await apply(made, **aws.here)).status == "UPDATE_COMPLETE"
    await discard(made, **aws.here)
    assert aws.changes == ["CreateChangeSet", "DeleteChangeSet"]


async def test_a_plan_that_is_refused_leaves_nothing_and_says_that_a_name_is_taken(
    aws: CloudFormation, clock: ManualClock
) -> None:
    reason = "The following hook(s)/validation failed: [AWS::EarlyValidation::ResourceExistenceCheck]."
    aws.answer("DescribeStacks", MISSING, stack("REVIEW_IN_PROGRESS"), stack("DELETE_COMPLETE"))
    aws.answer("DescribeChangeSet", change_set("FAILED", StatusReason=reason))
    error = await fail(clock, plan(TEMPLATE, **aws.here, clock=clock), DeploymentError)
    assert (error.rolled_back, error.failures) == (True, (reason,))
    assert "give the spec another name" in str(error)
    assert aws.changes == ["CreateChangeSet", "DeleteChangeSet", "DeleteStack"]
    assert aws.asked("DeleteStack")[0]["StackName"] == STACK_ID


async def test_a_discarded_plan_leaves_a_new_stack_to_the_change_sets_of_others(
    aws: CloudFormation, clock: ManualClock
) -> None:
    aws.answer("DescribeStacks", MISSING, stack("REVIEW_IN_PROGRESS"))
    made = await through(clock, plan(TEMPLATE, **aws.here, clock=clock))
    other = {"ChangeSetId": CHANGE_SET_ID + "-other", "StackId": STACK_ID}
    aws.answer("ListChangeSets", {"Summaries": [other]})
    await through(clock, discard(made, **aws.here, clock=clock))
    assert aws.changes == ["CreateChangeSet", "DeleteChangeSet"]


@pytest.mark.parametrize(
    ("status", "kind", "remedy"),
    [
        ("UPDATE_IN_PROGRESS", StackBusyError, "infra follow"),
        ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", StackBusyError, "infra follow"),
        ("DELETE_IN_PROGRESS", StackBusyError, "infra follow"),
        ("ROLLBACK_COMPLETE", StackStateError, "infra destroy"),
        ("CREATE_FAILED", StackStateError, "infra destroy"),
        ("DELETE_FAILED", StackStateError, "destroy it again"),
        ("UPDATE_ROLLBACK_FAILED", StackStateError, "continue-update-rollback"),
        ("UPDATE_FAILED", StackStateError, "rollback-stack"),
    ],
)
async def test_a_stack_that_cannot_be_deployed_to_says_what_to_do_first(
    aws: CloudFormation, clock: ManualClock, status: str, kind: type[ProvisioningError], remedy: str
) -> None:
    aws.answer("DescribeStacks", stack(status))
    error = await fail(clock, plan(TEMPLATE, **aws.here, clock=clock), kind)
    assert status in str(error)
    assert remedy in str(error)
    assert aws.changes == []


@pytest.mark.parametrize(
    ("status", "kind"), [("UPDATE_IN_PROGRESS", StackBusyError), ("ROLLBACK_COMPLETE", StackStateError)]
)
async def test_a_state_that_changes_while_it_is_planned_is_told_the_same_way(
    aws: CloudFormation, clock: ManualClock, status: str, kind: type[ProvisioningError]
) -> None:
    text = f"Stack:{STACK_ID} is in {status} state and can not be updated."
    aws.answer("CreateChangeSet", Refusal("ValidationError", text))
    error = await fail(clock, plan(TEMPLATE, **aws.here, clock=clock), kind)
    assert (error.code, status in str(error)) == ("ValidationError", True)


async def test_a_stack_that_somebody_else_creates_meanwhile_is_busy(
    aws: CloudFormation, clock: ManualClock
) -> None:
    aws.answer("DescribeStacks", MISSING)
    aws.answer("CreateChangeSet", Refusal("AlreadyExistsException", f"Stack [{STACK}] already exists"))
    await fail(clock, plan(TEMPLATE, **aws.here, clock=clock), StackBusyError)


async def test_a_bad_template_is_told_in_the_words_of_aws(aws: CloudFormation, clock: ManualClock) -> None:
    text = "Template format error: Unresolved resource dependencies [Nowhere]"
    aws.answer("CreateChangeSet", Refusal("ValidationError", text))
    error = await fail(clock, plan(TEMPLATE, **aws.here, clock=clock), ProvisioningError)
    assert (error.code, text in str(error)) == ("ValidationError", True)


async def test_a_template_above_the_limit_of_a_bucket_is_refused_without_a_call(aws: CloudFormation) -> None:
    large = Template(STACK, {"Metadata": {"text": "x" * 1_048_576}})
    with pytest.raises(ConfigurationError, match="at most 1,048,576: split it"):
        await plan(large, **aws.here, template_bucket="templates")
    assert aws.changes == []


# ---------------------------------------------------------------------- what a change loses


def target(path: str, **more: str) -> Mapping[str, Any]:
    return {"Target": {"Attribute": "Properties", "Name": path, "Path": f"/Properties/{path}", **more}}


@pytest.mark.parametrize(
    ("change", "action", "conditional", "loses"),
    [
        ({"Action": "Add"}, Action.ADD, False, False),
        ({"Action": "Import"}, Action.ADD, False, False),
        ({"Action": "Modify", "Replacement": "False"}, Action.CHANGE, False, False),
        ({"Action": "Modify", "Replacement": "True"}, Action.REPLACE, False, True),
        ({"Action": "Modify", "Replacement": "Conditional"}, Action.REPLACE, True, True),
        ({"Action": "Modify", "Replacement": "True", "PolicyAction": "ReplaceAndRetain"},
         Action.REPLACE, False, True),
        ({"Action": "Remove"}, Action.REMOVE, False, True),
        ({"Action": "Remove", "PolicyAction": "Delete"}, Action.REMOVE, False, True),
        ({"Action": "Remove", "PolicyAction": "Retain"}, Action.REMOVE, False, False),
        ({"Action": "Remove", "ResourceType": "AWS::IAM::Role"}, Action.REMOVE, False, False),
        ({"Action": "Modify", "Replacement": "True", "ResourceType": "AWS::Events::Rule"},
         Action.REPLACE, False, False),
    ],
    ids=str,
)  # fmt: skip
async def test_what_a_change_does_and_whether_data_is_lost(
    aws: CloudFormation, clock: ManualClock, change: dict[str, str], action: Action, conditional: bool, loses: bool
) -> None:
    aws.answer("DescribeChangeSet", change_set(changes=[{**TABLE, "PhysicalResourceId": "orders", **change}]))
    made = await through(clock, plan(TEMPLATE, **aws.here, clock=clock))
    (found,) = made.changes
    assert (found.action, found.conditional, found.loses_data) == (action, conditional, loses)
    assert len(made.data_loss) == loses
    assert all("table orders (Table)" in line for line in made.data_loss)


async def test_a_change_names_each_property_once_with_its_values(aws: CloudFormation, clock: ManualClock) -> None:
    details = [
        target("DelaySeconds", BeforeValue="0", AfterValue="5", RequiresRecreation="Never"),
        target("FifoQueue", RequiresRecreation="Always"),
        target("FifoQueue", RequiresRecreation="Never"),
        {"Target": {"Attribute": "Tags"}},
    ]
    change = {**QUEUE, "Action": "Modify", "Replacement": "True", "Details": details}
    aws.answer("DescribeChangeSet", change_set(changes=[change]))
    (found,) = (await through(clock, plan(TEMPLATE, **aws.here, clock=clock))).changes
    assert found.properties == (
        PropertyChange(path="DelaySeconds", before="0", after="5"),
        PropertyChange(path="FifoQueue", replaces=True),
        PropertyChange(path="Tags"),
    )


async def test_a_plan_that_loses_data_is_applied_only_if_that_is_allowed(
    aws: CloudFormation, clock: ManualClock
) -> None:
    aws.answer("DescribeChangeSet", change_set(changes=[TABLE]))
    error = await fail(clock, deploy(TEMPLATE, **aws.here, clock=clock), DataLossRefusedError)
    assert list(error.reasons) == ["table Table (Table) would be deleted"]
    assert aws.changes == ["CreateChangeSet", "DeleteChangeSet"]
    aws.answer("DescribeStackEvents", BEFORE, events(event(1, "UPDATE_COMPLETE")), BEFORE)
    done = await through(clock, deploy(TEMPLATE, **aws.here, clock=clock, allow_data_loss=True))
    assert done.status == "UPDATE_COMPLETE"


# ---------------------------------------------------------------------- access


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
