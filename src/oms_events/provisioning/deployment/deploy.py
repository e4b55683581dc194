"""Deploys templates: executes exactly the change set that was shown, and says how it ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from oms_events._aio import Clock
from oms_events._aws.config import AwsConfig
from oms_events._aws.control import ControlClient, open_control
from oms_events.errors import (
    DataLossRefusedError,
    PlanOutdatedError,
    ProvisioningError,
    StackBusyError,
)
from oms_events.provisioning.deployment.changes import Plan, discard, plan, require_template
from oms_events.provisioning.deployment.progress import OnEvent, Operation
from oms_events.provisioning.deployment.stacks import (
    DELETED,
    SERVICE,
    StackState,
    existing_stack,
    refuse,
    retold,
    state_error,
)
from oms_events.provisioning.template import Template

_NOT_EXECUTABLE: Final = ("InvalidChangeSetStatus", "ChangeSetNotFound")


async def deploy(
    template: Template,
    config: AwsConfig,
    *,
    template_bucket: str | None = None,
    allow_data_loss: bool = False,
    on_event: OnEvent | None = None,
    clock: Clock | None = None,
    session: Any = None,
) -> StackState:
    """Plans and applies in one go; a stack that is as the template says stays as it is.

    Raises as `plan` and `apply` do. Cancelled once CloudFormation has begun, it goes on there: `follow` it.
    """
    require_template("deploy", template)
    made = await plan(template, config, template_bucket=template_bucket, clock=clock, session=session)
    try:
        return await apply(
            made, config, allow_data_loss=allow_data_loss, on_event=on_event, clock=clock, session=session
        )
    except DataLossRefusedError:
        await discard(made, config, clock=clock, session=session)
        raise


async def apply(
    plan: Plan,
    config: AwsConfig,
    *,
    allow_data_loss: bool = False,
    on_event: OnEvent | None = None,
    clock: Clock | None = None,
    session: Any = None,
) -> StackState:
    """Executes the plan's change set, and nothing else, and waits until it has ended.

    `on_event` gets each event of the stack, in order. A stack that could not be made is deleted again, an update
    that failed is rolled back. Termination protection is switched on at the end where the template wants it, and
    never off. Raises `DataLossRefusedError` when the plan loses data and `allow_data_loss` is not given, and
    `PlanOutdatedError`, `StackBusyError` and `StackStateError`, all with nothing done, also for an empty plan;
    `DeploymentError` with the first failing resource's reason; `AccessError`, also when credentials expire
    meanwhile: the deployment then goes on, as it does when this is cancelled, and `follow` shows it. The message
    tells when only termination protection is missing, and when it is not known whether CloudFormation has begun.
    `TypeError` for what is no `Plan`.
    """
    _require_plan(plan)
    if plan.data_loss and not allow_data_loss:
        raise DataLossRefusedError(
            f"the plan for stack {plan.stack_name!r} loses data: {'; '.join(plan.data_loss)}; nothing was done, "
            "allow_data_loss (--allow-data-loss) allows it",
            reasons=plan.data_loss,
        )
    async with open_control(config, SERVICE, session=session) as control:
        state = await existing_stack(control, plan.stack_id)
        if state.status == DELETED:
            raise PlanOutdatedError(
                f"stack {plan.stack_name!r} has been deleted since it was planned; nothing was done: plan again"
            )
        if (problem := state_error(state.name, state.status)) is not None:
            raise problem
        if not plan.is_empty:
            operation = await Operation.new(control, state, clock=clock, on_event=on_event)
            await _execute(operation, plan)
            state = await operation.result()
        return await _protect(control, state) if plan.protects else state


def _require_plan(given: object) -> None:
    if not isinstance(given, Plan):
        raise TypeError(
            f"apply takes a Plan, not {type(given).__name__}: give it what plan(template, config) returned, "
            "or use deploy(template, config)"
        )


async def _execute(operation: Operation, plan: Plan) -> None:
    # What is new in an update and was to be kept would be in the way of the next try after a roll-back.
    kept = {} if plan.creates else {"RetainExceptOnCreate": True}
    refusal = await operation.begin("ExecuteChangeSet", ChangeSetName=plan.change_set_id, **kept)
    if refusal is None:
        return
    if refusal.code not in _NOT_EXECUTABLE:
        refuse(refusal, plan.stack_name)
    if "EXECUTE_IN_PROGRESS" in str(refusal):
        raise StackBusyError(
            f"the plan for stack {plan.stack_name!r} is being applied already: "
            "see it with `oms-events infra follow`",
            code=refusal.code,
        ) from refusal
    raise PlanOutdatedError(
        f"stack {plan.stack_name!r} has changed since it was planned ({refusal}); nothing was done: plan again",
        code=refusal.code,
    ) from refusal


async def _protect(control: ControlClient, state: StackState) -> StackState:
    try:
        await control.call("UpdateTerminationProtection", StackName=state.id, EnableTerminationProtection=True)
    except ProvisioningError as error:
        raise retold(
            error,
            f"stack {state.name!r} is as its template says ({state.status}), only without termination protection, "
            f"which could not be switched on: {error}",
        ) from error
    return replace(state, termination_protection=True)
