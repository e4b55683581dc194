"""What deployments make of CloudFormation's answers: of those that the emulator does not give."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from oms_events.errors import DeploymentError, ProvisioningError
from oms_events.provisioning.deployment.changes import plan
from oms_events.provisioning.deployment.deploy import apply, deploy
from oms_events.provisioning.deployment.progress import StackEvent
from oms_events.provisioning.deployment.stacks import StackState
from oms_events.provisioning.template import Template
from oms_events.testing.clock import ManualClock
from tests.provisioning.cloudformation import (
    BEFORE,
    CHANGE_SET_ID,
    PLAN,
    STACK,
    STACK_ID,
    TEMPLATE,
    Answer,
    CloudFormation,
    event,
    events,
    fail,
    stack,
    through,
)


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


@pytest.mark.parametrize(
    ("last", "rolled_back", "ended", "remedy"),
    [
        ("DELETE_COMPLETE", True, "could not be created, and was taken back", "all is as it was before"),
        ("ROLLBACK_COMPLETE", False, "ended in ROLLBACK_COMPLETE", "infra destroy`, then deploy"),
    ],
)
async def test_a_creation_that_fails_names_the_first_resource_and_why(
    aws: CloudFormation, clock: ManualClock, last: str, rolled_back: bool, ended: str, remedy: str
) -> None:
    reviewed = event(0, "REVIEW_IN_PROGRESS")
    aws.answer("DescribeStackEvents", events(reviewed), events(reviewed, *FAILED_CREATE[:-1], event(6, last)))
    aws.answer("DescribeStacks", stack("REVIEW_IN_PROGRESS"), stack(last))
    error = await fail(clock, apply(PLAN, **aws.here, clock=clock), DeploymentError)
    assert (error.status, error.rolled_back) == (last, rolled_back)
    assert remedy in str(error)
    assert list(error.failures) == ["Queue (AWS::SQS::Queue): Invalid value for the parameter RedrivePolicy."]
    assert f"{ended}: Queue (AWS::SQS::Queue): Invalid value" in str(error)
    assert "UpdateTerminationProtection" not in aws.changes


ROLLED_BACK, DELETING = stack("ROLLBACK_COMPLETE"), stack("DELETE_IN_PROGRESS")


@pytest.mark.parametrize(
    ("states", "end"),
    [
        ([ROLLED_BACK, DELETING, DELETING, DELETING, stack("DELETE_COMPLETE")], "DELETE_COMPLETE"),
        ([ROLLED_BACK, DELETING, ROLLED_BACK], "ROLLBACK_COMPLETE"),
        # Somebody else's next try.
        ([stack("CREATE_FAILED"), stack("UPDATE_COMPLETE")], "ROLLBACK_COMPLETE"),
    ],
    ids=["deleted", "stays", "changed"],
)
async def test_a_failed_creation_that_passes_through_its_roll_back_is_waited_for(
    aws: CloudFormation, clock: ManualClock, states: list[Answer], end: str
) -> None:
    so_far = events(event(1, "CREATE_IN_PROGRESS"), FAILED_CREATE[1], event(3, "ROLLBACK_COMPLETE"))
    aws.answer("DescribeStackEvents", events(event(0, "REVIEW_IN_PROGRESS")), so_far)
    aws.answer("DescribeStacks", stack("REVIEW_IN_PROGRESS"), *states)
    error = await fail(clock, apply(PLAN, **aws.here, clock=clock), DeploymentError)
    assert (error.status, error.rolled_back) == (end, end == "DELETE_COMPLETE")


@pytest.mark.parametrize(
    ("last", "rolled_back", "remedy"),
    [
        ("UPDATE_ROLLBACK_COMPLETE", True, "all is as it was before"),
        ("UPDATE_ROLLBACK_FAILED", False, "continue-update-rollback"),
        ("UPDATE_FAILED", False, "rollback-stack"),
        ("ROLLBACK_FAILED", False, "infra destroy"),
        ("IMPORT_ROLLBACK_FAILED", False, "destroy it, or ask AWS"),
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


async def test_only_what_failed_because_of_another_is_left_out(aws: CloudFormation, clock: ManualClock) -> None:
    taken = "Rule order-cancelled-rule already exists on bus orders"
    aws.answer(
        "DescribeStackEvents", BEFORE,
        events(event(1, "UPDATE_IN_PROGRESS"), event(2, "CREATE_FAILED", "Rule", taken),
               event(3, "CREATE_FAILED", "Other", CANCELLED), event(4, "UPDATE_FAILED", "Third",
               "Resource update cancelled"), event(5, "UPDATE_ROLLBACK_COMPLETE")),
    )  # fmt: skip
    error = await fail(clock, apply(PLAN, **aws.here, clock=clock), DeploymentError)
    assert list(error.failures) == [f"Rule (AWS::SQS::Queue): {taken}"]
    assert "give the spec another name" in str(error)


@pytest.mark.parametrize("status", ["DELETE_SKIPPED", "DELETE_FAILED"])
@pytest.mark.parametrize("last", ["DELETE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "ROLLBACK_COMPLETE"])
async def test_what_a_failed_deployment_leaves_behind_is_named(
    aws: CloudFormation, clock: ManualClock, status: str, last: str
) -> None:
    failed = (event(1, "CREATE_IN_PROGRESS"), event(2, "CREATE_FAILED", "Queue", "no"))
    tried = (event(3, "DELETE_FAILED", "Other"), event(4, "DELETE_COMPLETE", "Other"))
    aws.answer("DescribeStackEvents", BEFORE, events(*failed, *tried, event(5, status, "Bucket"), event(6, last)))
    error = await fail(clock, apply(PLAN, **aws.here, clock=clock), DeploymentError)
    assert error.rolled_back is False
    assert f"left behind, outside the stack: Bucket (AWS::SQS::Queue) bucket: {status}; delete that" in str(error)
    assert "as it was before" not in str(error)


OURS_FAILED = (
    event(1, "UPDATE_IN_PROGRESS"),
    event(2, "UPDATE_FAILED", "Queue", "no such key"),
    event(3, "UPDATE_ROLLBACK_COMPLETE"),
)
OURS_DONE = (event(1, "UPDATE_IN_PROGRESS"), event(3, "UPDATE_COMPLETE"))


def without_token(made: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in made.items() if name != "ClientRequestToken"}


@pytest.mark.parametrize("token", ["of-others", ""], ids=["token", "no token"])
async def test_what_others_do_before_the_next_look_does_not_count(
    aws: CloudFormation, clock: ManualClock, token: str
) -> None:
    def theirs(number: int, status: str, *more: str) -> Mapping[str, str]:
        made = event(number, status, *more, token=token)
        return made if token else without_token(made)

    began = theirs(4, "UPDATE_IN_PROGRESS")
    bad = (began, theirs(5, "UPDATE_FAILED", "Theirs", "bad"), theirs(6, "UPDATE_ROLLBACK_COMPLETE"))
    good = (began, theirs(5, "UPDATE_COMPLETE", "Theirs"), theirs(6, "UPDATE_COMPLETE"))
    told: list[StackEvent] = []
    aws.answer("DescribeStackEvents", BEFORE, events(*OURS_FAILED, *good))
    error = await fail(clock, apply(PLAN, **aws.here, clock=clock, on_event=told.append), DeploymentError)
    assert (error.status, list(error.failures)) == (
        "UPDATE_ROLLBACK_COMPLETE", ["Queue (AWS::SQS::Queue): no such key"]
    )  # fmt: skip
    assert [one.id for one in told] == ["event-1", "event-2", "event-3"]
    aws.answer("DescribeStackEvents", BEFORE, events(*OURS_DONE, *bad))
    aws.answer("DescribeStacks", stack("UPDATE_COMPLETE"), stack("UPDATE_ROLLBACK_COMPLETE"))
    assert (await through(clock, apply(PLAN, **aws.here, clock=clock))).status == "UPDATE_COMPLETE"
    aws.answer("DescribeStackEvents", BEFORE, events(*OURS_DONE, began))
    aws.answer("DescribeStacks", stack("UPDATE_COMPLETE"), stack("UPDATE_IN_PROGRESS"))
    assert (await through(clock, apply(PLAN, **aws.here, clock=clock))).status == "UPDATE_COMPLETE"


async def test_what_others_did_just_before_does_not_count(aws: CloudFormation, clock: ManualClock) -> None:
    theirs = [without_token(event(1, "UPDATE_IN_PROGRESS")), without_token(event(2, "UPDATE_COMPLETE"))]
    ours = (event(3, "UPDATE_IN_PROGRESS"), event(4, "UPDATE_FAILED", "Queue", "no"))
    aws.answer("DescribeStackEvents", BEFORE, events(*theirs, *ours, event(5, "UPDATE_ROLLBACK_COMPLETE")))
    error = await fail(clock, apply(PLAN, **aws.here, clock=clock), DeploymentError)
    assert error.status == "UPDATE_ROLLBACK_COMPLETE"


async def test_without_tokens_an_operation_ends_with_the_first_end(
    aws: CloudFormation, clock: ManualClock
) -> None:
    later = (event(4, "UPDATE_IN_PROGRESS"), event(5, "UPDATE_COMPLETE"))
    aws.answer("DescribeStackEvents", BEFORE, events(*map(without_token, (*OURS_FAILED, *later))))
    told: list[StackEvent] = []
    error = await fail(clock, apply(PLAN, **aws.here, clock=clock, on_event=told.append), DeploymentError)
    assert (error.status, told[-1].id) == ("UPDATE_ROLLBACK_COMPLETE", "event-3")


async def test_an_operation_that_never_shows_is_not_waited_for_without_end(
    aws: CloudFormation, clock: ManualClock
) -> None:
    aws.answer("DescribeStackEvents", BEFORE, events(event(1, "UPDATE_COMPLETE", token="of-others")))
    error = await fail(clock, apply(PLAN, **aws.here, clock=clock), ProvisioningError)
    assert "shows no event: another operation may be under way" in str(error)
    assert clock.monotonic() > 60


async def test_what_an_update_could_not_delete_is_told_although_it_succeeded(
    aws: CloudFormation, clock: ManualClock
) -> None:
    kept = event(2, "DELETE_FAILED", "Table", "is protected against deletion")
    aws.answer(
        "DescribeStackEvents", BEFORE, events(event(1, "UPDATE_IN_PROGRESS"), kept, event(3, "UPDATE_COMPLETE"))
    )
    state = await through(clock, apply(PLAN, **aws.here, clock=clock))
    assert "left behind, outside the stack: Table" in state.reason
