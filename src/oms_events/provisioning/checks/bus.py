"""The event bus: is it there, what becomes of what it cannot encrypt, and which events an archive keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from oms_events.provisioning.checks.caller import identify
from oms_events.provisioning.checks.keys import key_faults
from oms_events.provisioning.checks.matching import Matcher
from oms_events.provisioning.checks.permits import Tells
from oms_events.provisioning.checks.report import (
    Finding,
    Level,
    collected,
    ok,
    problem,
    some,
    unchecked,
    warning,
)
from oms_events.provisioning.checks.resources import Use, area_of, check_resource, name_of
from oms_events.provisioning.checks.services import Services

_ENABLED: Final = "ENABLED"
_FAILED: Final = ("CREATE_FAILED", "UPDATE_FAILED")


async def check_bus(services: Services, name: str) -> AsyncIterator[Finding]:
    """Whether the bus exists, and its dead-letter queue."""
    bus = await services.find("events", "DescribeEventBus", Name=name)
    if bus is None:
        account = name.split(":")[4] if name.startswith("arn:") else None
        if account is not None and account != (await identify(services)).account:
            message = f"is of another account, {account}, and cannot be looked at from here"
            yield unchecked("bus", name, message, "look with credentials of that account")
            return
        yield problem(
            "bus",
            name,
            "does not exist: EventBridge answers success to whoever sends events there, and drops them",
            f"make it (`oms-events infra apply oms --set event_bus_name={_bus_name(name)}`), or check "
            "event_bus_name and aws_region",
        )
        return
    yield ok("bus", name, f"exists ({bus['Arn']})")
    if key := bus.get("KmsKeyIdentifier"):
        for fault in await key_faults(services, key, bus["Arn"], {f"bus {name}": bus["Arn"]}, Tells.ALL):
            yield Finding("bus", name, *fault)
    queue = bus.get("DeadLetterConfig", {}).get("Arn")
    if queue is not None:
        uses = [Use(f"bus {name}", bus["Arn"], for_dead_letters=True)]
        for finding in await collected(area_of(uses), name_of(queue), check_resource(services, queue, uses)):
            yield finding
    elif key:
        yield warning(
            "bus",
            name,
            "has a key of its own and no dead-letter queue: events that it cannot encrypt are dropped",
            "give the bus a dead-letter queue",
        )


async def check_archives(services: Services, bus_arn: str, matcher: Matcher) -> AsyncIterator[Finding]:
    """Whether an archive of the bus is on, and which of the events it leaves out."""
    listed = services.each("events", "ListArchives", "Archives", EventSourceArn=bus_arn)
    archives = [archive async for archive in listed]
    if not archives:
        yield warning(
            "archive",
            _bus_name(bus_arn),
            "the bus has no archive: no event can be replayed",
            "make one, unless something else keeps the events",
        )
        return
    kept: set[int] = set()
    is_on = False
    for archive in archives:
        if archive["State"] != _ENABLED:
            yield _not_enabled(archive)
            continue
        is_on = True
        described = await services.call("events", "DescribeArchive", ArchiveName=archive["ArchiveName"])
        kept |= await matcher.taken(described.get("EventPattern") or None)
        days = archive.get("RetentionDays") or 0
        kept_for = f"for {days} days" if days else "for ever"
        yield ok("archive", archive["ArchiveName"], f"is {_ENABLED}, keeps events {kept_for}")
    if is_on and (missing := [one.name for place, one in enumerate(matcher.sent) if place not in kept]):
        yield warning(
            "archive",
            _bus_name(bus_arn),
            f"no archive's pattern takes {some(missing)}",
            "widen the pattern of an archive, if these events are to be replayed",
        )


def _not_enabled(archive: Mapping[str, Any]) -> Finding:
    state = archive["State"]
    reason = f" ({archive['StateReason']})" if archive.get("StateReason") else ""
    level = Level.PROBLEM if state in _FAILED else Level.WARNING
    remedy = "mend what the reason says, and deploy it again" if state in _FAILED else "see why it is not enabled"
    return Finding("archive", archive["ArchiveName"], level, f"is {state}{reason}, and keeps no event", remedy)


def _bus_name(arn: str) -> str:
    return arn.rpartition("/")[2]
