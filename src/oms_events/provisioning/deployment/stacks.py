"""Stacks as CloudFormation has them: their state, whether they can be deployed to, and their outputs."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NoReturn

from oms_events._aio import Clock, cancel_and_wait
from oms_events._aws.config import AwsConfig
from oms_events._aws.control import ControlClient, open_control
from oms_events.errors import (
    AccessError,
    MissingExtraError,
    ProvisioningError,
    StackBusyError,
    StackNotFoundError,
    StackStateError,
)
from oms_events.provisioning.template import METADATA_KEY, assembled_outputs

SERVICE: Final = "cloudformation"
STACK_TYPE: Final = "AWS::CloudFormation::Stack"
IN_PROGRESS: Final = "_IN_PROGRESS"
REVIEWED: Final = "REVIEW_IN_PROGRESS"
"""A stack that has nothing but change sets."""
DELETED: Final = "DELETE_COMPLETE"

_DEPLOYABLE: Final = frozenset(
    ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE",
     "IMPORT_ROLLBACK_COMPLETE", REVIEWED, DELETED)
)  # fmt: skip
_DESTROY_FIRST: Final = "it never came to be: remove it with `oms-events infra destroy`, then deploy again"
_REMEDIES: Final[Mapping[str, str]] = {
    "CREATE_FAILED": _DESTROY_FIRST,
    "ROLLBACK_COMPLETE": _DESTROY_FIRST,
    "ROLLBACK_FAILED": _DESTROY_FIRST,
    "DELETE_FAILED": "see what could not be deleted with `oms-events infra follow`, and destroy it again",
    "IMPORT_ROLLBACK_FAILED": "CloudFormation has no way on from there: see why with `oms-events infra follow`, "
    "and destroy it, or ask AWS",
    "UPDATE_FAILED": "roll it back first: aws cloudformation rollback-stack",
    "UPDATE_ROLLBACK_FAILED": "see what could not be rolled back with `oms-events infra follow`, repair that, and "
    "let CloudFormation go on: aws cloudformation continue-update-rollback",
}
_STATE_IN_TEXT: Final = re.compile(r"\b(?:is in|in status) \[?([A-Z]+(?:_[A-Z]+)+)")

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0
_PAUSE_GROWTH: Final = 1.5
_PARTING: Final = 10.0
"""Seconds for what has to be done before an interrupted call ends."""

_log = logging.getLogger("oms_events")


@dataclass(frozen=True, slots=True, kw_only=True)
class StackState:
    """A stack as CloudFormation described it; `outputs` are the template's plain ones."""

    name: str
    id: str
    status: str
    reason: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)
    termination_protection: bool = False

    @property
    def in_progress(self) -> bool:
        """Whether an operation is under way."""
        return self.status.endswith(IN_PROGRESS) and self.status != REVIEWED


class Pause:
    """Waits between looks, longer each time: from half a second to five, far below CloudFormation's rates."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next = _FIRST_PAUSE

    async def wait(self) -> None:
        pause, self._next = self._next, min(self._next * _PAUSE_GROWTH, _LONGEST_PAUSE)
        await self._clock.sleep(pause)

    def restart(self) -> None:
        """Something has moved: the next wait is a short one."""
        self._next = _FIRST_PAUSE


async def find_stack(control: ControlClient, stack: str) -> StackState | None:
    """The stack of this name or id; None when there is none. A deleted one is found by its id only."""
    try:
        (found,) = (await control.call("DescribeStacks", StackName=stack))["Stacks"]
    except ProvisioningError as error:
        if is_missing(error):
            return None
        raise
    if found["StackStatus"] == DELETED and stack != found["StackId"]:
        return None
    return StackState(
        name=found["StackName"],
        id=found["StackId"],
        status=found["StackStatus"],
        reason=found.get("StackStatusReason", ""),
        outputs={item["OutputKey"]: item["OutputValue"] for item in found.get("Outputs", ())},
        termination_protection=found.get("EnableTerminationProtection", False),
    )


async def existing_stack(control: ControlClient, stack: str) -> StackState:
    """The stack of this name or id. Raises `StackNotFoundError`."""
    state = await find_stack(control, stack)
    if state is None:
        raise StackNotFoundError(
            f"there is no stack {stack!r} in region {control.region}: check its name, the region and the account"
        )
    return state


def is_missing(error: ProvisioningError) -> bool:
    """Whether CloudFormation said that there is no such stack: it has no code for that."""
    return error.code == "ValidationError" and "does not exist" in str(error)


def state_error(stack: str, status: str) -> ProvisioningError | None:
    """Why a stack in this state cannot be deployed to; None when it can."""
    if status in _DEPLOYABLE:
        return None
    if status.endswith(IN_PROGRESS):
        return StackBusyError(
            f"stack {stack!r} is in {status}: another operation is under way; "
            "see it with `oms-events infra follow`, and try again when it has ended"
        )
    return StackStateError(f"stack {stack!r} is in {status}: {remedy(status)}")


def remedy(status: str) -> str:
    """What to do about a stack in a state that nothing can be deployed to."""
    return _REMEDIES.get(status, "see why with `oms-events infra follow`")


def refuse(error: ProvisioningError, stack: str) -> NoReturn:
    """Raises what a refused operation means; CloudFormation tells a stack's state in its text only."""
    found = _STATE_IN_TEXT.search(str(error))
    status = f"UPDATE{IN_PROGRESS}" if error.code == "OperationInProgressException" else found and found[1]
    meant = state_error(stack, status) if status else None
    if meant is None:
        raise error
    meant.code = error.code
    raise meant from error


def retold(error: ProvisioningError, text: str) -> ProvisioningError:
    """The error in other words, still an `AccessError` if it was one."""
    if isinstance(error, AccessError):
        return AccessError(text, operation=error.operation, code=error.code)
    return ProvisioningError(text, code=error.code)


def is_refusal(error: ProvisioningError, *, at_once: bool = False) -> bool:
    """Whether AWS has refused a call, and not failed to answer it; `at_once` wants it of the very first try.

    A refusal of a later try may come from an earlier one that was done, and whose answer was lost.
    """
    answer: Mapping[str, Any] | None = getattr(error.__cause__, "response", None)
    if answer is None:
        # No credentials, or a signature that is wrong: nothing was sent, or nothing taken.
        return isinstance(error, AccessError)
    about = answer.get("ResponseMetadata", {})
    refused: bool = 400 <= about.get("HTTPStatusCode", 0) < 500
    return refused and not (at_once and about.get("RetryAttempts"))


async def carry_out(work: Coroutine[Any, Any, None], *, name: str) -> None:
    """Brings to its end what an interrupted call has to put in order: ten seconds, and one more interruption.

    What goes wrong with it is logged: why the call ends matters more.
    """
    task = asyncio.create_task(work, name=name)
    try:
        try:
            await asyncio.wait({task}, timeout=_PARTING)
        except asyncio.CancelledError:
            await asyncio.wait({task}, timeout=_PARTING)
            raise
    finally:
        await cancel_and_wait(task)
        if task.cancelled() or (error := task.exception()) is not None:
            _log.warning("%s: %s", name, "no end in time" if task.cancelled() else error)


async def remove_reviewed(control: ControlClient, stack: StackState, pause: Pause) -> StackState:
    """Removes a stack that has nothing but change sets, and waits until it is gone."""
    # Without a token: by its id it may be deleted again and again, and nobody looks at its events.
    await control.call("DeleteStack", StackName=stack.id)
    while (found := await find_stack(control, stack.id)) is not None and found.status != DELETED:
        await pause.wait()
    return replace(stack, status=DELETED)


async def outputs(stack_name: str, config: AwsConfig, *, session: Any = None) -> dict[str, Any]:
    """A stack's outputs under the names and in the maps of its specs; plain ones where its template has no such.

    The layout is the one of the template that was deployed. Raises `StackNotFoundError`, `AccessError`, and
    `MissingExtraError` for a template in YAML without the extra `yaml`.
    """
    async with open_control(config, SERVICE, session=session) as control:
        state = await existing_stack(control, stack_name)
        layout: object = await deployed_template(control, state.id, stage="Original")
    for key in ("Metadata", METADATA_KEY, "Outputs"):
        # Somebody else's template may have anything there.
        layout = layout.get(key) if isinstance(layout, Mapping) else None
    return assembled_outputs(layout, state.outputs) if isinstance(layout, Mapping) else dict(state.outputs)


async def deployed_template(
    control: ControlClient, stack: str, *, stage: Literal["Original", "Processed"]
) -> Mapping[str, Any]:
    """The template of a stack, as it was given or after transforms; an empty one where its form is another."""
    body = (await control.call("GetTemplate", StackName=stack, TemplateStage=stage)).get("TemplateBody")
    if isinstance(body, str):
        body = _parsed(body)
    return body if isinstance(body, Mapping) else {}


def _parsed(body: str) -> object:
    with suppress(ValueError):
        return json.loads(body)
    try:
        import yaml
    except ImportError:
        raise MissingExtraError("yaml", needed_for="a stack whose template is YAML") from None
    # CloudFormation's short forms (!Ref) are in none of ours.
    with suppress(yaml.YAMLError):
        return yaml.safe_load(body)
    return None
