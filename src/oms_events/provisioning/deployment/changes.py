"""What a deployment would do: a change set, read, and kept or thrown away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final
from uuid import uuid4

from oms_events._aio import Clock, SystemClock
from oms_events._aws.config import AwsConfig
from oms_events._aws.control import ControlClient, open_control
from oms_events.errors import ConfigurationError, DeploymentError, ProvisioningError, StackBusyError
from oms_events.provisioning.deployment.progress import taken_remedy
from oms_events.provisioning.deployment.stacks import (
    REVIEWED,
    SERVICE,
    Pause,
    StackState,
    find_stack,
    is_missing,
    refuse,
    remove_reviewed,
    state_error,
)
from oms_events.provisioning.template import Template

BODY_LIMIT: Final = 51_200
"""Bytes of a template in the call itself; CloudFormation user guide, "Understand CloudFormation quotas"."""
URL_LIMIT: Final = 1_048_576
"""Bytes of a template in a bucket; the same page."""

HOLDS_DATA: Final[Mapping[str, str]] = {
    "AWS::DynamoDB::GlobalTable": "table",
    "AWS::DynamoDB::Table": "table",
    "AWS::Events::Archive": "archive",
    "AWS::KMS::Key": "key",
    "AWS::Logs::LogGroup": "log group",
    "AWS::S3::Bucket": "bucket",
    "AWS::SQS::Queue": "queue",
}
"""Type to what people call it: resources that cannot be made again as they were."""

_KEPT: Final = frozenset(("Retain", "Snapshot", "ReplaceAndRetain", "ReplaceAndSnapshot"))
_NO_CHANGES: Final = ("didn't contain changes", "No updates are to be performed")


class Action(StrEnum):
    """What becomes of a resource."""

    ADD = "add"
    CHANGE = "change"
    REPLACE = "replace"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True, kw_only=True)
class PropertyChange:
    """What changes of a resource; the values only where CloudFormation tells them. `replaces` says that it (may)
    need a new resource."""

    path: str
    before: str | None = None
    after: str | None = None
    replaces: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes of one resource.

    `conditional` says of a replacement that CloudFormation will know only while it deploys whether it is needed.
    `kept` says that the old resource stays, outside the stack.
    """

    action: Action
    logical_id: str
    type: str
    physical_id: str | None = None
    properties: tuple[PropertyChange, ...] = ()
    conditional: bool = False
    kept: bool = False

    @property
    def loses_data(self) -> bool:
        """Whether the stack is without data afterwards: a table, queue, bucket, archive, log group or key that is
        removed, or replaced by an empty one, even if the old one is kept."""
        if self.type not in HOLDS_DATA:
            return False
        return self.action is Action.REPLACE or (self.action is Action.REMOVE and not self.kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A change set that waits in CloudFormation to be applied or discarded; nothing of it has been done.

    `creates` says that there is no such stack yet. A plan without `changes` that is not empty changes outputs, or
    tags of the stack alone.
    """

    stack_name: str
    stack_id: str
    change_set_id: str | None
    changes: tuple[Change, ...] = ()
    creates: bool = False
    protects: bool = False
    """Whether termination protection is to be switched on after it."""

    @property
    def is_empty(self) -> bool:
        """Whether the stack is as the template says: there is no change set."""
        return self.change_set_id is None

    @property
    def data_loss(self) -> tuple[str, ...]:
        """One line for each table, queue, bucket and so on that would lose what it holds."""
        return tuple(_loss(change) for change in self.changes if change.loses_data)


async def plan(
    template: Template,
    config: AwsConfig,
    *,
    template_bucket: str | None = None,
    clock: Clock | None = None,
    session: Any = None,
) -> Plan:
    """Has CloudFormation work out what a deployment would change, and changes nothing.

    `template_bucket` is a bucket in the same region for a template of more than 51,200 bytes, which is put there
    under its digest, and stays. Raises `StackBusyError` and `StackStateError` for a stack that cannot be deployed
    to, `DeploymentError` when CloudFormation refuses what the template would do, `ConfigurationError` for a
    template that is too large, `AccessError`, and `ProvisioningError` with AWS's words for a bad template.
    Cancelled, it may leave a change set (of a new stack: with a stack that has nothing else), which does nothing.
    """
    async with open_control(config, SERVICE, session=session) as control:
        stack = await find_stack(control, template.stack_name)
        if stack is not None and (problem := state_error(stack.name, stack.status)) is not None:
            raise problem
        source = await _template_source(template, config, template_bucket, session)
        made = await _create(control, template, stack, source)
        status, reason, changes = await _read(control, made, Pause(clock or SystemClock()))
        if status == "CREATE_COMPLETE":
            return replace(made, changes=tuple(map(_change, changes)))
        await _discard(control, made, Pause(clock or SystemClock()))
    if any(text in reason for text in _NO_CHANGES):
        return replace(made, change_set_id=None)
    raise DeploymentError(
        f"CloudFormation refused the plan for stack {made.stack_name!r}: {reason}{taken_remedy(reason)}; "
        "nothing was changed",
        status=status,
        failures=(reason,),
        rolled_back=True,
    )


async def discard(plan: Plan, config: AwsConfig, *, clock: Clock | None = None, session: Any = None) -> None:
    """Removes a plan's change set, and the stack that was made for it if it has no other. An empty one has none.

    Raises `AccessError` and `ProvisioningError`.
    """
    if plan.is_empty:
        return
    async with open_control(config, SERVICE, session=session) as control:
        await _discard(control, plan, Pause(clock or SystemClock()))


async def _template_source(
    template: Template, config: AwsConfig, bucket: str | None, session: Any
) -> Mapping[str, str]:
    body = template.body.encode()
    if len(body) <= BODY_LIMIT:
        return {"TemplateBody": template.body}
    problem = f"the template has {len(body):,} bytes"
    if len(body) > URL_LIMIT:
        raise ConfigurationError(
            f"stack {template.stack_name!r}",
            [f"{problem}, and CloudFormation takes at most {URL_LIMIT:,}: split it into several stacks"],
        )
    if bucket is None:
        raise ConfigurationError(
            f"stack {template.stack_name!r}",
            [f"{problem}; above {BODY_LIMIT:,} give template_bucket (--template-bucket), a bucket of this region"],
        )
    key = f"{template.stack_name}/{template.digest}.json"
    async with open_control(config, "s3", session=session) as s3:
        await s3.call("PutObject", Bucket=bucket, Key=key, Body=body, ContentType="application/json")
        return {"TemplateURL": f"{s3.endpoint_url}/{bucket}/{key}"}


async def _create(
    control: ControlClient, template: Template, stack: StackState | None, source: Mapping[str, str]
) -> Plan:
    creates = stack is None or stack.status == REVIEWED
    name = f"oms-events-{template.digest}-{uuid4().hex}"
    # A stack whose creation fails is of no use, and would be in the way of the next try.
    on_failure = {"OnStackFailure": "DELETE"} if creates else {}
    try:
        answer = await control.call(
            "CreateChangeSet",
            StackName=template.stack_name,
            ChangeSetName=name,
            ChangeSetType="CREATE" if creates else "UPDATE",
            ClientToken=name,
            Capabilities=list(template.capabilities),
            Tags=[{"Key": key, "Value": value} for key, value in sorted(template.tags.items())],
            **source,
            **on_failure,
        )
    except ProvisioningError as error:
        if error.code == "AlreadyExistsException":
            raise StackBusyError(
                f"stack {template.stack_name!r} was made by somebody else at this moment: plan again",
                code=error.code,
            ) from error
        refuse(error, template.stack_name)
    return Plan(
        stack_name=template.stack_name,
        stack_id=answer["StackId"],
        change_set_id=answer["Id"],
        creates=creates,
        protects=template.termination_protection and not (stack is not None and stack.termination_protection),
    )


async def _read(control: ControlClient, made: Plan, pause: Pause) -> tuple[str, str, Sequence[Any]]:
    """Status, its reason, and all changes, once CloudFormation has worked them out."""
    while True:
        changes: list[Any] = []
        pages = control.pages("DescribeChangeSet", ChangeSetName=made.change_set_id, IncludePropertyValues=True)
        async with aclosing(pages):
            async for page in pages:
                status = page["Status"]
                if status in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
                    break
                changes += page.get("Changes", ())
            else:
                return status, page.get("StatusReason", ""), changes
        await pause.wait()


async def _discard(control: ControlClient, plan: Plan, pause: Pause) -> None:
    try:
        await control.call("DeleteChangeSet", ChangeSetName=plan.change_set_id)
        if not plan.creates or await _other_change_sets(control, plan):
            return
        stack = await find_stack(control, plan.stack_id)
        if stack is not None and stack.status == REVIEWED:
            await remove_reviewed(control, stack, pause)
    except ProvisioningError as error:
        if not is_missing(error):
            raise


async def _other_change_sets(control: ControlClient, plan: Plan) -> bool:
    pages = control.pages("ListChangeSets", StackName=plan.stack_id)
    async with aclosing(pages):
        async for page in pages:
            if any(item["ChangeSetId"] != plan.change_set_id for item in page["Summaries"]):
                return True
    return False


def _change(item: Any) -> Change:
    found = item["ResourceChange"]
    replacement = found.get("Replacement", "False")
    if found["Action"] in ("Add", "Import"):
        action = Action.ADD
    elif found["Action"] == "Remove":
        action = Action.REMOVE
    else:
        action = Action.CHANGE if replacement == "False" else Action.REPLACE
    properties: dict[str, PropertyChange] = {}
    for detail in found.get("Details", ()):
        one = _property(detail["Target"])
        # The same one may stand twice: for itself, and for another resource that it refers to.
        properties[one.path] = replace(
            one, replaces=one.replaces or (one.path in properties and properties[one.path].replaces)
        )
    return Change(
        action=action,
        logical_id=found["LogicalResourceId"],
        type=found["ResourceType"],
        physical_id=found.get("PhysicalResourceId") or None,
        properties=tuple(properties.values()),
        conditional=replacement == "Conditional",
        kept=found.get("PolicyAction") in _KEPT,
    )


def _property(target: Any) -> PropertyChange:
    path = target.get("Path", "").removeprefix("/Properties").strip("/").replace("/", ".")
    return PropertyChange(
        path=path or target.get("Name") or target.get("Attribute", ""),
        before=target.get("BeforeValue"),
        after=target.get("AfterValue"),
        replaces=target.get("RequiresRecreation", "Never") != "Never",
    )


def _loss(change: Change) -> str:
    what = f"{HOLDS_DATA[change.type]} {change.physical_id or change.logical_id} ({change.logical_id})"
    if change.action is Action.REMOVE:
        return f"{what} would be deleted"
    verb = "may have to be replaced" if change.conditional else "would be replaced"
    fate = "; the old one is kept, outside the stack" if change.kept else ", and the old one deleted"
    return f"{what} {verb} by an empty one{fate}"
