"""Functions, queues, topics and log groups that EventBridge hands events to: are they there, do they let it?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from oms_events.provisioning.checks.permits import Request, Verdict, decide
from oms_events.provisioning.checks.report import Finding, Level, ok, problem, some, unchecked, warning
from oms_events.provisioning.checks.services import Services
from oms_events.provisioning.specs.buses import EVENTS_SERVICE
from oms_events.provisioning.specs.targets import BY_RESOURCE_POLICY

_DEAD_LETTERS: Final = "dead letters"
_MESSAGES: Final = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
_AWS_KEY: Final = "alias/aws/"

_Fault = tuple[Level, str, str]


@dataclass(frozen=True, slots=True)
class Use:
    """Who has EventBridge use a resource: a rule or a bus (`source`, its ARN), as a target or for dead letters."""

    user: str
    source: str
    role: str | None = None
    for_dead_letters: bool = False


def name_of(arn: str) -> str:
    """What findings call a resource: service and name."""
    service, name = arn.split(":")[2], arn.split(":", 5)[5]
    return f"{service} {name.removeprefix('function:').removeprefix('log-group:').removesuffix(':*')}"


def area_of(uses: Sequence[Use]) -> str:
    """Where its findings belong: a queue that has dead letters among others counts as theirs."""
    return _DEAD_LETTERS if any(use.for_dead_letters for use in uses) else "targets"


async def check_resource(services: Services, arn: str, uses: Sequence[Use]) -> AsyncIterator[Finding]:
    """Looks at one resource for all who use it."""
    service = arn.split(":")[2]
    look = _LOOKS.get(service)
    area = area_of(uses)
    if look is None:
        yield unchecked(
            area,
            name_of(arn),
            f"targets of the service {service} are not looked at",
            "look yourself whether it exists",
        )
        return
    found = await look(services, arn)
    users = some(use.user for use in uses)
    if found is None:
        yield problem(area, name_of(arn), "does not exist", f"make it, or change {users}")
        return
    faults = [Finding(area, name_of(arn), *fault) for fault in found.faults]
    findings = [*faults, *_permissions(area, arn, uses, found)]
    if not findings:
        yield ok(area, name_of(arn), f"exists{found.state}, and {users} may use it")
    for finding in findings:
        yield finding
    if found.waiting and area == _DEAD_LETTERS:
        yield warning(
            area,
            name_of(arn),
            f"holds what was not delivered, messages: {found.waiting}",
            "read why in their attributes, mend it, and send them again or delete them",
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """A resource that exists. Any of its policies may allow, `resource` is what they call it.

    `faults` are level, message and remedy; `waiting` is the number of messages in it.
    """

    resource: str
    policies: Sequence[str | None]
    faults: Sequence[_Fault] = ()
    state: str = ""
    waiting: int = 0


def _permissions(area: str, arn: str, uses: Sequence[Use], found: _Found) -> Iterator[Finding]:
    action = BY_RESOURCE_POLICY[arn.split(":")[2]]
    refused: dict[Verdict, list[str]] = {Verdict.DENIED: [], Verdict.UNCLEAR: []}
    for use in uses:
        if use.role is not None:
            continue
        request = Request(EVENTS_SERVICE, action, found.resource, use.source)
        verdicts = {decide(policy, request) for policy in found.policies}
        if Verdict.ALLOWED not in verdicts:
            refused[Verdict.UNCLEAR if Verdict.UNCLEAR in verdicts else Verdict.DENIED].append(use.user)
    if users := refused[Verdict.DENIED]:
        yield problem(
            area,
            name_of(arn),
            f"its policy does not let EventBridge use it for {some(users)}",
            f"allow {action} to {EVENTS_SERVICE}, with their ARNs as aws:SourceArn",
        )
    if users := refused[Verdict.UNCLEAR]:
        yield unchecked(
            area,
            name_of(arn),
            f"its policy has conditions that only AWS can decide, for {some(users)}",
            f"look yourself whether it allows {action} to {EVENTS_SERVICE}",
        )


async def _function(services: Services, arn: str) -> _Found | None:
    # Of a version or an alias, the policy is asked by its qualifier.
    parts = arn.split(":")
    which = {"FunctionName": ":".join(parts[:7])} | ({"Qualifier": parts[7]} if len(parts) > 7 else {})
    described = await services.find("lambda", "GetFunctionConfiguration", **which)
    if described is None:
        return None
    policy = await services.find("lambda", "GetPolicy", **which)
    document = None if policy is None else policy["Policy"]
    return _Found(arn, [document], tuple(_function_faults(described)), state=f" ({described.get('State')})")


def _function_faults(described: Mapping[str, Any]) -> Iterator[_Fault]:
    for field, good in (("State", "Active"), ("LastUpdateStatus", "Successful")):
        value = described.get(field, good)
        if value != good:
            reason = described.get(f"{field}Reason") or "no reason given"
            level = Level.PROBLEM if value == "Failed" else Level.WARNING
            remedy = "deploy its code again" if value == "Failed" else f"wait until it is {good}, and check again"
            yield level, f"{field} is {value}: {reason}", remedy


async def _queue(services: Services, arn: str) -> _Found | None:
    account, name = arn.split(":")[4:6]
    at = await services.find("sqs", "GetQueueUrl", QueueName=name, QueueOwnerAWSAccountId=account)
    if at is None:
        return None
    # "All" takes no more rights than one of them.
    answer = await services.find("sqs", "GetQueueAttributes", QueueUrl=at["QueueUrl"], AttributeNames=["All"])
    if answer is None:
        return None
    attributes = answer.get("Attributes", {})
    waiting = sum(int(attributes.get(name, 0)) for name in _MESSAGES)
    return _Found(arn, [attributes.get("Policy")], tuple(_key_faults(attributes)), waiting=waiting)


async def _topic(services: Services, arn: str) -> _Found | None:
    answer = await services.find("sns", "GetTopicAttributes", TopicArn=arn)
    if answer is None:
        return None
    attributes = answer["Attributes"]
    return _Found(arn, [attributes.get("Policy")], tuple(_key_faults(attributes)))


def _key_faults(attributes: Mapping[str, str]) -> Iterator[_Fault]:
    key = attributes.get("KmsMasterKeyId", "")
    if key.startswith(_AWS_KEY):
        yield (
            Level.PROBLEM,
            f"is encrypted with {key}, which EventBridge may not use",
            f"use a key of your own whose policy lets {EVENTS_SERVICE} use it, or the service's own encryption",
        )


async def _log_group(services: Services, arn: str) -> _Found | None:
    group = arn.removesuffix(":*")
    name = group.split(":", 6)[6]
    async for found in services.each("logs", "DescribeLogGroups", "logGroups", logGroupNamePrefix=name):
        if found["logGroupName"] == name:
            policies = services.each("logs", "DescribeResourcePolicies", "resourcePolicies")
            documents = [policy["policyDocument"] async for policy in policies]
            return _Found(f"{group}:log-stream:any", documents)
    return None


_LOOKS: Final = {"lambda": _function, "sqs": _queue, "sns": _topic, "logs": _log_group}
