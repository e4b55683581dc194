"""The KMS keys of what EventBridge writes to: one that it may not use loses every event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from oms_events.errors import ProvisioningError
from oms_events.provisioning.checks.permits import Tells, Verdict, by_events, decide
from oms_events.provisioning.checks.report import Fault, Level, fault_of, some
from oms_events.provisioning.checks.services import Services
from oms_events.provisioning.specs.buses import EVENTS_SERVICE

_AWS_KEY: Final = "alias/aws/"
_ACTIONS: Final = ("kms:GenerateDataKey", "kms:Decrypt")
"""What EventBridge needs (EventBridge user guide, "Authorizing EventBridge to use a customer managed key")."""

_OF_BUS: Final = "kms:encryptioncontext:aws:events:event-bus:arn"


async def key_faults(
    services: Services, key: str, resource: str, sources: Mapping[str, str], tells: Tells
) -> Sequence[Fault]:
    """What keeps EventBridge from using the key of `resource`, an ARN, for its users (`sources`, user to ARN)."""
    if _AWS_KEY in key:
        return [_is_of_aws(key)]
    faults: list[Fault] = []
    try:
        found = await services.find("kms", "DescribeKey", KeyId=_arn_of(key, resource))
        if found is None:
            return [(Level.PROBLEM, f"its key {key} does not exist", "give it a key that exists, or none")]
        described = found["KeyMetadata"]
        if described.get("KeyManager") == "AWS":
            return [_is_of_aws(key)]
        if described["KeyState"] != "Enabled":
            remedy = "enable the key, or give it another"
            faults.append((Level.PROBLEM, f"its key {key} is {described['KeyState']}", remedy))
        policy = await services.call("kms", "GetKeyPolicy", KeyId=described["Arn"], PolicyName="default")
    except ProvisioningError as error:
        return [*faults, fault_of(error, f"whether EventBridge may use its key {key}: ")]
    context = {_OF_BUS: resource} if tells is Tells.ALL else {}
    verdicts: dict[Verdict, list[str]] = {}
    for user, source in sources.items():
        for action in _ACTIONS:
            request = by_events(action, described["Arn"], source, tells=tells, context=context)
            verdicts.setdefault(decide(request, policy["Policy"]), []).append(user)
    allow = f"allow {' and '.join(_ACTIONS)} to {EVENTS_SERVICE} in the key's policy"
    if tells is not Tells.ALL:
        allow += ", without a condition on the source: EventBridge does not tell it there"
    if users := verdicts.get(Verdict.DENIED):
        faults.append((Level.PROBLEM, f"its key {key} does not let EventBridge use it for {some(users)}", allow))
    if users := verdicts.get(Verdict.UNCLEAR):
        message = f"the policy of its key {key} has conditions that only AWS can decide, for {some(users)}"
        faults.append((Level.NOT_CHECKED, message, f"look yourself, or {allow}"))
    return faults


def _is_of_aws(key: str) -> Fault:
    remedy = f"use a key of your own whose policy lets {EVENTS_SERVICE} use it, or the service's own encryption"
    return Level.PROBLEM, f"is encrypted with {key}, AWS's own key, which EventBridge may not use", remedy


def _arn_of(key: str, resource: str) -> str:
    """A key that stands there by its id or alias belongs to the account and Region of the resource."""
    if key.startswith("arn:"):
        return key
    _, partition, _, region, account, _ = resource.split(":", 5)
    return f"arn:{partition}:kms:{region}:{account}:{key if key.startswith('alias/') else f'key/{key}'}"
