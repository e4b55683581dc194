"""Stacks as CloudFormation has them: their state, whether they can be deployed to, and their outputs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, NoReturn
from uuid import uuid4

from oms_events._aio import Clock
from oms_events._aws.config import AwsConfig
from oms_events._aws.control import ControlClient, open_control
from oms_events.errors import (
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
    "UPDATE_ROLLBACK_FAILED": "see what could not be rolled back with `oms-events infra follow`, repair that, and "
    "let CloudFormation go on: aws cloudformation continue-update-rollback",
}
_ROLL_BACK: Final = "roll it back first: aws cloudformation rollback-stack"
_STATE_IN_TEXT: Final = re.compile(r"\b(?:is in|in status) \[?([A-Z]+(?:_[A-Z]+)+)")

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0
_PAUSE_GROWTH: Final = 1.5


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
    return StackStateError(f"stack {stack!r} is in {status}: {_REMEDIES.get(status, _ROLL_BACK)}")


def refuse(error: ProvisioningError, stack: str) -> NoReturn:
    """Raises what a refused operation means; CloudFormation tells a stack's state in its text only."""
    found = _STATE_IN_TEXT.search(str(error))
    status = f"UPDATE{IN_PROGRESS}" if error.code == "OperationInProgressException" else found and found[1]
    meant = state_error(stack, status) if status else None
    if meant is None:
        raise error
    meant.code = error.code
    raise meant from error


async def remove_reviewed(control: ControlClient, stack: StackState, pause: Pause) -> StackState:
    """Removes a stack that has nothing but change sets, and waits until it is gone."""
    await control.call("DeleteStack", StackName=stack.id, ClientRequestToken=f"oms-events-{uuid4().hex}")
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
        document = await deployed_template(control, state.id)
    layout = document.get("Metadata", {}).get(METADATA_KEY, {}).get("Outputs")
    return dict(state.outputs) if layout is None else assembled_outputs(layout, state.outputs)


async def deployed_template(control: ControlClient, stack: str) -> Mapping[str, Any]:
    """The template of a stack; an empty one when it has a form that none of ours has."""
    body = (await control.call("GetTemplate", StackName=stack, TemplateStage="Original")).get("TemplateBody")
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
