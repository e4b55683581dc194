"""Deletes stacks, and refuses while they hold data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, Final

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
from oms_events.provisioning.deployment.progress import OnEvent, Operation
from oms_events.provisioning.deployment.stacks import (
    DELETED,
    REVIEWED,
    SERVICE,
    Pause,
    StackState,
    carry_out,
    deployed_template,
    existing_stack,
    refuse,
    remove_reviewed,
    retold,
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
    messages, buckets with objects, archives with events, log groups with logs, keys, and what could not be looked
    into, as nested stacks and other types that no spec of ours renders; not what is kept.
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
    has become another since, or something else speaks against it, nothing is done. Raises `DataLossRefusedError`
    with all reasons unless forced, `PlanOutdatedError`, `StackBusyError` and `StackNotFoundError`, all with
    nothing done, or with protection switched on again (the message tells when that failed); `DeploymentError` for
    what could not be deleted, and `AccessError`. The message tells when it is not known whether CloudFormation has
    begun. Cancelled before that, protection is switched on again; after it, it goes on: `follow` it.
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
        if shown is not None and (new := _new_reasons(found, shown)):
            raise PlanOutdatedError(
                f"stack {found.stack_name!r} was not deleted: since it was shown, {'; '.join(new)}: look again"
            )
        pause = Pause(clock or SystemClock())
        protection = _Protection(control, inspector, found, pause)
        try:
            await protection.switch(on=False)
            state = await existing_stack(control, found.stack_id)
            if state.status == REVIEWED:
                return await remove_reviewed(control, state, pause)
            operation = await Operation.new(control, state, clock=clock, on_event=on_event)
        except BaseException:
            await carry_out(protection.switch(on=True), name="protect-stack")
            raise
        refusal = await operation.begin("DeleteStack", StackName=found.stack_id)
        if refusal is not None:
            await protection.switch(on=True)
            refuse(refusal, found.stack_name)
        return await operation.result()


async def _look(control: ControlClient, inspector: Inspector, stack_name: str) -> Deletion:
    state = await existing_stack(control, stack_name)
    if state.status == DELETED:
        raise StackNotFoundError(f"stack {state.name!r} has been deleted already")
    if state.in_progress:
        raise StackBusyError(
            f"stack {state.name!r} is in {state.status}: wait for its end with `oms-events infra follow`, "
            "and look again"
        )
    document = {} if state.status == REVIEWED else await deployed_template(control, state.id, stage="Processed")
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
    entries = document.get("Resources", {}).items()
    # After transforms all of them are plain; what is not is no reason to take a resource for kept.
    policies = {name: entry.get("DeletionPolicy") for name, entry in entries if isinstance(entry, Mapping)}
    async with aclosing(control.pages("ListStackResources", StackName=state.id)) as pages:
        async for page in pages:
            found += _present(page["StackResourceSummaries"], policies)
    return tuple(found)


def _present(summaries: Any, policies: Mapping[str, object]) -> Iterator[StackResource]:
    for item in summaries:
        if item["ResourceStatus"] != DELETED and item.get("PhysicalResourceId"):
            yield StackResource(
                logical_id=item["LogicalResourceId"],
                physical_id=item["PhysicalResourceId"],
                type=item["ResourceType"],
                kept=str(policies.get(item["LogicalResourceId"])) in _KEPT,
            )


def _new_reasons(found: Deletion, shown: Deletion) -> list[str]:
    """What speaks against it now, and did not then: of another resource, or of another kind."""
    agreed = {(holding.physical_id, holding.refused, holding.protected) for holding in shown.holdings}
    new = [
        holding.reason
        for holding in found.holdings
        if (holding.physical_id, holding.refused, holding.protected) not in agreed
    ]
    if found.termination_protection and not shown.termination_protection:
        new.insert(0, "the stack has got termination protection")
    return new


class _Protection:
    """What a stack that was found is protected by: its own termination protection, and that of its tables."""

    def __init__(self, control: ControlClient, inspector: Inspector, found: Deletion, pause: Pause) -> None:
        self._control = control
        self._inspector = inspector
        self._found = found
        self._pause = pause

    async def switch(self, *, on: bool) -> None:
        """Switches all of it off, or on again. Raises `AccessError` and `ProvisioningError`."""
        try:
            for holding in self._found.holdings:
                if holding.protected:
                    await self._switch_table(holding.physical_id, on=on)
            if self._found.termination_protection:
                await self._control.call(
                    "UpdateTerminationProtection", StackName=self._found.stack_id, EnableTerminationProtection=on
                )
        except ProvisioningError as error:
            if not on:
                raise
            raise retold(
                error,
                f"stack {self._found.stack_name!r} was not deleted, but its protection is off now, and could not "
                f"be switched on again: {error}",
            ) from error

    async def _switch_table(self, table: str, *, on: bool) -> None:
        dynamodb = await self._inspector.client("dynamodb")
        # A table that is being changed can neither be changed nor deleted.
        while (described := await _described(dynamodb, table))["TableStatus"] == "UPDATING":
            await self._pause.wait()
        if described.get("DeletionProtectionEnabled", False) is on:
            return
        await dynamodb.call("UpdateTable", TableName=table, DeletionProtectionEnabled=on)
        while (await _described(dynamodb, table))["TableStatus"] == "UPDATING":
            await self._pause.wait()


async def _described(dynamodb: ControlClient, table: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (await dynamodb.call("DescribeTable", TableName=table))["Table"]
    return found
