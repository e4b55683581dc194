"""Runs of a schedule: EventBridge's own scheduled event. An already transformed one is a request document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from oms_events.triggers.problems import Problem
from oms_events.triggers.reading.documents import Origin, read_document
from oms_events.triggers.reading.envelopes import EventBridgeEvent
from oms_events.triggers.reading.identity import derived_id, digest_of, escaped
from oms_events.triggers.reading.json_text import read_object
from oms_events.triggers.reading.models import joined
from oms_events.triggers.reading.results import Reading

SCHEDULED_EVENT: Final = "Scheduled Event"
SCHEDULER: Final = "aws.scheduler"
SOURCES: Final = ("aws.events", SCHEDULER)
"""Rules with a schedule, and EventBridge Scheduler."""


def read_scheduled(event: EventBridgeEvent, raw: Mapping[str, Any]) -> Reading:
    """The run of a schedule: all that is asked for comes from the defaults.

    Its correlation id is `{rule}:{time}`, which the preset's transformed event has too, with the bus or the
    group before the name where there is one.
    """
    rule = schedule_name(event.resources[0]) if event.resources else None
    if rule and event.time:
        run: str | None = derived_id(escaped(rule), ":", escaped(event.time))
    else:
        run = None if event.id is None else derived_id(escaped(event.id))
    origin = Origin("schedule", raw, time=event.time, derived_id=run, cause_id=event.id)
    draft, problems = read_document({}, origin, unknown=event.detail)
    return Reading([draft], problems, "scheduled", "schedule")


def transformed_run(document: Mapping[str, Any]) -> str | None:
    """The correlation id of a request document of a schedule or an event that has none.

    Its time and what it asks for. Without a time nothing tells a run from its redelivery: None.
    """
    time = document.get("trigger_time")
    if not isinstance(time, str) or not time:
        return None
    return derived_id(str(document["trigger_type"]), ":", escaped(time), ":", digest_of(document))


def with_detail(document: Mapping[str, Any], *, limit: int) -> Mapping[str, Any] | list[Problem]:
    """The event with its detail as an object, or what is wrong with it: EventBridge Scheduler sends it as text."""
    detail = document.get("detail")
    if document.get("source") != SCHEDULER or not isinstance(detail, str):
        return document
    read = read_object(detail, limit=limit)
    if isinstance(read, list):
        return [Problem(one.code, one.remedy, joined("detail", one.field or ""), one.value) for one in read]
    return {**document, "detail": read}


def schedule_name(resource: str) -> str:
    """What the ARN of a rule or of a schedule has after its type: names of one kind are only unique in it.

    A rule's name, with its bus before it where that is not the default one (`bus/rule`); a schedule's group and
    name (`group/schedule`).
    """
    last = resource.rpartition(":")[2]
    return last.partition("/")[2] or last
