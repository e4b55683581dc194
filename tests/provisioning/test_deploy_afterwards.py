"""What outputs, drift and deletions make of CloudFormation's answers: of those that the emulator does not give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from oms_events.errors import (
    AccessError,
    DataLossRefusedError,
    DeploymentError,
    PlanOutdatedError,
    ProvisioningError,
    StackBusyError,
    StackNotFoundError,
)
from oms_events.provisioning.deployment.destroy import destroy, look
from oms_events.provisioning.deployment.drift import Difference, DriftStatus, drift
from oms_events.provisioning.deployment.stacks import outputs
from oms_events.testing.clock import ManualClock
from tests.provisioning.cloudformation import (
    BEFORE,
    LOST,
    MISSING,
    STACK,
    STACK_ID,
    Answer,
    CloudFormation,
    Refusal,
    event,
    events,
    fail,
    stack,
    through,
)

# ---------------------------------------------------------------------- outputs


YAML = """\
AWSTemplateFormatVersion: '2010-09-09'
Metadata:
  OmsEvents:
    Outputs:
      queues: {orders: QueuesOrders}
      archive_arn: null
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (YAML, {"queues": {"orders": "arn:q"}, "archive_arn": None}),
        ('{"Metadata": {"OmsEvents": {"Outputs": {"queue": "QueuesOrders"}}}}', {"queue": "arn:q"}),
        ('{"Resources": {}}', {"QueuesOrders": "arn:q"}),
        ('{"Metadata": {"OmsEvents": "a team"}}', {"QueuesOrders": "arn:q"}),
        ('{"Metadata": ["OmsEvents"]}', {"QueuesOrders": "arn:q"}),
        ("Resources: {Queue: !Ref Other}", {"QueuesOrders": "arn:q"}),
    ],
)
async def test_outputs_are_put_together_as_the_deployed_template_says(
    aws: CloudFormation, body: str, expected: Mapping[str, Any]
) -> None:
    plain = [{"OutputKey": "QueuesOrders", "OutputValue": "arn:q"}]
    aws.answer("DescribeStacks", stack("CREATE_COMPLETE", Outputs=plain))
    aws.answer("GetTemplate", {"TemplateBody": body})
    assert await outputs(STACK, **aws.here) == expected


# ---------------------------------------------------------------------- drift


def detected(status: str, **more: str) -> Answer:
    said = {"StackId": STACK_ID, "StackDriftDetectionId": "d-1", "DetectionStatus": status}
    return {**said, "Timestamp": "2026-01-01T00:00:00Z", **more}


def drifted(name: str, status: str, *differences: Mapping[str, str]) -> Mapping[str, Any]:
    said = {"StackId": STACK_ID, "LogicalResourceId": name, "ResourceType": "AWS::SQS::Queue"}
    when = {"StackResourceDriftStatus": status, "Timestamp": "2026-01-01T00:00:00Z"}
    return {**said, **when, "PropertyDifferences": differences}


async def test_what_was_changed_by_hand_shows_as_drift(aws: CloudFormation, clock: ManualClock) -> None:
    difference = {
        "PropertyPath": "/DelaySeconds", "ExpectedValue": "0", "ActualValue": "5", "DifferenceType": "NOT_EQUAL"
    }  # fmt: skip
    aws.answer("DetectStackDrift", {"StackDriftDetectionId": "d-1"})
    aws.answer(
        "DescribeStackDriftDetectionStatus", detected("DETECTION_IN_PROGRESS"), detected("DETECTION_COMPLETE")
    )
    aws.answer(
        "DescribeStackResourceDrifts",
        {"StackResourceDrifts": [drifted("Queue", "MODIFIED", difference)], "NextToken": "more"},
        {"StackResourceDrifts": [drifted("Other", "DELETED")]},
    )
    queue, other = await through(clock, drift(STACK, **aws.here, clock=clock))
    assert (queue.logical_id, queue.status) == ("Queue", DriftStatus.MODIFIED)
    assert queue.differences == (Difference(path="/DelaySeconds", expected="0", actual="5"),)
    assert (other.logical_id, other.status) == ("Other", DriftStatus.DELETED)
    first, second = aws.asked("DescribeStackResourceDrifts")
    assert (first.get("NextToken"), second["NextToken"]) == (None, "more")


async def test_what_could_not_be_compared_is_not_told_as_unchanged(
    aws: CloudFormation, clock: ManualClock
) -> None:
    aws.answer("DetectStackDrift", {"StackDriftDetectionId": "d-1"})
    reason = "Failed to detect drift on resource [Queue]"
    aws.answer("DescribeStackDriftDetectionStatus", detected("DETECTION_FAILED", DetectionStatusReason=reason))
    aws.answer("DescribeStackResourceDrifts", {"StackResourceDrifts": []})
    (found,) = await through(clock, drift(STACK, **aws.here, clock=clock))
    assert (found.logical_id, found.status, found.reason) == (STACK, DriftStatus.UNKNOWN, reason)


async def test_two_comparisons_at_once_are_one_too_many(aws: CloudFormation, clock: ManualClock) -> None:
    text = f"Drift detection is already in progress for stack [{STACK_ID}]"
    aws.answer("DetectStackDrift", Refusal("ValidationError", text))
    await fail(clock, drift(STACK, **aws.here, clock=clock), StackBusyError)


# ---------------------------------------------------------------------- destroy


def listed(*resources: tuple[str, str]) -> Answer:
    return {
        "StackResourceSummaries": [
            {"LogicalResourceId": name, "PhysicalResourceId": name.lower(), "ResourceType": kind,
             "ResourceStatus": "CREATE_COMPLETE", "LastUpdatedTimestamp": "2026-01-01T00:00:00Z"}
            for name, kind in resources
        ]
    }  # fmt: skip


@pytest.fixture
def filled(aws: CloudFormation) -> CloudFormation:
    """A stack of a topic, and of a table that is kept."""
    document = '{"Resources": {"Table": {"Type": "AWS::DynamoDB::Table", "DeletionPolicy": "Retain"}}}'
    aws.answer("GetTemplate", {"TemplateBody": document})
    aws.answer("ListStackResources", listed(("Topic", "AWS::SNS::Topic"), ("Table", "AWS::DynamoDB::Table")))
    aws.answer("DescribeStackEvents", BEFORE)
    return aws


async def test_what_could_not_be_deleted_is_told_with_its_reason(
    filled: CloudFormation, clock: ManualClock
) -> None:
    failed = event(2, "DELETE_FAILED", "Bucket", "The bucket you tried to delete is not empty")
    filled.answer(
        "DescribeStackEvents", BEFORE, events(event(1, "DELETE_IN_PROGRESS"), failed, event(3, "DELETE_FAILED"))
    )
    filled.answer("DescribeStacks", stack("UPDATE_COMPLETE"), stack("UPDATE_COMPLETE"), stack("DELETE_FAILED"))
    error = await fail(clock, destroy(STACK, **filled.here, clock=clock), DeploymentError)
    assert (error.status, error.rolled_back) == ("DELETE_FAILED", False)
    assert "The bucket you tried to delete is not empty" in str(error)
    assert filled.asked("DeleteStack")[0]["StackName"] == STACK_ID


async def test_a_table_that_is_kept_does_not_speak_against_it(filled: CloudFormation) -> None:
    found = await look(STACK, **filled.here)
    assert [(one.logical_id, one.kept) for one in found.resources] == [("Topic", False), ("Table", True)]
    assert found.reasons == ()
    assert filled.changes == []


FOREIGN = """{"Transform": "AWS::LanguageExtensions", "Resources": {
    "Fn::ForEach::Topics": ["Name", ["a"], {"Topic${Name}": {"Type": "AWS::SNS::Topic"}}],
    "Db": {"Type": "AWS::RDS::DBInstance", "DeletionPolicy": {"Ref": "Keep"}},
    "Kept": {"Type": "AWS::RDS::DBInstance", "DeletionPolicy": "Snapshot"}
}}"""


async def test_what_no_spec_renders_speaks_against_it(filled: CloudFormation) -> None:
    database, nested = "AWS::RDS::DBInstance", "AWS::CloudFormation::Stack"
    filled.answer("GetTemplate", {"TemplateBody": FOREIGN})
    names = (("Topic", "AWS::SNS::Topic"), ("Db", database), ("Kept", database), ("Nested", nested))
    filled.answer("ListStackResources", listed(*names))
    found = await look(STACK, **filled.here)
    assert [(one.logical_id, one.kept) for one in found.resources if one.kept] == [("Kept", True)]
    assert list(found.reasons) == [
        "AWS::RDS::DBInstance db could not be looked into: it may hold anything",
        "nested stack nested could not be looked into: it may hold anything",
    ]
    # Only after transforms the policies are plain.
    assert [one["TemplateStage"] for one in filled.asked("GetTemplate")] == ["Processed"]


async def test_what_speaks_against_it_only_since_it_was_shown_keeps_the_stack(
    filled: CloudFormation, clock: ManualClock
) -> None:
    filled.answer("ListStackResources", listed(("Db", "AWS::RDS::DBInstance")))
    shown = await look(STACK, **filled.here)
    other_kind = replace(shown.holdings[0], protected=True)
    for before in (replace(shown, holdings=()), replace(shown, holdings=(other_kind,))):
        work = destroy(STACK, **filled.here, shown=before, force=True, clock=clock)
        error = await fail(clock, work, PlanOutdatedError)
        assert "since it was shown, AWS::RDS::DBInstance db could not be looked into" in str(error)
    filled.answer("DescribeStacks", stack("UPDATE_COMPLETE", EnableTerminationProtection=True))
    error = await fail(
        clock, destroy(STACK, **filled.here, shown=shown, force=True, clock=clock), PlanOutdatedError
    )
    assert "got termination protection" in str(error)
    assert filled.changes == []
    filled.answer("DescribeStacks", stack("UPDATE_COMPLETE"))
    filled.answer("DescribeStackEvents", BEFORE, events(event(1, "DELETE_COMPLETE")))
    await through(clock, destroy(STACK, **filled.here, shown=shown, force=True, clock=clock))
    assert filled.changes == ["DeleteStack"]


PROTECTED = stack("UPDATE_COMPLETE", EnableTerminationProtection=True)
BUSY = Refusal("ValidationError", f"Stack:{STACK_ID} is in UPDATE_IN_PROGRESS state and can not be deleted.")


async def test_a_deletion_that_is_refused_leaves_the_stack_protected(
    filled: CloudFormation, clock: ManualClock
) -> None:
    filled.answer("DescribeStacks", PROTECTED)
    filled.answer("DeleteStack", BUSY)
    await fail(clock, destroy(STACK, **filled.here, force=True, clock=clock), StackBusyError)
    switched = [one["EnableTerminationProtection"] for one in filled.asked("UpdateTerminationProtection")]
    assert switched == ["false", "true"]
    filled.answer("UpdateTerminationProtection", {}, Refusal("AccessDenied", "no", 403))
    error = await fail(clock, destroy(STACK, **filled.here, force=True, clock=clock), AccessError)
    assert "was not deleted, but its protection is off now, and could not be switched on again" in str(error)


async def test_a_deletion_that_fails_before_it_begins_leaves_the_stack_protected(
    filled: CloudFormation, clock: ManualClock
) -> None:
    filled.answer("DescribeStacks", PROTECTED)
    filled.answer("DescribeStackEvents", Refusal("AccessDenied", "no", 403))
    await fail(clock, destroy(STACK, **filled.here, force=True, clock=clock), AccessError)
    switched = [one["EnableTerminationProtection"] for one in filled.asked("UpdateTerminationProtection")]
    assert (switched, filled.asked("DeleteStack")) == (["false", "true"], [])


@pytest.mark.parametrize(
    "later", [Refusal("TokenAlreadyExistsException"), BUSY], ids=["the token is known", "in progress"]
)
async def test_a_deletion_whose_answer_was_lost_is_waited_for(
    filled: CloudFormation, clock: ManualClock, later: Refusal
) -> None:
    filled.answer("DescribeStacks", PROTECTED)
    filled.answer("DeleteStack", LOST, later)
    deleted = (event(1, "DELETE_IN_PROGRESS"), event(2, "DELETE_COMPLETE"))
    filled.answer("DescribeStackEvents", BEFORE, events(*deleted))
    done = await through(clock, destroy(STACK, **filled.here, force=True, clock=clock))
    assert (done.status, len(filled.asked("UpdateTerminationProtection"))) == ("DELETE_COMPLETE", 1)


async def test_a_deletion_that_may_have_begun_says_so(filled: CloudFormation, clock: ManualClock) -> None:
    filled.answer("DeleteStack", Refusal("Unfit", "", 501))
    error = await fail(clock, destroy(STACK, **filled.here, clock=clock), ProvisioningError)
    assert "may have begun nevertheless" in str(error)


async def test_a_stack_that_has_changed_since_it_was_shown_is_not_deleted(
    filled: CloudFormation, clock: ManualClock
) -> None:
    shown = await look(STACK, **filled.here)
    filled.answer("ListStackResources", listed(("Topic", "AWS::SNS::Topic"), ("New", "AWS::SNS::Topic")))
    await fail(clock, destroy(STACK, **filled.here, shown=shown, force=True, clock=clock), PlanOutdatedError)
    assert filled.changes == []


async def test_termination_protection_is_switched_off_only_when_forced(
    filled: CloudFormation, clock: ManualClock
) -> None:
    protected = stack("UPDATE_COMPLETE", EnableTerminationProtection=True)
    filled.answer("DescribeStacks", protected)
    error = await fail(clock, destroy(STACK, **filled.here, clock=clock), DataLossRefusedError)
    assert list(error.reasons) == ["the stack has termination protection"]
    assert filled.changes == []
    filled.answer("DescribeStacks", protected, protected, stack("DELETE_COMPLETE"))
    filled.answer(
        "DescribeStackEvents", BEFORE, events(event(1, "DELETE_IN_PROGRESS"), event(2, "DELETE_COMPLETE"))
    )
    done = await through(clock, destroy(STACK, **filled.here, force=True, clock=clock))
    assert done.status == "DELETE_COMPLETE"
    assert filled.changes == ["UpdateTerminationProtection", "DeleteStack"]


async def test_an_empty_stack_of_change_sets_can_be_deleted(filled: CloudFormation, clock: ManualClock) -> None:
    reviewed = stack("REVIEW_IN_PROGRESS")
    filled.answer("ListStackResources", listed())
    filled.answer("DescribeStacks", reviewed, reviewed, reviewed, stack("DELETE_COMPLETE"))
    assert (await through(clock, destroy(STACK, **filled.here, clock=clock))).status == "DELETE_COMPLETE"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (stack("UPDATE_IN_PROGRESS"), StackBusyError),
        (stack("DELETE_IN_PROGRESS"), StackBusyError),
        (MISSING, StackNotFoundError),
    ],
    ids=["updated", "deleted", "missing"],
)
async def test_a_stack_that_cannot_be_deleted_now_says_so(
    filled: CloudFormation, clock: ManualClock, answer: Answer, kind: type[ProvisioningError]
) -> None:
    filled.answer("DescribeStacks", answer)
    await fail(clock, destroy(STACK, **filled.here, clock=clock), kind)
    text = f"Stack [{STACK_ID}] cannot be deleted while in status UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"
    filled.answer("DescribeStacks", stack("UPDATE_COMPLETE"))
    filled.answer("DeleteStack", Refusal("ValidationError", text))
    await fail(clock, destroy(STACK, **filled.here, clock=clock), StackBusyError)
