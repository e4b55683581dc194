"""How each kind of resource is looked at: is it there, what is wrong with it, which policies are on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from oms_events.errors import ProvisioningError
from oms_events.provisioning.checks.permits import Tells
from oms_events.provisioning.checks.report import Fault, Level, fault_of
from oms_events.provisioning.checks.services import Services
from oms_events.provisioning.specs.targets import BY_RESOURCE_POLICY

_MESSAGES: Final = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
_WAIT: Final = "wait until it is {good}, and check again"
_FUNCTION_REMEDIES: Final = {
    "Failed": "deploy its code again",
    # The first call of an idle function fails, and wakes it (Lambda developer guide, "Function states").
    "Inactive": "call it once: that call may fail, and makes it Active again",
}


@dataclass(frozen=True, slots=True)
class Need:
    """A call of EventBridge that a policy of the resource must allow, and what it says of its source."""

    action: str
    resource: str
    tells: Tells = Tells.ARN


@dataclass(frozen=True, slots=True)
class Found:
    """A resource that exists, and what its policies, which decide together, must allow.

    `key` is its KMS key as it stands there; `waiting` is the number of messages in it.
    """

    needs: Sequence[Need]
    policies: Sequence[str | None]
    faults: Sequence[Fault] = ()
    state: str = ""
    waiting: int = 0
    key: str = ""


async def _function(services: Services, arn: str) -> Found | None:
    # Of a version or an alias, the policy is asked by its qualifier.
    parts = arn.split(":")
    name = ":".join(parts[:7])
    which = {"FunctionName": name} | ({"Qualifier": parts[7]} if len(parts) > 7 else {})
    described = await services.find("lambda", "GetFunctionConfiguration", **which)
    if described is None:
        return None
    policy = await services.find("lambda", "GetPolicy", **which)
    document = None if policy is None else policy["Policy"]
    faults = [*_state_faults(described), *await _concurrency_faults(services, name)]
    return Found(_needs("lambda", arn), [document], faults, state=f" ({described.get('State')})")


def _state_faults(described: Mapping[str, Any]) -> Iterator[Fault]:
    for field, good in (("State", "Active"), ("LastUpdateStatus", "Successful")):
        value = described.get(field, good)
        if value != good:
            reason = described.get(f"{field}Reason") or "no reason given"
            level = Level.PROBLEM if value == "Failed" else Level.WARNING
            remedy = _FUNCTION_REMEDIES.get(value, _WAIT.format(good=good))
            yield level, f"{field} is {value}: {reason}", remedy


async def _concurrency_faults(services: Services, name: str) -> Sequence[Fault]:
    try:
        answer = await services.call("lambda", "GetFunctionConcurrency", FunctionName=name)
    except ProvisioningError as error:
        return [fault_of(error, "its reserved concurrency: ")]
    if answer.get("ReservedConcurrentExecutions") != 0:
        return []
    return [(Level.PROBLEM, "its reserved concurrency is 0: it never runs", "raise it, or take it away")]


async def _queue(services: Services, arn: str) -> Found | None:
    account, name = arn.split(":")[4:6]
    at = await services.find("sqs", "GetQueueUrl", QueueName=name, QueueOwnerAWSAccountId=account)
    if at is None:
        return None
    # "All" takes no more rights than one of them.
    answer = await services.find("sqs", "GetQueueAttributes", QueueUrl=at["QueueUrl"], AttributeNames=["All"])
    if answer is None:
        return None
    attributes = answer.get("Attributes", {})
    return Found(
        _needs("sqs", arn),
        [attributes.get("Policy")],
        tuple(_fifo_faults(attributes)),
        waiting=sum(int(attributes.get(name, 0)) for name in _MESSAGES),
        key=attributes.get("KmsMasterKeyId", ""),
    )


def _fifo_faults(attributes: Mapping[str, str]) -> Iterator[Fault]:
    # EventBridge gives messages no deduplication id (aws/aws-cdk, issue 36498).
    if attributes.get("FifoQueue") == "true" and attributes.get("ContentBasedDeduplication") != "true":
        message = "is a FIFO queue without content-based deduplication, which refuses what EventBridge sends"
        yield Level.PROBLEM, message, "switch its content-based deduplication on"


async def _topic(services: Services, arn: str) -> Found | None:
    answer = await services.find("sns", "GetTopicAttributes", TopicArn=arn)
    if answer is None:
        return None
    attributes = answer["Attributes"]
    faults: list[Fault] = []
    if attributes.get("SubscriptionsConfirmed") == "0":
        message = "has no confirmed subscription: what is published there goes nowhere"
        faults.append((Level.WARNING, message, "subscribe somebody, or confirm the subscription"))
    key = attributes.get("KmsMasterKeyId", "")
    return Found(_needs("sns", arn), [attributes.get("Policy")], faults, key=key)


async def _log_group(services: Services, arn: str) -> Found | None:
    group = arn.removesuffix(":*")
    name = group.split(":", 6)[6]
    async for found in services.each("logs", "DescribeLogGroups", "logGroups", logGroupNamePrefix=name):
        if found["arn"].removesuffix(":*") == group:
            break
    else:
        return None
    stream = f"{group}:log-stream:any"
    needs = [*_needs("logs", stream), Need("logs:CreateLogStream", stream, Tells.UNKNOWN)]
    documents = [text async for text in _log_policies(services)]
    faults: list[Fault] = []
    try:
        documents += [text async for text in _log_policies(services, resourceArn=group, policyScope="RESOURCE")]
    except ProvisioningError as error:
        faults.append(fault_of(error, "policies of the log group itself: "))
    return Found(needs, documents, faults)


async def _log_policies(services: Services, **which: str) -> Any:
    async for policy in services.each("logs", "DescribeResourcePolicies", "resourcePolicies", **which):
        yield policy["policyDocument"]


def _needs(service: str, resource: str) -> Sequence[Need]:
    return [Need(BY_RESOURCE_POLICY[service], resource)]


LOOKS: Final[Mapping[str, Callable[[Services, str], Awaitable[Found | None]]]] = {
    "lambda": _function,
    "sqs": _queue,
    "sns": _topic,
    "logs": _log_group,
}
"""By service, how the resource of an ARN is looked at: None for one that does not exist."""

KEY_TELLS: Final = {"sqs": Tells.UNKNOWN, "sns": Tells.NOTHING}
"""By service, what the key's policy learns of the source when EventBridge writes to an encrypted resource."""
