"""What CloudFormation does with a stack, event by event, until it has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from oms_events._aio import Clock, SystemClock
from oms_events._aws.config import AwsConfig
from oms_events._aws.control import ControlClient, open_control
from oms_events.errors import AccessError, DeploymentError, ProvisioningError, StackStateError
from oms_events.provisioning.deployment.stacks import (
    DELETED,
    IN_PROGRESS,
    REVIEWED,
    SERVICE,
    STACK_TYPE,
    Pause,
    StackState,
    existing_stack,
)

SUCCEEDED: Final = frozenset(("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"))

# A stack whose creation failed may pass through these on its way to be deleted.
_PASSING: Final = frozenset(("CREATE_FAILED", "ROLLBACK_COMPLETE"))
_AS_BEFORE: Final = frozenset(
    ("ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_ROLLBACK_COMPLETE", DELETED)
)
# Resources that failed only because another one had.
_CANCELLED: Final = "cancelled"
_TAKEN: Final = "already exists"


@dataclass(frozen=True, slots=True, kw_only=True)
class StackEvent:
    """One step of an operation, of a resource or of the stack itself."""

    id: str
    time: datetime
    logical_id: str
    physical_id: str
    type: str
    status: str
    reason: str
    of_stack: bool
    """Whether it tells of the stack as a whole."""

    @property
    def failed(self) -> bool:
        return self.status.endswith("_FAILED")

    @property
    def ends(self) -> bool:
        """Whether it is the stack's last one, of an operation or of a part of it."""
        return self.of_stack and not self.status.endswith(IN_PROGRESS)


OnEvent = Callable[[StackEvent], None]


async def follow(
    stack_name: str,
    config: AwsConfig,
    *,
    on_event: OnEvent | None = None,
    clock: Clock | None = None,
    session: Any = None,
) -> StackState:
    """Gives the events of the operation that is under way, or else of the last one, and waits for its end.

    `stack_name` may be a stack's id, by which one that was deleted is found as well. Raises `DeploymentError`
    when the operation failed, `StackNotFoundError` and `AccessError`. Cancelling it changes nothing.
    """
    async with open_control(config, SERVICE, session=session) as control:
        state = await existing_stack(control, stack_name)
        if state.status == REVIEWED:
            raise StackStateError(f"stack {stack_name!r} has nothing but change sets: no operation has begun")
        progress = await Progress.of_operation(control, state, clock=clock, on_event=on_event)
        if state.in_progress:
            state = await progress.until_ended()
        else:
            await progress.tell()
        return progress.checked(state)


class Progress:
    """Reads a stack's events, each once and in order, and tells how the operation ended."""

    def __init__(
        self,
        control: ControlClient,
        stack: StackState,
        *,
        seen: Iterable[str],
        clock: Clock | None,
        on_event: OnEvent | None,
    ) -> None:
        self._control = control
        self._stack = stack
        self._seen = set(seen)
        self._pause = Pause(clock or SystemClock())
        self._on_event = on_event
        self._events: list[StackEvent] = []

    @classmethod
    async def from_now(
        cls, control: ControlClient, stack: StackState, *, clock: Clock | None, on_event: OnEvent | None
    ) -> Progress:
        """For an operation that is about to begin."""
        page = await control.call("DescribeStackEvents", StackName=stack.id)
        seen = [event["EventId"] for event in page["StackEvents"]]
        return cls(control, stack, seen=seen, clock=clock, on_event=on_event)

    @classmethod
    async def of_operation(
        cls, control: ControlClient, stack: StackState, *, clock: Clock | None, on_event: OnEvent | None
    ) -> Progress:
        """For the operation that began last: its events come after the end of the one before."""
        progress = cls(control, stack, seen=(), clock=clock, on_event=on_event)
        newest_first = reversed(await progress._unseen())
        next(newest_first, None)
        progress._seen.update([event.id for event in newest_first if event.ends][:1])
        return progress

    async def until_ended(self) -> StackState:
        """Gives each event to `on_event` until the operation is over, and the stack as it is then.

        Without an end, unless the caller sets a deadline. Raises `AccessError` and `ProvisioningError`, which
        say that the operation goes on.
        """
        try:
            return await self._until_ended()
        except AccessError as error:
            text = self._goes_on(error)
            raise AccessError(text, operation=error.operation, code=error.code) from error
        except ProvisioningError as error:
            raise ProvisioningError(self._goes_on(error), code=error.code) from error

    def checked(self, state: StackState) -> StackState:
        """The state, when the operation did what was wanted. Raises `DeploymentError`.

        Its `reason` then names resources that were taken out of the stack, and could not be deleted.
        """
        started = next((event.status for event in self._events if event.of_stack), "")
        failures = [
            f"{event.logical_id} ({event.type}): {event.reason or event.status}"
            for event in self._events
            if event.failed and not event.of_stack and _CANCELLED not in event.reason
        ]
        if state.status in SUCCEEDED or (state.status == DELETED and started.startswith("DELETE")):
            left = f"left behind, outside the stack: {'; '.join(failures)}" if failures else ""
            return replace(state, reason=left)
        why = failures[0] if failures else state.reason or "CloudFormation gave no reason"
        rolled_back = state.status in _AS_BEFORE and not started.startswith("DELETE")
        raise DeploymentError(
            f"stack {state.name!r} ended in {state.status}: {why}{_remedy(why, state, rolled_back=rolled_back)}",
            status=state.status,
            failures=failures,
            rolled_back=rolled_back,
        )

    async def tell(self) -> Sequence[StackEvent]:
        """Gives the events that are new, and returns them."""
        fresh = await self._unseen()
        self._seen.update(event.id for event in fresh)
        self._events += fresh
        if self._on_event is not None:
            for event in fresh:
                self._on_event(event)
        return fresh

    async def _until_ended(self) -> StackState:
        passed = False
        while True:
            fresh = await self.tell()
            if any(event.ends for event in fresh) or passed:
                state = await existing_stack(self._control, self._stack.id)
                if not state.in_progress and (passed or state.status not in _PASSING):
                    await self.tell()
                    return state
                passed = not state.in_progress
            if fresh:
                self._pause.restart()
            await self._pause.wait()

    async def _unseen(self) -> list[StackEvent]:
        """CloudFormation gives the newest first, and pages of a hundred."""
        found: list[StackEvent] = []
        async with aclosing(self._control.pages("DescribeStackEvents", StackName=self._stack.id)) as pages:
            async for page in pages:
                for item in page["StackEvents"]:
                    if item["EventId"] in self._seen:
                        return found[::-1]
                    found.append(_event(item))
        return found[::-1]

    def _goes_on(self, error: ProvisioningError) -> str:
        return (
            f"{error}; CloudFormation goes on with stack {self._stack.name!r} by itself: "
            f"see it with `oms-events infra follow --stack-name {self._stack.id}`"
        )


def taken_remedy(reason: str) -> str:
    """What to do when a resource could not be made because its name is taken outside the stack."""
    if _TAKEN not in reason and "ResourceExistenceCheck" not in reason:
        return ""
    return (
        "; a resource with this name exists already, and not in this stack: give the spec another name, "
        "delete the other one, or import it into the stack"
    )


def _remedy(why: str, state: StackState, *, rolled_back: bool) -> str:
    if state.status == "UPDATE_ROLLBACK_FAILED":
        end = "; repair what could not be rolled back, then: aws cloudformation continue-update-rollback"
    elif rolled_back:
        end = "; all is as it was before"
    elif state.status == "DELETE_FAILED":
        end = "; what is left stands in the stack: remove the cause, and destroy it again"
    else:
        end = ""
    return taken_remedy(why) + end


def _event(item: Any) -> StackEvent:
    physical = item.get("PhysicalResourceId", "")
    kind = item.get("ResourceType", "")
    return StackEvent(
        id=item["EventId"],
        time=item["Timestamp"],
        logical_id=item.get("LogicalResourceId", ""),
        physical_id=physical,
        type=kind,
        status=item.get("ResourceStatus", ""),
        reason=item.get("ResourceStatusReason", ""),
        of_stack=kind == STACK_TYPE and physical == item["StackId"],
    )
