"""What deployments make of CloudFormation's answers: of those that the emulator does not give."""

from __future__ import annotations

import pytest

from oms_events.errors import (
    AccessError,
    DeploymentError,
    PlanOutdatedError,
    ProvisioningError,
    StackBusyError,
    StackStateError,
)
from oms_events.provisioning.deployment.changes import plan
from oms_events.provisioning.deployment.deploy import apply, deploy
from oms_events.provisioning.deployment.progress import StackEvent, follow
from oms_events.provisioning.deployment.stacks import StackState
from oms_events.provisioning.template import Template
from oms_events.testing.clock import ManualClock
from tests.provisioning.cloudformation import (
    BEFORE,
    CHANGE_SET_ID,
    EXPIRED,
    PLAN,
    STACK,
    STACK_ID,
    TEMPLATE,
    CloudFormation,
    Refusal,
    event,
    events,
    fail,
    stack,
    through,
)

# ---------------------------------------------------------------------- apply


async def test_the_change_set_that_was_shown_is_executed_and_nothing_else(
    aws: CloudFormation, clock: ManualClock
) -> None:
    began, queue = event(1, "UPDATE_IN_PROGRESS"), event(2, "CREATE_IN_PROGRESS", "Queue")
    made, ended = event(3, "CREATE_COMPLETE", "Queue"), event(4, "UPDATE_COMPLETE")
    aws.answer(
        "DescribeStackEvents",
        BEFORE,
        BEFORE,
        events(event(0, "CREATE_COMPLETE"), began, queue),
        # Two pages, of which the second begins with what is known.
        events(made, ended, NextToken="older"),
        events(event(0, "CREATE_COMPLETE"), began, queue),
        events(event(0, "CREATE_COMPLETE"), began, queue, made, ended),
    )
    told: list[StackEvent] = []
    state = await through(clock, apply(PLAN, **aws.here, on_event=told.append, clock=clock))
    assert [one.id for one in told] == ["event-1", "event-2", "event-3", "event-4"]
    assert [one.of_stack for one in told] == [True, False, False, True]
    assert state == StackState(name=STACK, id=STACK_ID, status="UPDATE_COMPLETE")
    assert aws.changes == ["ExecuteChangeSet"]
    (asked,) = aws.asked("ExecuteChangeSet")
    assert (asked["ChangeSetName"], asked["RetainExceptOnCreate"]) == (CHANGE_SET_ID, "true")
    assert {found["StackName"] for found in aws.asked("DescribeStackEvents")} == {STACK_ID}
    assert aws.calls[1][0] == "DescribeStackEvents"


async def test_it_looks_again_less_often_while_nothing_happens(aws: CloudFormation, clock: ManualClock) -> None:
    quiet = [BEFORE] * 12
    aws.answer("DescribeStackEvents", *quiet, events(event(0, "CREATE_COMPLETE"), event(1, "UPDATE_COMPLETE")))
    await through(clock, apply(PLAN, **aws.here, clock=clock))
    # 0.5 s, half as much more each time, at most 5 s: eleven waits.
    assert clock.monotonic() == pytest.approx(0.5 * (1.5**6 - 1) / 0.5 + 5 * 5, abs=0.5)


async def test_it_looks_again_soon_once_something_happens(aws: CloudFormation, clock: ManualClock) -> None:
    began = events(event(0, "CREATE_COMPLETE"), event(1, "UPDATE_IN_PROGRESS"))
    aws.answer("DescribeStackEvents", *[BEFORE] * 12, began, events(event(1, "-"), event(2, "UPDATE_COMPLETE")))
    before: list[float] = []
    await through(clock, apply(PLAN, **aws.here, on_event=lambda _: before.append(clock.monotonic()), clock=clock))
    assert before[1] - before[0] == pytest.approx(0.5, abs=0.1)


async def test_termination_protection_comes_after_success(aws: CloudFormation, clock: ManualClock) -> None:
    protected = Template(STACK, TEMPLATE.document, termination_protection=True)
    aws.answer("DescribeStackEvents", BEFORE, events(event(1, "UPDATE_COMPLETE")))
    await through(clock, deploy(protected, **aws.here, clock=clock))
    assert aws.changes == ["CreateChangeSet", "ExecuteChangeSet", "UpdateTerminationProtection"]
    asked = aws.asked("UpdateTerminationProtection")
    assert [(one["StackName"], one["EnableTerminationProtection"]) for one in asked] == [(STACK_ID, "true")]
    aws.answer("DescribeStacks", stack("UPDATE_COMPLETE", EnableTerminationProtection=True))
    assert not (await through(clock, plan(protected, **aws.here, clock=clock))).protects


CANCELLED = "Resource creation cancelled"
FAILED_CREATE = (
    event(1, "CREATE_IN_PROGRESS"),
    event(2, "CREATE_FAILED", "Queue", "Invalid value for the parameter RedrivePolicy."),
    event(3, "CREATE_FAILED", "Other", CANCELLED),
    event(4, "DELETE_IN_PROGRESS", reason="The following resource(s) failed to create: [Queue, Other]."),
    event(5, "DELETE_COMPLETE", "Queue"),
    event(6, "DELETE_COMPLETE"),
)


@pytest.mark.parametrize("last", ["DELETE_COMPLETE", "ROLLBACK_COMPLETE"])
async def test_a_creation_that_fails_names_the_first_resource_and_why(
    aws: CloudFormation, clock: ManualClock, last: str
) -> None:
    reviewed = event(0, "REVIEW_IN_PROGRESS")
    aws.answer("DescribeStackEvents", events(reviewed), events(reviewed, *FAILED_CREATE[:-1], event(6, last)))
    aws.answer("DescribeStacks", stack("REVIEW_IN_PROGRESS"), stack(last))
    error = await fail(clock, apply(PLAN, **aws.here, clock=clock), DeploymentError)
    assert (error.status, error.rolled_back) == (last, True)
    assert list(error.failures) == ["Queue (AWS::SQS::Queue): Invalid value for the parameter RedrivePolicy."]
    assert f"ended in {last}: Queue (AWS::SQS::Queue): Invalid value" in str(error)
    assert "UpdateTerminationProtection" not in aws.changes


async def test_a_failed_creation_that_passes_through_its_roll_back_is_waited_for(
    aws: CloudFormation, clock: ManualClock
) -> None:
    so_far = events(event(1, "CREATE_IN_PROGRESS"), FAILED_CREATE[1], event(3, "ROLLBACK_COMPLETE"))
    aws.answer("DescribeStackEvents", events(event(0, "REVIEW_IN_PROGRESS")), so_far)
    aws.answer("DescribeStacks", stack("CREATE_IN_PROGRESS"), stack("ROLLBACK_COMPLETE"), stack("DELETE_COMPLETE"))
    error = await fail(clock, apply(PLAN, **aws.here, clock=clock), DeploymentError)
    assert (error.status, error.rolled_back) == ("DELETE_COMPLETE", True)


@pytest.mark.parametrize(
    ("last", "rolled_back", "remedy"),
    [
        ("UPDATE_ROLLBACK_COMPLETE", True, "all is as it was before"),
        ("UPDATE_ROLLBACK_FAILED", False, "continue-update-rollback"),
    ],
)
async def test_an_update_that_fails_says_whether_it_was_rolled_back(
    aws: CloudFormation, clock: ManualClock, last: str, rolled_back: bool, remedy: str
) -> None:
    failed = event(2, "UPDATE_FAILED", "Queue", "Rate of Lambda is too high")
    late = event(4, "UPDATE_FAILED", "Table", "could not be put back")
    began = event(1, "UPDATE_IN_PROGRESS")
    back = event(3, "UPDATE_ROLLBACK_IN_PROGRESS", reason="The following resource(s) failed to update: [Queue].")
    aws.answer("DescribeStackEvents", BEFORE, events(began, failed, back, late, event(5, last)))
    aws.answer("DescribeStacks", stack("UPDATE_COMPLETE"), stack(last))
    error = await fail(clock, apply(PLAN, **aws.here, clock=clock), DeploymentError)
    assert (error.status, error.rolled_back) == (last, rolled_back)
    assert [failure.split(" ")[0] for failure in error.failures] == ["Queue", "Table"]
    assert "Rate of Lambda" in str(error)
    assert remedy in str(error)


@pytest.mark.parametrize(
    "reason",
    [
        "orders already exists",
        "Resource of type 'AWS::SQS::Queue' with identifier 'orders' already exists. (RequestToken: 1, "
        "HandlerErrorCode: AlreadyExists)",
    ],
)
async def test_a_name_that_exists_outside_the_stack_says_what_to_do(
    aws: CloudFormation, clock: ManualClock, reason: str
) -> None:
    failed = event(2, "CREATE_FAILED", "Queue", reason)
    ended = event(3, "UPDATE_ROLLBACK_COMPLETE")
    aws.answer("DescribeStackEvents", BEFORE, events(event(1, "UPDATE_IN_PROGRESS"), failed, ended))
    aws.answer("DescribeStacks", stack("UPDATE_COMPLETE"), stack("UPDATE_ROLLBACK_COMPLETE"))
    error = await fail(clock, apply(PLAN, **aws.here, clock=clock), DeploymentError)
    assert reason in str(error)
    assert "not in this stack: give the spec another name, delete the other one, or import it" in str(error)


async def test_what_an_update_could_not_delete_is_told_although_it_succeeded(
    aws: CloudFormation, clock: ManualClock
) -> None:
    kept = event(2, "DELETE_FAILED", "Table", "is protected against deletion")
    aws.answer(
        "DescribeStackEvents", BEFORE, events(event(1, "UPDATE_IN_PROGRESS"), kept, event(3, "UPDATE_COMPLETE"))
    )
    state = await through(clock, apply(PLAN, **aws.here, clock=clock))
    assert "left behind, outside the stack: Table" in state.reason


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refusal("InvalidChangeSetStatus", f"ChangeSet [{CHANGE_SET_ID}] cannot be executed in its current "
                 "execution status of [OBSOLETE]"), PlanOutdatedError),
        (Refusal("ChangeSetNotFound", f"ChangeSet [{CHANGE_SET_ID}] does not exist", 404), PlanOutdatedError),
        (Refusal("InvalidChangeSetStatus", f"ChangeSet [{CHANGE_SET_ID}] cannot be executed in its current "
                 "execution status of [EXECUTE_IN_PROGRESS]"), StackBusyError),
        (Refusal("ValidationError", f"Stack:{STACK_ID} is in UPDATE_IN_PROGRESS state and can not be updated."),
         StackBusyError),
        (Refusal("OperationInProgressException", "Another operation is in progress", 409), StackBusyError),
        (Refusal("InsufficientCapabilitiesException", "Requires capabilities : [CAPABILITY_NAMED_IAM]"),
         ProvisioningError),
    ],
)  # fmt: skip
async def test_a_plan_that_can_no_longer_be_applied_says_why(
    aws: CloudFormation, clock: ManualClock, refusal: Refusal, kind: type[ProvisioningError]
) -> None:
    aws.answer("DescribeStackEvents", BEFORE)
    aws.answer("ExecuteChangeSet", refusal)
    error = await fail(clock, apply(PLAN, **aws.here, clock=clock), kind)
    assert error.code == refusal.code
    assert aws.changes == ["ExecuteChangeSet"]


async def test_an_answer_that_was_lost_does_not_make_it_a_second_deployment(
    aws: CloudFormation, clock: ManualClock
) -> None:
    aws.answer("DescribeStackEvents", BEFORE, events(event(1, "UPDATE_COMPLETE")))
    aws.answer("ExecuteChangeSet", Refusal("InternalFailure", "", 500), Refusal("TokenAlreadyExistsException"))
    assert (await through(clock, apply(PLAN, **aws.here, clock=clock))).status == "UPDATE_COMPLETE"
    first, second = aws.asked("ExecuteChangeSet")
    assert first["ClientRequestToken"] == second["ClientRequestToken"]


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


# ---------------------------------------------------------------------- follow


async def test_the_last_operation_is_followed_when_none_is_under_way(aws: CloudFormation) -> None:
    history = (event(1, "CREATE_IN_PROGRESS"), event(2, "CREATE_COMPLETE"), event(3, "UPDATE_IN_PROGRESS"))
    failed = (event(4, "UPDATE_FAILED", "Queue", "no"), event(5, "UPDATE_ROLLBACK_COMPLETE"))
    aws.answer("DescribeStackEvents", events(*history, *failed))
    aws.answer("DescribeStacks", stack("UPDATE_ROLLBACK_COMPLETE"))
    told: list[StackEvent] = []
    with pytest.raises(DeploymentError, match=r"Queue \(AWS::SQS::Queue\): no"):
        await follow(STACK, **aws.here, on_event=told.append)
    assert [one.id for one in told] == ["event-3", "event-4", "event-5"]


async def test_an_operation_under_way_is_followed_from_its_beginning(
    aws: CloudFormation, clock: ManualClock
) -> None:
    so_far = (event(1, "CREATE_COMPLETE"), event(2, "UPDATE_IN_PROGRESS"))
    more = (event(3, "UPDATE_COMPLETE", "Queue"), event(4, "UPDATE_COMPLETE"))
    aws.answer("DescribeStackEvents", events(*so_far), events(*so_far), events(*so_far, *more))
    aws.answer("DescribeStacks", stack("UPDATE_IN_PROGRESS"), stack("UPDATE_COMPLETE"))
    told: list[StackEvent] = []
    await through(clock, follow(STACK, **aws.here, on_event=told.append, clock=clock))
    assert [one.id for one in told] == ["event-2", "event-3", "event-4"]


async def test_a_stack_that_has_only_change_sets_has_nothing_to_follow(aws: CloudFormation) -> None:
    aws.answer("DescribeStacks", stack("REVIEW_IN_PROGRESS"))
    with pytest.raises(StackStateError, match="no operation has begun"):
        await follow(STACK, **aws.here)
