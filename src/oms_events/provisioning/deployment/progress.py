"""What CloudFormation does with a stack, event by event, until it has ended."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

from oms_events._aio import Clock, SystemClock
from oms_events._aws.config import AwsConfig
from oms_events._aws.control import ControlClient, open_control
from oms_events.errors import DeploymentError, ProvisioningError, StackStateError
from oms_events.provisioning.deployment.stacks import (
    DELETED,
    IN_PROGRESS,
    REVIEWED,
    SERVICE,
    STACK_TYPE,
    Pause,
    StackState,
    existing_stack,
    is_refusal,
    remedy,
    retold,
)

SUCCEEDED: Final = frozenset(("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"))

# A stack whose creation failed may pass through these on its way to be deleted.
_PASSING: Final = frozenset(("CREATE_FAILED", "ROLLBACK_COMPLETE"))
_AS_BEFORE: Final = frozenset(("UPDATE_ROLLBACK_COMPLETE", "IMPORT_ROLLBACK_COMPLETE", DELETED))
_LEFT: Final = frozenset(("DELETE_FAILED", "DELETE_SKIPPED"))
# Resources that failed only because another one had.
_CANCELLED: Final = re.compile(r"Resource (?:creation|update|deletion) cancell?ed\.?")
_TAKEN: Final = "already exists"

_LOOKS: Final = 5
"""For an operation whose answer was lost: within seven seconds."""
_SILENCE: Final = 30
"""Looks, for two minutes, in which an operation that was accepted shows no event."""


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
    token: str = ""
    """Of the operation that it is of, the same in all its events; empty where whoever began it gave none."""

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
        operation = await Operation.last(control, state, clock=clock, on_event=on_event)
        # CloudFormation forgets events after 90 days.
        return _checked(state, ()) if operation is None else await operation.result()


class Operation:
    """One operation on a stack, which is its token: begins it, reads its events, tells how it ended.

    Every event of an operation carries its token, so that what others do before and after it does not count. For
    one without a token the events count up to the stack's first final one.
    """

    def __init__(
        self,
        control: ControlClient,
        stack: StackState,
        *,
        token: str,
        seen: Iterable[str],
        clock: Clock | None,
        on_event: OnEvent | None,
    ) -> None:
        self._control = control
        self._stack = stack
        self._token = token
        self._seen = set(seen)
        self._pause = Pause(clock or SystemClock())
        self._on_event = on_event
        self._events: list[StackEvent] = []

    @classmethod
    async def new(
        cls, control: ControlClient, stack: StackState, *, clock: Clock | None, on_event: OnEvent | None
    ) -> Operation:
        """One that is about to begin."""
        page = await control.call("DescribeStackEvents", StackName=stack.id)
        seen = [event["EventId"] for event in page["StackEvents"]]
        token = f"oms-events-{uuid4().hex}"
        return cls(control, stack, token=token, seen=seen, clock=clock, on_event=on_event)

    @classmethod
    async def last(
        cls, control: ControlClient, stack: StackState, *, clock: Clock | None, on_event: OnEvent | None
    ) -> Operation | None:
        """The one that began last; None when no event of the stack is known."""
        operation = cls(control, stack, token="", seen=(), clock=clock, on_event=on_event)
        newest = None
        async with aclosing(operation._newest_first()) as events:
            async for event in events:
                if newest is None:
                    newest = event
                    operation._token = event.token
                elif event.token != newest.token or (not event.token and event.ends):
                    operation._seen.add(event.id)
                    break
        return None if newest is None else operation

    async def begin(self, call: str, /, **parameters: Any) -> ProvisioningError | None:
        """Begins the operation by a call of CloudFormation. Returns why it was refused; None when it has begun.

        When answers were lost, the last one may tell of an earlier try (that something is in progress, or gone):
        only an event with the token tells whether it has begun. Raises `AccessError` and `ProvisioningError` when
        that cannot be known. Cancelled, it may or may not have begun.
        """
        try:
            await self._control.call(call, ClientRequestToken=self._token, **parameters)
        except ProvisioningError as error:
            if error.code == "TokenAlreadyExistsException":
                # Nobody else has this token.
                return None
            if is_refusal(error, at_once=True):
                return error
            try:
                if await self._has_begun():
                    return None
                if is_refusal(error):
                    return error
            except ProvisioningError as unseen:
                error.add_note(f"and it could not be looked for: {unseen}")
            raise retold(error, f"{error}; CloudFormation may have begun nevertheless: {self._hint}") from error
        return None

    async def result(self) -> StackState:
        """Gives each event to `on_event` until the operation is over, and the stack as it was then.

        Its `reason` names resources that are outside the stack now, and were not deleted. Without an end, unless
        the caller sets a deadline. Raises `DeploymentError` when it failed, `AccessError` and `ProvisioningError`,
        which say that the operation goes on.
        """
        try:
            state = await self._end()
        except ProvisioningError as error:
            text = f"{error}; CloudFormation goes on with stack {self._stack.name!r} by itself: {self._hint}"
            raise retold(error, text) from error
        return _checked(state, self._events)

    async def _end(self) -> StackState:
        silent = 0
        passed = False
        while True:
            fresh = await self._tell()
            last = next((event for event in reversed(self._events) if event.of_stack), None)
            if last is not None and last.ends:
                state = await existing_stack(self._control, self._stack.id)
                # A deletion may follow what passes. After any other end another operation may be under way, or
                # the stack's description a moment late.
                passes = last.status in _PASSING
                over = (passed and not state.in_progress) if passes else (passed or not state.in_progress)
                if over:
                    await self._tell()
                    return _as_of(last, state, deleted=passes and state.status == DELETED)
                passed = not passes or not state.in_progress
            if fresh:
                self._pause.restart()
            elif not self._events and (silent := silent + 1) > _SILENCE:
                raise ProvisioningError("it was accepted, but shows no event: another operation may be under way")
            await self._pause.wait()

    async def _tell(self) -> Sequence[StackEvent]:
        """Gives the operation's events that are new, and returns them."""
        fresh = await self._unseen()
        self._seen.update(event.id for event in fresh)
        marked = any(event.token == self._token for event in (*self._events, *fresh))
        told = []
        for event in fresh:
            if self._is_complete:
                break
            # Nothing marked: this CloudFormation gives no tokens back.
            if event.token == self._token or not (marked or event.token):
                told.append(event)
                self._events.append(event)
                if self._on_event is not None:
                    self._on_event(event)
        return told

    @property
    def _is_complete(self) -> bool:
        last = self._events[-1] if self._events else None
        return last is not None and last.ends and last.status not in _PASSING

    @property
    def _hint(self) -> str:
        return f"see it with `oms-events infra follow --stack-name {self._stack.id}`"

    async def _has_begun(self) -> bool:
        for _ in range(_LOOKS):
            if any(event.token == self._token for event in await self._unseen()):
                return True
            await self._pause.wait()
        return False

    async def _unseen(self) -> list[StackEvent]:
        """The events that are new, the oldest first."""
        async with aclosing(self._newest_first()) as events:
            return [event async for event in events][::-1]

    async def _newest_first(self) -> AsyncGenerator[StackEvent, None]:
        """As CloudFormation gives them, in pages of a hundred, up to the first that was seen."""
        async with aclosing(self._control.pages("DescribeStackEvents", StackName=self._stack.id)) as pages:
            async for page in pages:
                for item in page["StackEvents"]:
                    if item["EventId"] in self._seen:
                        return
                    yield _event(item)


def taken_remedy(reason: str) -> str:
    """What to do when a resource could not be made because its name is taken outside the stack."""
    if _TAKEN not in reason and "ResourceExistenceCheck" not in reason:
        return ""
    return (
        "; a resource with this name exists already, and not in this stack: give the spec another name, "
        "delete the other one, or import it into the stack"
    )


def _as_of(last: StackEvent, state: StackState, *, deleted: bool) -> StackState:
    """The stack as the operation left it: described later, it may be in the next one."""
    status = DELETED if deleted else last.status
    return state if state.status == status else replace(state, status=status, reason=last.reason)


def _checked(state: StackState, events: Sequence[StackEvent]) -> StackState:
    """The state, when the operation did what was wanted. Raises `DeploymentError`."""
    started = next((event.status for event in events if event.of_stack), "")
    deletes = started.startswith("DELETE")
    left = _left(events)
    if state.status in SUCCEEDED or (state.status == DELETED and deletes):
        return replace(state, reason=left)
    failures = [
        f"{event.logical_id} ({event.type}): {event.reason or event.status}"
        for event in events
        if event.failed and not event.of_stack and _CANCELLED.fullmatch(event.reason) is None
    ]
    why = failures[0] if failures else state.reason or "CloudFormation gave no reason"
    as_before = state.status in _AS_BEFORE and not deletes
    end = "all is as it was before" if as_before else remedy(state.status)
    if left and not state.status.endswith("_FAILED"):
        end = f"{left}; delete that, or import it, before you try again" + ("" if as_before else f"; {end}")
    # The status alone would read as if somebody had wanted it.
    taken_back = state.status == DELETED and started
    ended = "could not be created, and was taken back" if taken_back else f"ended in {state.status}"
    raise DeploymentError(
        f"stack {state.name!r} {ended}: {why}{taken_remedy(why)}; {end}",
        status=state.status,
        failures=failures,
        rolled_back=as_before and not left,
    )


def _left(events: Sequence[StackEvent]) -> str:
    """The resources that an operation took out of the stack, and did not delete; CloudFormation tries thrice."""
    last = {(event.logical_id, event.physical_id): event for event in events if not event.of_stack}
    left = [
        f"{event.logical_id} ({event.type}) {event.physical_id}: {event.reason or event.status}"
        for event in last.values()
        if event.status in _LEFT
    ]
    return f"left behind, outside the stack: {'; '.join(left)}" if left else ""


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
        token=item.get("ClientRequestToken", ""),
    )
