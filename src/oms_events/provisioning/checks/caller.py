"""Who we are, and whether policies let us, or a role, make the calls that the configuration makes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from oms_events.errors import ProvisioningError
from oms_events.provisioning.checks.permits import (
    Policy,
    Tells,
    Verdict,
    by_events,
    by_principal,
    decide,
    denies,
)
from oms_events.provisioning.checks.report import Finding, Level, failed, ok, problem, some, unchecked
from oms_events.provisioning.checks.services import Services
from oms_events.provisioning.specs.buses import EVENTS_SERVICE

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
    """Actions that the configuration needs on one resource, and the policy on it, where it has one."""

    actions: Sequence[str]
    resource: str
    policy: Policy = None


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
        for finding in _on_resource(identity, principal, one, subject):
            yield finding


async def check_role(
    services: Services, role: str, sources: Sequence[str], calls: Calls | None, subject: str
) -> AsyncIterator[Finding]:
    """Looks at a role that EventBridge takes on for `sources`, ARNs of rules, to reach a target."""
    found = await services.find("iam", "GetRole", RoleName=role.rpartition("/")[2])
    if found is None:
        yield problem(AREA, subject, f"role {role} does not exist", "make it, or change the target")
        return
    trust = found["Role"].get("AssumeRolePolicyDocument")
    refused: dict[Verdict, list[str]] = {}
    for source in sources:
        verdict = decide(by_events("sts:AssumeRole", "", source, tells=Tells.ALL), trust)
        refused.setdefault(verdict, []).append(f"rule {source.rpartition('/')[2]}")
    for verdict, level in ((Verdict.DENIED, Level.PROBLEM), (Verdict.UNCLEAR, Level.NOT_CHECKED)):
        if rules := refused.get(verdict):
            yield Finding(
                AREA,
                subject,
                level,
                f"role {role} does not say that {EVENTS_SERVICE} may assume it for {some(rules)}",
                f"let its trust policy allow sts:AssumeRole to {EVENTS_SERVICE}",
            )
    if calls is not None:
        yield await simulated(services, role, calls, AREA, subject)


async def simulated(services: Services, principal: str, calls: Calls, area: str, subject: str) -> Finding:
    """Whether the principal's policies allow the calls, by IAM's own simulation; never raises for a denial."""
    answers = services.each(
        "iam",
        "SimulatePrincipalPolicy",
        "EvaluationResults",
        PolicySourceArn=principal,
        ActionNames=list(calls.actions),
        ResourceArns=[calls.resource],
    )
    denied: list[str] = []
    missing: set[str] = set()
    left = {action.lower(): action for action in calls.actions}
    try:
        async for result in answers:
            left.pop(result["EvalActionName"].lower(), None)
            unknown = _missing(result)
            missing |= unknown
            if not unknown and not _is_allowed(result):
                denied.append(result["EvalActionName"])
    except ProvisioningError as error:
        return failed(area, subject, error)
    on = f"on {calls.resource}"
    if denied:
        message = f"the policies of {principal} do not allow {', '.join(denied)} {on}"
        return problem(area, subject, message, f"allow {', '.join(denied)} {on}, in an SCP or boundary too")
    if missing or left:
        reasons = [f"they ask for {', '.join(sorted(missing))}, which it does not know"] if missing else []
        if left:
            reasons.append(f"it says nothing of {', '.join(left.values())}")
        message = f"IAM's simulation does not tell what {principal} may call {on}: {'; '.join(reasons)}"
        return unchecked(area, subject, message, "try the call, or look at the conditions")
    return ok(area, subject, f"the policies of {principal} allow {', '.join(calls.actions)} {on}")


def _is_allowed(result: Mapping[str, Any]) -> bool:
    organization = result.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations", True)
    boundary = result.get("PermissionsBoundaryDecisionDetail", {}).get("AllowedByPermissionsBoundary", True)
    return bool(result["EvalDecision"] == _ALLOWED and organization and boundary)


def _missing(result: Mapping[str, Any]) -> set[str]:
    """The condition keys without which an answer, even "allowed", is none; they stand with the resources too."""
    places = (result, *result.get("ResourceSpecificResults", ()))
    return {key for place in places for key in place.get("MissingContextValues", ())}


def _on_resource(identity: Identity, principal: str, calls: Calls, subject: str) -> Iterator[Finding]:
    account = calls.resource.split(":")[4]
    if account not in ("", identity.account):
        yield unchecked(
            AREA,
            subject,
            f"{calls.resource} is of another account, {account}, whose policy on it must allow the calls too",
            f"look there whether it allows {', '.join(calls.actions)} to {principal}",
        )
        return
    refused: dict[bool | None, list[str]] = {}
    for action in calls.actions:
        request = by_principal(principal, action, calls.resource, session=identity.arn)
        refused.setdefault(denies(request, calls.policy), []).append(action)
    if actions := refused.get(True):
        message = f"the policy of {calls.resource} denies {', '.join(actions)} to {principal}"
        yield problem(AREA, subject, message, "change the statement that denies it")
    if actions := refused.get(None):
        message = (
            f"the policy of {calls.resource} denies {', '.join(actions)} under conditions only AWS can decide"
        )
        yield unchecked(AREA, subject, message, "try the call, or look at the conditions")


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
