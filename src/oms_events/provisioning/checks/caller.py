"""Who we are, and whether policies let us, or a role, make the calls that the configuration makes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from oms_events.errors import ProvisioningError
from oms_events.provisioning.checks.permits import Request, Verdict, decide
from oms_events.provisioning.checks.report import Finding, Level, failed, ok, problem, unchecked
from oms_events.provisioning.checks.services import Services

AREA: Final = "permissions"
_ASSUMED: Final = re.compile(r"arn:([\w-]+):sts::(\d{12}):assumed-role/([^/]+)/.+")
_CAN_SIMULATE: Final = re.compile(r"arn:[\w-]+:iam::\d{12}:(user|role)/.+")
_ALLOWED: Final = "allowed"


@dataclass(frozen=True, slots=True)
class Identity:
    """What STS says of the credentials."""

    arn: str
    account: str

    @property
    def partition(self) -> str:
        """The part of AWS: `aws`, `aws-cn`, `aws-us-gov`."""
        return self.arn.split(":")[1]


@dataclass(frozen=True, slots=True)
class Calls:
    """Actions that the configuration needs on one resource."""

    actions: Sequence[str]
    resource: str


async def identify(services: Services) -> Identity:
    """Whose credentials they are; needs no permission. Raises a `ProvisioningError`."""
    answer = await services.call("sts", "GetCallerIdentity")
    return Identity(answer["Arn"], answer["Account"])


async def check_caller(
    services: Services, own: Services, subject: str, calls: Sequence[Calls]
) -> AsyncIterator[Finding]:
    """Simulates the calls of the principal that `own` has credentials of; `services` ask."""
    identity = await identify(own)
    principal = await _principal(services, identity)
    if _CAN_SIMULATE.fullmatch(principal) is None:
        yield unchecked(
            AREA,
            subject,
            f"{identity.arn} is no user or role, whose policies can be simulated",
            "check with the credentials that the service has",
        )
        return
    for one in calls:
        yield await simulated(services, principal, one, AREA, subject)


async def check_role(
    services: Services, role: str, source: str, calls: Calls | None, subject: str
) -> AsyncIterator[Finding]:
    """Looks at a role that EventBridge takes on for `source`, an ARN, to reach a target."""
    found = await services.find("iam", "GetRole", RoleName=role.rpartition("/")[2])
    if found is None:
        yield problem(AREA, subject, f"role {role} does not exist", "make it, or change the target")
        return
    trust = found["Role"].get("AssumeRolePolicyDocument")
    verdict = decide(trust, Request("events.amazonaws.com", "sts:AssumeRole", "", source))
    if verdict is not Verdict.ALLOWED:
        level = Level.PROBLEM if verdict is Verdict.DENIED else Level.NOT_CHECKED
        yield Finding(
            AREA,
            subject,
            level,
            f"role {role} does not say that events.amazonaws.com may assume it",
            "let its trust policy allow sts:AssumeRole to events.amazonaws.com",
        )
    if calls is not None:
        yield await simulated(services, role, calls, AREA, subject)


async def simulated(services: Services, principal: str, calls: Calls, area: str, subject: str) -> Finding:
    """Whether the principal's policies allow the calls, by IAM's own simulation; never raises for a denial."""
    denied: list[str] = []
    unclear: set[str] = set()
    try:
        answer = await services.call(
            "iam",
            "SimulatePrincipalPolicy",
            PolicySourceArn=principal,
            ActionNames=list(calls.actions),
            ResourceArns=[calls.resource],
        )
    except ProvisioningError as error:
        return failed(area, subject, error)
    for result in answer["EvaluationResults"]:
        if result["EvalDecision"] != _ALLOWED:
            denied.append(result["EvalActionName"])
            unclear.update(result.get("MissingContextValues", ()))
    on = f"on {calls.resource}"
    if not denied:
        return ok(area, subject, f"{principal} may call {', '.join(calls.actions)} {on}")
    message = f"the policies of {principal} do not allow {', '.join(denied)} {on}"
    if unclear:
        message += f"; they ask for {', '.join(sorted(unclear))}, which a simulation does not know"
        return unchecked(area, subject, message, "try the call, or look at the conditions")
    return problem(area, subject, message, f"allow {', '.join(denied)} {on}")


async def _principal(services: Services, identity: Identity) -> str:
    """The user or role behind the credentials; STS leaves out a role's path, which its ARN has."""
    assumed = _ASSUMED.fullmatch(identity.arn)
    if assumed is None:
        return identity.arn
    partition, account, role = assumed.groups()
    try:
        found = await services.find("iam", "GetRole", RoleName=role)
    except ProvisioningError:
        found = None
    arn: str = f"arn:{partition}:iam::{account}:role/{role}" if found is None else found["Role"]["Arn"]
    return arn
