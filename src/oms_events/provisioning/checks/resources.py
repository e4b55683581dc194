"""Functions, queues, topics and log groups that EventBridge hands events to: are they there, do they let it?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from oms_events.provisioning.checks.keys import key_faults
from oms_events.provisioning.checks.looks import KEY_TELLS, LOOKS, Found
from oms_events.provisioning.checks.permits import Verdict, by_events, decide
from oms_events.provisioning.checks.report import Fault, Finding, Level, ok, problem, some, unchecked, warning
from oms_events.provisioning.checks.services import Services
from oms_events.provisioning.specs.buses import EVENTS_SERVICE

_DEAD_LETTERS: Final = "dead letters"
_FIFO: Final = ".fifo"


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
    area, name = area_of(uses), name_of(arn)
    look = LOOKS.get(service)
    if look is None:
        message = f"targets of the service {service} are not looked at"
        yield unchecked(area, name, message, "look yourself whether it exists")
        return
    if far := _users(use for use in uses if use.source.split(":")[3] != arn.split(":")[3]):
        # "The targets you associate with a rule must be in the same Region as the rule" (AWS Knowledge Center).
        message = f"is in {arn.split(':')[3]}, where EventBridge does not reach it for {far}"
        yield problem(
            area, name, message, "use one in the Region of the bus, or forward the events to a bus there"
        )
        return
    found = await look(services, arn)
    if found is None:
        yield problem(area, name, "does not exist", f"make it, or change {_users(uses)}")
        return
    # The policies of log groups decide whatever role the target has (EventBridge user guide, "Using
    # resource-based policies").
    by_policy = [use for use in uses if use.role is None or service == "logs"]
    faults = [
        *found.faults,
        *_unfit(arn, uses),
        *_permissions(found, by_policy),
        *(await _key(services, arn, found, by_policy, uses)),
    ]
    if not faults:
        yield ok(area, name, f"exists{found.state}, and {_users(uses)} may use it")
    for fault in faults:
        yield Finding(area, name, *fault)
    if found.waiting and area == _DEAD_LETTERS:
        yield warning(
            area,
            name,
            f"holds what was not delivered, messages: {found.waiting}",
            "read why in their attributes, mend it, and send them again or delete them",
        )


def _unfit(arn: str, uses: Sequence[Use]) -> Iterator[Fault]:
    """EventBridge user guide: "Event bus targets", "Using dead-letter queues"."""
    if arn.endswith(_FIFO) and arn.split(":")[2] == "sns":
        yield Level.PROBLEM, "is a FIFO topic, which EventBridge does not publish to", "use a standard topic"
    if arn.endswith(_FIFO) and (users := _users(use for use in uses if use.for_dead_letters)):
        message = f"is a FIFO queue, which EventBridge does not use for dead letters, of {users}"
        yield Level.PROBLEM, message, "use a standard queue"


def _permissions(found: Found, uses: Sequence[Use]) -> Iterator[Fault]:
    refused: dict[Verdict, list[Use]] = {}
    actions: dict[Verdict, dict[str, None]] = {}
    for use in uses:
        for need in found.needs:
            request = by_events(need.action, need.resource, use.source, tells=need.tells)
            verdict = decide(request, *found.policies)
            refused.setdefault(verdict, []).append(use)
            actions.setdefault(verdict, {})[need.action] = None
    if users := refused.get(Verdict.DENIED):
        message = f"its policy does not let EventBridge use it for {_users(users)}"
        allow = " and ".join(actions[Verdict.DENIED])
        yield Level.PROBLEM, message, f"allow {allow} to {EVENTS_SERVICE}, with their ARNs as aws:SourceArn"
    if users := refused.get(Verdict.UNCLEAR):
        message = f"its policy has conditions that only AWS can decide, for {_users(users)}"
        look = " and ".join(actions[Verdict.UNCLEAR])
        yield Level.NOT_CHECKED, message, f"look yourself whether it allows {look} to {EVENTS_SERVICE}"


async def _key(
    services: Services, arn: str, found: Found, by_policy: Sequence[Use], uses: Sequence[Use]
) -> Sequence[Fault]:
    if not found.key:
        return []
    sources = {use.user: use.source for use in by_policy}
    faults = await key_faults(services, found.key, arn, sources, KEY_TELLS[arn.split(":")[2]])
    if roles := _users(use for use in uses if use not in by_policy):
        message = f"whether the role of {roles} may use its key {found.key} is not looked at"
        look = (Level.NOT_CHECKED, message, "look yourself: it needs kms:GenerateDataKey and kms:Decrypt")
        return [*faults, look]
    return faults


def _users(uses: Sequence[Use] | Iterator[Use]) -> str:
    return some(use.user for use in uses)
