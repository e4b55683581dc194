"""What plans make of CloudFormation's answers: of those that the emulator does not give."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from oms_events.errors import (
    AccessError,
    ConfigurationError,
    DataLossRefusedError,
    DeploymentError,
    ProvisioningError,
    StackBusyError,
    StackStateError,
)
from oms_events.provisioning import specs
from oms_events.provisioning.deployment.changes import Action, PropertyChange, discard, plan
from oms_events.provisioning.deployment.deploy import apply, deploy
from oms_events.provisioning.deployment.holdings import HOLDS_DATA, HOLDS_NOTHING
from oms_events.provisioning.presets.oms import OmsPreset
from oms_events.provisioning.template import Template
from oms_events.testing.clock import ManualClock
from tests.provisioning.cloudformation import (
    BEFORE,
    CHANGE_SET_ID,
    LOST,
    MISSING,
    NO_CHANGES,
    QUEUE,
    STACK,
    STACK_ID,
    TABLE,
    TEMPLATE,
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
    names = {(found["StackName"], found["ChangeSetName"]) for found in aws.asked("DescribeChangeSet")}
    assert names == {(STACK, asked["ChangeSetName"])}
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
    aws.answer("ListChangeSets", {"Summaries": [{"ChangeSetId": CHANGE_SET_ID, "StackId": STACK_ID}]})
    aws.answer("DescribeStacks", stack("REVIEW_IN_PROGRESS"), stack("DELETE_COMPLETE"))
    aws.calls.clear()
    await through(clock, discard(made, **aws.here, clock=clock))
    # Nothing comes between the last look and the deletion, which may be repeated.
    names = [name for name, _ in aws.calls]
    assert names == ["DeleteChangeSet", "DescribeStacks", "ListChangeSets", "DeleteStack", "DescribeStacks"]
    assert aws.asked("DeleteStack") == [{"StackName": STACK_ID, "Version": "2010-05-15"}]


async def test_a_change_set_whose_answer_was_lost_is_used(aws: CloudFormation, clock: ManualClock) -> None:
    aws.answer("CreateChangeSet", LOST, Refusal("AlreadyExistsException", "ChangeSet oms-events-x already exists"))
    made = await through(clock, plan(TEMPLATE, **aws.here, clock=clock))
    assert (made.change_set_id, made.stack_id, len(made.changes)) == (CHANGE_SET_ID, STACK_ID, 1)
    assert aws.changes == ["CreateChangeSet", "CreateChangeSet"]


async def test_a_change_set_that_was_never_made_is_told_as_what_refused_it(
    aws: CloudFormation, clock: ManualClock
) -> None:
    aws.answer("CreateChangeSet", Refusal("Unfit", "", 501))
    aws.answer("DescribeChangeSet", Refusal("ChangeSetNotFound", "ChangeSet [x] does not exist", 404))
    error = await fail(clock, plan(TEMPLATE, **aws.here, clock=clock), ProvisioningError)
    assert (error.code, aws.changes) == ("Unfit", ["CreateChangeSet"])


async def test_a_plan_that_may_not_be_read_leaves_nothing(aws: CloudFormation, clock: ManualClock) -> None:
    aws.answer("DescribeStacks", MISSING, stack("REVIEW_IN_PROGRESS"), stack("DELETE_COMPLETE"))
    aws.answer("DescribeChangeSet", Refusal("AccessDenied", "no", 403))
    error = await fail(clock, plan(TEMPLATE, **aws.here, clock=clock), AccessError)
    assert error.operation == "DescribeChangeSet"
    assert aws.changes == ["CreateChangeSet", "DeleteChangeSet", "DeleteStack"]
    assert aws.asked("DeleteChangeSet")[0]["ChangeSetName"] == aws.asked("CreateChangeSet")[0]["ChangeSetName"]


async def test_what_cannot_be_tidied_up_does_not_hide_why_the_plan_failed(
    aws: CloudFormation, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    aws.answer("DescribeChangeSet", Refusal("AccessDenied", "no", 403))
    aws.answer("DeleteChangeSet", Refusal("AccessDenied", "not that either", 403))
    error = await fail(clock, plan(TEMPLATE, **aws.here, clock=clock), AccessError)
    assert error.operation == "DescribeChangeSet"
    assert "discard-plan: DeleteChangeSet: AWS answered AccessDenied: not that either" in caplog.text


async def test_a_plan_that_is_interrupted_leaves_nothing(aws: CloudFormation, clock: ManualClock) -> None:
    pending = Refusal("InvalidChangeSetStatus", "cannot be deleted in status CREATE_IN_PROGRESS")
    aws.answer("DescribeChangeSet", change_set("CREATE_IN_PROGRESS"))
    aws.answer("DeleteChangeSet", pending, {})
    planning = asyncio.ensure_future(plan(TEMPLATE, **aws.here, clock=clock))
    await clock.someone_sleeps()
    planning.cancel()
    # Once more, while it tidies up.
    await clock.someone_sleeps()
    planning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await through(clock, planning)
    assert aws.changes == ["CreateChangeSet", "DeleteChangeSet", "DeleteChangeSet"]


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
        ("IMPORT_ROLLBACK_FAILED", StackStateError, "destroy it, or ask AWS"),
        ("SOMETHING_NEW", StackStateError, "infra follow"),
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


async def test_a_template_with_a_loop_is_planned(aws: CloudFormation, clock: ManualClock) -> None:
    role = {"Type": "AWS::IAM::Role"}
    loop = ["Name", ["a", "b"], {"Topic${Name}": {"Type": "AWS::SNS::Topic"}}]
    template = Template(STACK, {"Resources": {"Fn::ForEach::Topics": loop, "Role": role}})
    await through(clock, plan(template, **aws.here, clock=clock))
    assert aws.asked("CreateChangeSet")[0]["Capabilities.member.1"] == "CAPABILITY_NAMED_IAM"


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
        ({"Action": "Dynamic"}, Action.REPLACE, True, True),
        ({"Action": "SomethingNew", "Replacement": "False"}, Action.REPLACE, True, True),
        ({"Action": "Remove", "ResourceType": "AWS::RDS::DBInstance"}, Action.REMOVE, False, True),
        ({"Action": "Remove", "ResourceType": "AWS::RDS::DBInstance", "PolicyAction": "Snapshot"},
         Action.REMOVE, False, False),
        ({"Action": "Modify", "Replacement": "False", "ResourceType": "AWS::RDS::DBInstance"},
         Action.CHANGE, False, False),
        ({"Action": "Remove", "ResourceType": "AWS::CloudFormation::Stack"}, Action.REMOVE, False, True),
        ({"Action": "Modify", "Replacement": "False", "ResourceType": "AWS::CloudFormation::Stack"},
         Action.CHANGE, False, True),
        ({"Action": "Add", "ResourceType": "AWS::CloudFormation::Stack"}, Action.ADD, False, False),
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
    kinds = {"AWS::DynamoDB::Table": "table", "AWS::CloudFormation::Stack": "nested stack"}
    assert all(
        f"{kinds.get(found.type, found.type)} orders (Table) would" in line or conditional
        for line in made.data_loss
    )


def test_of_every_type_that_specs_render_it_is_known_whether_it_holds_data() -> None:
    sources = Path(specs.__file__).parent.glob("*.py")
    rendered = {kind for file in sources for kind in re.findall(r'"(AWS::\w+::\w+)"', file.read_text())}
    assert len(rendered) > 20
    assert rendered - HOLDS_DATA.keys() - HOLDS_NOTHING == set()
    assert HOLDS_NOTHING.isdisjoint(HOLDS_DATA)


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


@pytest.mark.parametrize("given", [OmsPreset().stack(), OmsPreset()])
async def test_what_is_no_template_and_no_plan_is_told_with_what_to_give(aws: CloudFormation, given: Any) -> None:
    for call, wanted in ((plan, "a Template"), (deploy, "a Template"), (apply, "a Plan")):
        text = f"^{call.__name__} takes {wanted}, not {type(given).__name__}: give it "
        with pytest.raises(TypeError, match=text):
            await call(given, **aws.here)
