"""What deployments make of CloudFormation's answers: of those that the emulator does not give."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from oms_events._aio import cancel_and_wait
from oms_events._aws.config import AwsConfig
from oms_events.errors import (
    AccessError,
    ConfigurationError,
    DataLossRefusedError,
    DeploymentError,
    PlanOutdatedError,
    ProvisioningError,
    StackBusyError,
    StackNotFoundError,
    StackStateError,
)
from oms_events.provisioning.deployment.changes import Action, Plan, PropertyChange, discard, plan
from oms_events.provisioning.deployment.deploy import apply, deploy
from oms_events.provisioning.deployment.destroy import destroy, look
from oms_events.provisioning.deployment.drift import Difference, DriftStatus, drift
from oms_events.provisioning.deployment.progress import StackEvent, follow
from oms_events.provisioning.deployment.stacks import StackState, outputs
from oms_events.provisioning.template import Template
from oms_events.testing.clock import ManualClock
from tests.provisioning.cloudformation import (
    CHANGE_SET_ID,
    EXPIRED,
    MISSING,
    NO_CHANGES,
    STACK,
    STACK_ID,
    THROTTLED,
    Answer,
    CloudFormation,
    Refusal,
    change_set,
    event,
    events,
    serving,
    stack,
)

T = TypeVar("T")

TEMPLATE = Template(STACK, {"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}}, tags={"team": "oms"})
QUEUE = {"Action": "Add", "LogicalResourceId": "Queue", "ResourceType": "AWS::SQS::Queue"}
TABLE = {"Action": "Remove", "LogicalResourceId": "Table", "ResourceType": "AWS::DynamoDB::Table"}
PLAN = Plan(stack_name=STACK, stack_id=STACK_ID, change_set_id=CHANGE_SET_ID)
BEFORE = events(event(0, "CREATE_COMPLETE"))


@pytest.fixture
def aws() -> Iterator[CloudFormation]:
    """With answers for what every plan of a stack that exists asks, and every end of it."""
    with serving() as scripted:
        scripted.answer("DescribeStacks", stack("UPDATE_COMPLETE"))
        scripted.answer("CreateChangeSet", {"Id": CHANGE_SET_ID, "StackId": STACK_ID})
        scripted.answer("DescribeChangeSet", change_set(changes=[QUEUE]))
        for operation in ("DeleteChangeSet", "ExecuteChangeSet", "DeleteStack", "UpdateTerminationProtection"):
            scripted.answer(operation, {})
        scripted.answer("ListChangeSets", {"Summaries": []})
        yield scripted


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def through(clock: ManualClock, work: Awaitable[T]) -> T:
    """Moves the clock whenever the work sleeps, until it has ended."""
    task = asyncio.ensure_future(work)
    try:
        async with asyncio.timeout(10):
            while not task.done():
                sleeping = asyncio.ensure_future(clock.someone_sleeps())
                await asyncio.wait({task, sleeping}, return_when=asyncio.FIRST_COMPLETED)
                await cancel_and_wait(sleeping)
                if clock.sleeping:
                    await clock.advance(clock.sleeping[0] - clock.monotonic() + 0.001)
        return await task
    finally:
        await cancel_and_wait(task)


async def fail(clock: ManualClock, work: Awaitable[Any], kind: type[T]) -> T:
    """The error of exactly this kind with which the work ends."""
    with pytest.raises(ProvisioningError) as caught:
        await through(clock, work)
    assert type(caught.value) is kind
    return caught.value


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


# ---------------------------------------------------------------------- access


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
