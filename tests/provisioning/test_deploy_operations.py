"""How operations begin, also when an answer is lost, and how the last one is followed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oms_events.errors import (
    AccessError,
    DeploymentError,
    PlanOutdatedError,
    ProvisioningError,
    StackBusyError,
    StackStateError,
)
from oms_events.provisioning.deployment.changes import Plan
from oms_events.provisioning.deployment.deploy import apply
from oms_events.provisioning.deployment.progress import StackEvent, follow
from oms_events.testing.clock import ManualClock
from tests.provisioning.cloudformation import (
    BEFORE,
    CHANGE_SET_ID,
    LOST,
    PLAN,
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


@pytest.mark.parametrize(
    "later",
    [
        Refusal("InvalidChangeSetStatus", "cannot be executed in its current execution status of "
                "[EXECUTE_IN_PROGRESS]"),
        Refusal("ChangeSetNotFound", f"ChangeSet [{CHANGE_SET_ID}] does not exist", 404),
    ],
    ids=["in progress", "gone"],
)  # fmt: skip
async def test_after_a_lost_answer_a_refusal_may_tell_of_what_has_begun(
    aws: CloudFormation, clock: ManualClock, later: Refusal
) -> None:
    began = event(1, "UPDATE_IN_PROGRESS")
    aws.answer("DescribeStackEvents", BEFORE, BEFORE, events(began), events(began, event(2, "UPDATE_COMPLETE")))
    aws.answer("ExecuteChangeSet", LOST, later)
    told: list[StackEvent] = []
    state = await through(clock, apply(PLAN, **aws.here, clock=clock, on_event=told.append))
    assert (state.status, [one.id for one in told]) == ("UPDATE_COMPLETE", ["event-1", "event-2"])


async def test_after_a_lost_answer_a_refusal_counts_if_nothing_has_begun(
    aws: CloudFormation, clock: ManualClock
) -> None:
    aws.answer("DescribeStackEvents", BEFORE, events(event(1, "UPDATE_IN_PROGRESS", token="of-others")))
    aws.answer("ExecuteChangeSet", LOST, Refusal("ChangeSetNotFound", "does not exist", 404))
    await fail(clock, apply(PLAN, **aws.here, clock=clock), PlanOutdatedError)


@pytest.mark.parametrize("looks", [BEFORE, Refusal("AccessDenied", "no", 403)], ids=["nothing seen", "denied"])
async def test_without_any_answer_it_says_that_it_may_have_begun(
    aws: CloudFormation, clock: ManualClock, looks: Answer
) -> None:
    aws.answer("DescribeStackEvents", BEFORE, looks)
    # A status that is not tried again.
    aws.answer("ExecuteChangeSet", Refusal("Unfit", "", 501))
    error = await fail(clock, apply(PLAN, **aws.here, clock=clock), ProvisioningError)
    assert "CloudFormation may have begun nevertheless: see it with `oms-events infra follow" in str(error)
    assert aws.changes == ["ExecuteChangeSet"]


EMPTY = Plan(stack_name=STACK, stack_id=STACK_ID, change_set_id=None)


@pytest.mark.parametrize("made", [PLAN, EMPTY], ids=["changes", "empty"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("DELETE_COMPLETE", PlanOutdatedError),
        ("UPDATE_IN_PROGRESS", StackBusyError),
        ("UPDATE_ROLLBACK_FAILED", StackStateError),
    ],
)
async def test_a_plan_is_not_applied_to_what_has_become_of_the_stack(
    aws: CloudFormation, clock: ManualClock, made: Plan, status: str, kind: type[ProvisioningError]
) -> None:
    aws.answer("DescribeStacks", stack(status))
    await fail(clock, apply(made, **aws.here, clock=clock), kind)
    assert aws.changes == []


@pytest.mark.parametrize("made", [PLAN, EMPTY], ids=["changes", "empty"])
async def test_a_deployment_that_only_lacks_protection_says_so(
    aws: CloudFormation, clock: ManualClock, made: Plan
) -> None:
    aws.answer("DescribeStackEvents", BEFORE, events(event(1, "UPDATE_IN_PROGRESS"), event(2, "UPDATE_COMPLETE")))
    aws.answer("UpdateTerminationProtection", Refusal("AccessDenied", "no", 403))
    error = await fail(clock, apply(replace(made, protects=True), **aws.here, clock=clock), AccessError)
    assert error.operation == "UpdateTerminationProtection"
    assert "is as its template says (UPDATE_COMPLETE), only without termination protection" in str(error)


async def test_an_answer_that_was_lost_does_not_make_it_a_second_deployment(
    aws: CloudFormation, clock: ManualClock
) -> None:
    # Its events come late.
    aws.answer("DescribeStackEvents", *[BEFORE] * 9, events(event(1, "UPDATE_COMPLETE")))
    aws.answer("ExecuteChangeSet", LOST, Refusal("TokenAlreadyExistsException"))
    assert (await through(clock, apply(PLAN, **aws.here, clock=clock))).status == "UPDATE_COMPLETE"
    first, second = aws.asked("ExecuteChangeSet")
    assert first["ClientRequestToken"] == second["ClientRequestToken"]


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


@pytest.mark.parametrize("passing", ["CREATE_FAILED", "ROLLBACK_COMPLETE"])
async def test_a_creation_that_failed_and_was_deleted_is_one_failed_operation(
    aws: CloudFormation, clock: ManualClock, passing: str
) -> None:
    history = [
        event(1, "REVIEW_IN_PROGRESS", token="a-plan"),
        event(2, "CREATE_IN_PROGRESS"),
        event(3, "CREATE_FAILED", "Queue", "bad redrive"),
        event(4, passing),
        event(5, "DELETE_IN_PROGRESS"),
        event(6, "DELETE_COMPLETE"),
    ]
    creation = [{**one, "ClientRequestToken": "the-creation"} for one in history[1:]]
    aws.answer("DescribeStackEvents", events(history[0], *creation))
    aws.answer("DescribeStacks", stack("DELETE_COMPLETE"))
    told: list[StackEvent] = []
    error = await fail(clock, follow(STACK_ID, **aws.here, on_event=told.append, clock=clock), DeploymentError)
    assert list(error.failures) == ["Queue (AWS::SQS::Queue): bad redrive"]
    assert [one.id for one in told] == [f"event-{number}" for number in range(2, 7)]
    # Deleted by hand it is another operation, and ended well.
    for one in creation[3:]:
        one["ClientRequestToken"] = "by-hand"
    done = await through(clock, follow(STACK_ID, **aws.here, clock=clock))
    assert done.status == "DELETE_COMPLETE"


@pytest.mark.parametrize("status", ["UPDATE_COMPLETE", "UPDATE_ROLLBACK_FAILED"])
async def test_a_stack_whose_events_are_forgotten_is_told_as_it_is(aws: CloudFormation, status: str) -> None:
    aws.answer("DescribeStackEvents", events())
    aws.answer("DescribeStacks", stack(status))
    if status == "UPDATE_COMPLETE":
        assert (await follow(STACK, **aws.here)).status == status
    else:
        with pytest.raises(DeploymentError, match="continue-update-rollback"):
            await follow(STACK, **aws.here)


async def test_a_stack_that_has_only_change_sets_has_nothing_to_follow(aws: CloudFormation) -> None:
    aws.answer("DescribeStacks", stack("REVIEW_IN_PROGRESS"))
    with pytest.raises(StackStateError, match="no operation has begun"):
        await follow(STACK, **aws.here)
