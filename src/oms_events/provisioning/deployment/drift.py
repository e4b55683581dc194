"""What somebody changed by hand: CloudFormation's comparison of a stack with its template."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from oms_events._aio import Clock, SystemClock
from oms_events._aws.config import AwsConfig
from oms_events._aws.control import ControlClient, open_control
from oms_events.errors import ProvisioningError, StackBusyError
from oms_events.provisioning.deployment.stacks import (
    SERVICE,
    STACK_TYPE,
    Pause,
    StackState,
    existing_stack,
    refuse,
)


class DriftStatus(StrEnum):
    """How a resource is other than its template says."""

    MODIFIED = "modified"
    DELETED = "deleted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One property, in JSON as CloudFormation tells it."""

    path: str
    expected: str
    actual: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A resource that is not as its template says, or, `unknown`, of which CloudFormation could not tell: `reason`
    says why."""

    logical_id: str
    type: str
    status: DriftStatus
    physical_id: str | None = None
    differences: tuple[Difference, ...] = ()
    reason: str = ""


async def drift(
    stack_name: str, config: AwsConfig, *, clock: Clock | None = None, session: Any = None
) -> tuple[Drift, ...]:
    """Has CloudFormation compare the stack's resources with its template; nothing where all are as they should be.

    Types that CloudFormation cannot compare are left out. Raises `StackNotFoundError`, `StackBusyError` while an
    operation or another comparison is under way, and `AccessError`. Cancelled, the comparison goes on, and
    changes nothing.
    """
    async with open_control(config, SERVICE, session=session) as control:
        stack = await existing_stack(control, stack_name)
        try:
            begun = await control.call("DetectStackDrift", StackName=stack.id)
        except ProvisioningError as error:
            if "already in progress" in str(error):
                raise StackBusyError(
                    f"stack {stack.name!r} is being compared already: try again in a minute", code=error.code
                ) from error
            refuse(error, stack.name)
        found = await _detected(control, begun["StackDriftDetectionId"], Pause(clock or SystemClock()))
        return (*await _drifts(control, stack), *_failed(stack, found))


async def _detected(control: ControlClient, detection: str, pause: Pause) -> Any:
    while True:
        found = await control.call("DescribeStackDriftDetectionStatus", StackDriftDetectionId=detection)
        if found["DetectionStatus"] != "DETECTION_IN_PROGRESS":
            return found
        await pause.wait()


async def _drifts(control: ControlClient, stack: StackState) -> list[Drift]:
    wanted = [status.name for status in DriftStatus]
    found: list[Drift] = []
    more: dict[str, str] = {}
    while True:
        page = await control.call(
            "DescribeStackResourceDrifts", StackName=stack.id, StackResourceDriftStatusFilters=wanted, **more
        )
        found += map(_drift, page["StackResourceDrifts"])
        if not page.get("NextToken"):
            return found
        more = {"NextToken": page["NextToken"]}


def _drift(item: Any) -> Drift:
    return Drift(
        logical_id=item["LogicalResourceId"],
        type=item["ResourceType"],
        status=DriftStatus[item["StackResourceDriftStatus"]],
        physical_id=item.get("PhysicalResourceId"),
        differences=tuple(
            Difference(path=one["PropertyPath"], expected=one["ExpectedValue"], actual=one["ActualValue"])
            for one in item.get("PropertyDifferences", ())
        ),
        reason=item.get("DriftStatusReason", ""),
    )


def _failed(stack: StackState, found: Any) -> list[Drift]:
    """That some could not be compared is told beside what was found of the others."""
    if found["DetectionStatus"] != "DETECTION_FAILED":
        return []
    reason = found.get("DetectionStatusReason", "CloudFormation gave no reason")
    return [Drift(logical_id=stack.name, type=STACK_TYPE, status=DriftStatus.UNKNOWN, reason=reason)]
