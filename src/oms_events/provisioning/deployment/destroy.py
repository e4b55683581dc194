"""Deletes stacks, and refuses while they hold data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from oms_events._aio import Clock, SystemClock
from oms_events._aws.config import AwsConfig
from oms_events._aws.control import ControlClient, open_control
from oms_events.errors import (
    DataLossRefusedError,
    PlanOutdatedError,
    ProvisioningError,
    StackBusyError,
    StackNotFoundError,
)
from oms_events.provisioning.deployment.holdings import Holding, Inspector
from oms_events.provisioning.deployment.progress import OnEvent, Progress
from oms_events.provisioning.deployment.stacks import (
    DELETED,
    REVIEWED,
    SERVICE,
    Pause,
    StackState,
    deployed_template,
    existing_stack,
    refuse,
    remove_reviewed,
)

# The third one is kept once its creation has succeeded.
_KEPT: Final = frozenset(("Retain", "Snapshot", "RetainExceptOnCreate"))


@dataclass(frozen=True, slots=True, kw_only=True)
class StackResource:
    """One resource of a stack; `kept` says that deleting the stack leaves it (or a snapshot of it)."""

    logical_id: str
    physical_id: str
    type: str
    kept: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """What deleting a stack would delete, and what speaks against it."""

    stack_name: str
    stack_id: str
    resources: tuple[StackResource, ...]
    holdings: tuple[Holding, ...] = ()
    termination_protection: bool = False

    @property
    def reasons(self) -> tuple[str, ...]:
        """One line for each thing that must be forced; none for a stack that can go."""
        protection = ("the stack has termination protection",) if self.termination_protection else ()
        return (*protection, *(holding.reason for holding in self.holdings))

    @property
    def refused(self) -> tuple[str, ...]:
        """One line for each resource that CloudFormation cannot delete, whatever is forced."""
        return tuple(holding.reason for holding in self.holdings if holding.refused)


async def look(stack_name: str, config: AwsConfig, *, session: Any = None) -> Deletion:
    """What `destroy` would delete, and what speaks against it; changes nothing.

    Speaking against it are termination protection, tables with deletion protection or an item, queues with
    messages, buckets with objects, archives with events, and such as could not be looked into; not what is kept.
    Raises `StackNotFoundError`, `StackBusyError` and `AccessError`.
    """
    async with AsyncExitStack() as stack:
        control = await stack.enter_async_context(open_control(config, SERVICE, session=session))
        return await _look(control, Inspector(stack, config, session), stack_name)


async def destroy(
    stack_name: str,
    config: AwsConfig,
    *,
    force: bool = False,
    shown: Deletion | None = None,
    on_event: OnEvent | None = None,
    clock: Clock | None = None,
    session: Any = None,
) -> StackState:
    """Deletes a stack with what it holds, and waits until it is gone.

    `force` switches termination protection and the tables' deletion protection off first; it empties nothing, so
    that CloudFormation stops at a bucket that has objects. `shown` is what somebody has agreed to: when the stack
    has become another since, nothing is done. Raises `DataLossRefusedError` with all reasons unless forced,
    `PlanOutdatedError`, `StackBusyError` and `StackNotFoundError`, all with nothing done; `DeploymentError` for
    what could not be deleted, and `AccessError`. Cancelled once CloudFormation has begun, it goes on: `follow` it.
    """
    async with AsyncExitStack() as stack:
        control = await stack.enter_async_context(open_control(config, SERVICE, session=session))
        inspector = Inspector(stack, config, session)
        found = await _look(control, inspector, stack_name)
        if shown is not None and (found.stack_id, found.resources) != (shown.stack_id, shown.resources):
            raise PlanOutdatedError(f"stack {found.stack_name!r} has changed since it was shown: look again")
        if found.reasons and not force:
            raise DataLossRefusedError(
                f"stack {found.stack_name!r} was not deleted: {'; '.join(found.reasons)}; "
                "force (--force) deletes it nevertheless",
                reasons=found.reasons,
            )
        await _unprotect(control, inspector, found, Pause(clock or SystemClock()))
        state = await existing_stack(control, found.stack_id)
        if state.status == REVIEWED:
            return await remove_reviewed(control, state, Pause(clock or SystemClock()))
        progress = await Progress.from_now(control, state, clock=clock, on_event=on_event)
        try:
            await control.call(
                "DeleteStack", StackName=found.stack_id, ClientRequestToken=f"destroy-{uuid4().hex}"
            )
        except ProvisioningError as error:
            refuse(error, found.stack_name)
        return progress.checked(await progress.until_ended())


async def _look(control: ControlClient, inspector: Inspector, stack_name: str) -> Deletion:
    state = await existing_stack(control, stack_name)
    if state.status == DELETED:
        raise StackNotFoundError(f"stack {state.name!r} has been deleted already")
    if state.in_progress:
        raise StackBusyError(
            f"stack {state.name!r} is in {state.status}: wait for its end with `oms-events infra follow`, "
            "and look again"
        )
    document = {} if state.status == REVIEWED else await deployed_template(control, state.id)
    resources = await _resources(control, state, document)
    holdings = [
        holding
        for resource in resources
        if not resource.kept
        for holding in await inspector.holdings(resource.type, resource.physical_id)
    ]
    return Deletion(
        stack_name=state.name,
        stack_id=state.id,
        resources=resources,
        holdings=tuple(holdings),
        termination_protection=state.termination_protection,
    )


async def _resources(
    control: ControlClient, state: StackState, document: Mapping[str, Any]
) -> tuple[StackResource, ...]:
    found: list[StackResource] = []
    policies = {name: entry.get("DeletionPolicy") for name, entry in document.get("Resources", {}).items()}
    async with aclosing(control.pages("ListStackResources", StackName=state.id)) as pages:
        async for page in pages:
            found += _present(page["StackResourceSummaries"], policies)
    return tuple(found)


def _present(summaries: Any, policies: Mapping[str, str | None]) -> Iterator[StackResource]:
    for item in summaries:
        if item["ResourceStatus"] != DELETED and item.get("PhysicalResourceId"):
            yield StackResource(
                logical_id=item["LogicalResourceId"],
                physical_id=item["PhysicalResourceId"],
                type=item["ResourceType"],
                kept=policies.get(item["LogicalResourceId"]) in _KEPT,
            )


async def _unprotect(control: ControlClient, inspector: Inspector, found: Deletion, pause: Pause) -> None:
    for table in (holding.physical_id for holding in found.holdings if holding.protected):
        dynamodb = await inspector.client("dynamodb")
        await dynamodb.call("UpdateTable", TableName=table, DeletionProtectionEnabled=False)
        # A table that is being changed cannot be deleted.
        while (await dynamodb.call("DescribeTable", TableName=table))["Table"]["TableStatus"] == "UPDATING":
            await pause.wait()
    if found.termination_protection:
        await control.call(
            "UpdateTerminationProtection", StackName=found.stack_id, EnableTerminationProtection=False
        )
