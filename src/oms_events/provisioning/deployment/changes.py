"""What a deployment would do: a change set, read, and kept or thrown away."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, NoReturn
from uuid import uuid4

from oms_events._aio import Clock, SystemClock
from oms_events._aws.config import AwsConfig
from oms_events._aws.control import ControlClient, open_control
from oms_events.errors import ConfigurationError, DeploymentError, ProvisioningError, StackBusyError
from oms_events.provisioning.deployment.holdings import HOLDS_DATA, HOLDS_NOTHING
from oms_events.provisioning.deployment.progress import taken_remedy
from oms_events.provisioning.deployment.stacks import (
    REVIEWED,
    SERVICE,
    STACK_TYPE,
    Pause,
    StackState,
    carry_out,
    find_stack,
    is_missing,
    is_refusal,
    refuse,
    remove_reviewed,
    state_error,
)
from oms_events.provisioning.template import Template

BODY_LIMIT: Final = 51_200
"""Bytes of a template in the call itself; CloudFormation user guide, "Understand CloudFormation quotas"."""
URL_LIMIT: Final = 1_048_576
"""Bytes of a template in a bucket; the same page."""

_KEPT: Final = frozenset(("Retain", "Snapshot", "ReplaceAndRetain", "ReplaceAndSnapshot"))
_NOT_FOUND: Final = "ChangeSetNotFound"
_TRIES: Final = 10
"""Of removing a change set that is still being worked out, in half a minute."""
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
        """Whether the stack may be without data afterwards: a table, queue, bucket, archive, log group or key that
        is removed, or replaced by an empty one, even if the old one is kept. Any type that no spec renders counts
        as one of them, and a nested stack already when it is changed: no more of it is told."""
        if self.type in HOLDS_NOTHING:
            return False
        if self.action is Action.CHANGE:
            return self.type == STACK_TYPE
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
    When it fails or is cancelled, what was made for it is removed, in at most ten seconds; what could not be
    removed is logged, and does nothing. `TypeError` for what is no `Template`.
    """
    require_template("plan", template)
    async with open_control(config, SERVICE, session=session) as control:
        stack = await find_stack(control, template.stack_name)
        if stack is not None and (problem := state_error(stack.name, stack.status)) is not None:
            raise problem
        source = await _template_source(template, config, template_bucket, session)
        made = _named(template, stack)
        pause = Pause(clock or SystemClock())
        try:
            refusal = await _create(control, template, made, source)
            if refusal is None:
                status, reason, made = await _read(control, made, pause)
        except BaseException:
            await carry_out(_discard(control, made, pause), name="discard-plan")
            raise
        if refusal is not None:
            _refuse(refusal, template.stack_name)
        if status == "CREATE_COMPLETE":
            return made
        await _discard(control, made, pause)
    if any(text in reason for text in _NO_CHANGES):
        return replace(made, change_set_id=None, changes=())
    raise DeploymentError(
        f"CloudFormation refused the plan for stack {made.stack_name!r}: {reason}{taken_remedy(reason)}; "
        "nothing was changed",
        status=status,
        failures=(reason,),
        rolled_back=True,
    )


async def discard(plan: Plan, config: AwsConfig, *, clock: Clock | None = None, session: Any = None) -> None:
    """Removes a plan's change set, and the stack that was made for it if it has no other. An empty one has none.

    CloudFormation cannot be told to remove only a stack without resources: what somebody begins with it in the
    moment after the last look at it goes as well. Raises `AccessError` and `ProvisioningError`.
    """
    if plan.is_empty:
        return
    async with open_control(config, SERVICE, session=session) as control:
        await _discard(control, plan, Pause(clock or SystemClock()))


def require_template(call: str, given: object) -> None:
    """Raises `TypeError` for what is no template: a spec or a preset looks much like one."""
    if not isinstance(given, Template):
        raise TypeError(
            f"{call} takes a Template, not {type(given).__name__}: give it synthesize(stack), "
            "for a preset synthesize(preset.stack())"
        )


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


def _named(template: Template, stack: StackState | None) -> Plan:
    """The plan before CloudFormation knows it: its change set has a name that nobody else uses."""
    return Plan(
        stack_name=template.stack_name,
        stack_id=template.stack_name if stack is None else stack.id,
        change_set_id=f"oms-events-{template.digest}-{uuid4().hex}",
        creates=stack is None or stack.status == REVIEWED,
        protects=template.termination_protection and not (stack is not None and stack.termination_protection),
    )


async def _create(
    control: ControlClient, template: Template, made: Plan, source: Mapping[str, str]
) -> ProvisioningError | None:
    """Has the change set made. Returns why it was refused; None when it was not."""
    # A stack whose creation fails is of no use, and would be in the way of the next try.
    on_failure = {"OnStackFailure": "DELETE"} if made.creates else {}
    try:
        await control.call(
            "CreateChangeSet",
            StackName=template.stack_name,
            ChangeSetName=made.change_set_id,
            ChangeSetType="CREATE" if made.creates else "UPDATE",
            ClientToken=made.change_set_id,
            Capabilities=list(template.capabilities),
            Tags=[{"Key": key, "Value": value} for key, value in sorted(template.tags.items())],
            **source,
            **on_failure,
        )
    except ProvisioningError as error:
        # An earlier try may have made it, and its answer was lost.
        made_already = not is_refusal(error, at_once=True) and await _exists(control, made)
        return None if made_already else error
    return None


async def _exists(control: ControlClient, made: Plan) -> bool:
    try:
        await control.call("DescribeChangeSet", StackName=made.stack_name, ChangeSetName=made.change_set_id)
    except ProvisioningError as error:
        if error.code == _NOT_FOUND or is_missing(error):
            return False
        raise
    return True


def _refuse(refusal: ProvisioningError, stack: str) -> NoReturn:
    if refusal.code == "AlreadyExistsException":
        raise StackBusyError(
            f"stack {stack!r} was made by somebody else at this moment: plan again", code=refusal.code
        ) from refusal
    refuse(refusal, stack)


async def _read(control: ControlClient, named: Plan, pause: Pause) -> tuple[str, str, Plan]:
    """Status, its reason, and the plan with all changes, once CloudFormation has worked them out."""
    asked = {"StackName": named.stack_name, "ChangeSetName": named.change_set_id, "IncludePropertyValues": True}
    while True:
        changes: list[Any] = []
        async with aclosing(control.pages("DescribeChangeSet", **asked)) as pages:
            async for page in pages:
                if page["Status"] in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
                    break
                changes += page.get("Changes", ())
            else:
                made = replace(
                    named,
                    stack_id=page["StackId"],
                    change_set_id=page["ChangeSetId"],
                    changes=tuple(map(_change, changes)),
                )
                return page["Status"], page.get("StatusReason", ""), made
        await pause.wait()


async def _discard(control: ControlClient, plan: Plan, pause: Pause) -> None:
    try:
        await _delete(control, plan, pause)
        if not plan.creates:
            return
        stack = await find_stack(control, plan.stack_id)
        # The change sets last of all: what is begun in between has one.
        if stack is not None and stack.status == REVIEWED and not await _other_change_sets(control, plan):
            await remove_reviewed(control, stack, pause)
    except ProvisioningError as error:
        if not is_missing(error):
            raise


async def _delete(control: ControlClient, plan: Plan, pause: Pause) -> None:
    for left in reversed(range(_TRIES)):
        try:
            await control.call("DeleteChangeSet", StackName=plan.stack_name, ChangeSetName=plan.change_set_id)
        except ProvisioningError as error:
            if error.code == _NOT_FOUND:
                return
            # It cannot be deleted while it is worked out.
            if error.code != "InvalidChangeSetStatus" or not left:
                raise
        else:
            return
        await pause.wait()


async def _other_change_sets(control: ControlClient, plan: Plan) -> bool:
    pages = control.pages("ListChangeSets", StackName=plan.stack_id)
    async with aclosing(pages):
        async for page in pages:
            for item in page["Summaries"]:
                if plan.change_set_id not in (item["ChangeSetId"], item.get("ChangeSetName")):
                    return True
    return False


def _change(item: Any) -> Change:
    found = item["ResourceChange"]
    action, conditional = _action(found)
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
        conditional=conditional,
        kept=found.get("PolicyAction") in _KEPT,
    )


def _action(found: Any) -> tuple[Action, bool]:
    """What becomes of the resource, and whether CloudFormation will know it only while it deploys."""
    said, replacement = found["Action"], found.get("Replacement", "False")
    if said in ("Add", "Import"):
        return Action.ADD, False
    if said == "Remove":
        return Action.REMOVE, False
    if said == "Modify" and replacement in ("False", "True"):
        return (Action.CHANGE if replacement == "False" else Action.REPLACE), False
    # "Dynamic", and what CloudFormation may come to say: the worst of what may be.
    return Action.REPLACE, True


def _property(target: Any) -> PropertyChange:
    path = target.get("Path", "").removeprefix("/Properties").strip("/").replace("/", ".")
    return PropertyChange(
        path=path or target.get("Name") or target.get("Attribute", ""),
        before=target.get("BeforeValue"),
        after=target.get("AfterValue"),
        replaces=target.get("RequiresRecreation", "Never") != "Never",
    )


def _loss(change: Change) -> str:
    kind = HOLDS_DATA.get(change.type, change.type)
    what = f"{kind} {change.physical_id or change.logical_id} ({change.logical_id})"
    if change.action is Action.REMOVE:
        return f"{what} would be deleted"
    if change.action is Action.CHANGE:
        return f"{what} would be changed, and what of it is not known"
    verb = "may have to be replaced" if change.conditional else "would be replaced"
    fate = "; the old one is kept, outside the stack" if change.kept else ", and the old one deleted"
    return f"{what} {verb} by an empty one{fate}"
