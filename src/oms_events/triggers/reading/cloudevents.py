"""CloudEvents that ask for an ingestion: from JetStream, or as this library puts them on EventBridge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from oms_events.errors import InvalidEventError
from oms_events.events import EncodedEvent, encode, is_json_type, parse_event
from oms_events.publishers.eventbridge.mapping import from_eventbridge_event
from oms_events.triggers.config import TriggerConfig
from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.reading.details import read_asked, unknown_event
from oms_events.triggers.reading.documents import Origin, read_document
from oms_events.triggers.reading.envelopes import EventBridgeEvent
from oms_events.triggers.reading.event_table import EventReader, EventReaders
from oms_events.triggers.reading.identity import escaped, event_id
from oms_events.triggers.reading.json_text import read_object
from oms_events.triggers.reading.misspelling import misspelt
from oms_events.triggers.reading.results import Reading

_WRAPPED: Final = "cloudEvents"
"""What this library's mapping calls the event in a detail."""
_FLOW: Final = "correlationid"


def is_cloudevent(document: Mapping[str, Any]) -> bool:
    """Whether it has the shape of a structured CloudEvent."""
    return "specversion" in document


def has_cloudevent(event: EventBridgeEvent) -> bool:
    """Whether an event of EventBridge has a CloudEvent in its detail, in either mapping of this library."""
    inner = event.detail.get(_WRAPPED)
    return isinstance(inner, Mapping) and is_cloudevent(inner)


def read_cloudevent(raw: Mapping[str, Any], config: TriggerConfig, events: EventReaders) -> Reading:
    """The start that a structured CloudEvent asks for."""
    event = _encoded(raw, wrapped=False)
    if isinstance(event, Problem):
        return _broken(event, correlation_id=_known_id(raw))
    return _read(event, raw, None, config, events, place="data")


def read_wrapped_cloudevent(
    envelope: EventBridgeEvent, raw: Mapping[str, Any], config: TriggerConfig, events: EventReaders
) -> Reading:
    """The start that the CloudEvent in an event of EventBridge asks for.

    Source and detail type of the envelope say what it is where they are known, else the event's own type: a
    configured mapping may have changed either.
    """
    event = _encoded(raw, wrapped=True)
    if isinstance(event, Problem):
        return _broken(event, correlation_id=_known_id(envelope.detail[_WRAPPED]))
    row = events.find(envelope.source, envelope.detail_type)
    return _read(event, raw, row, config, events, place="detail")


def _read(
    event: EncodedEvent,
    raw: Mapping[str, Any],
    row: EventReader[Any] | None,
    config: TriggerConfig,
    events: EventReaders,
    *,
    place: str,
) -> Reading:
    row = row or events.find(event.source, event.type) or events.find_type(event.type, event.source)
    data = _data(event, config)
    if isinstance(data, list):
        return _broken(*data, correlation_id=event_id(event.source, event.id))
    flow = event.attributes.get(_FLOW)
    origin = Origin(
        "event",
        raw,
        time=_time(event),
        # What makes this event unique, and not its flow's id: two events of one flow are two starts.
        derived_id=event_id(event.source, event.id),
        flow_id=flow if flow is None or (isinstance(flow, str) and flow.isprintable()) else escaped(str(flow)),
        cause_id=event.id,
        event=event,
    )
    if row is not None:
        return read_asked(row, data, origin, place=place, kind="cloudevent")
    if not is_ingestion(data):
        problem = unknown_event(events, "type", f"{event.source}: {event.type}")
        return _broken(problem, correlation_id=origin.derived_id)
    draft, problems = read_document(data, origin)
    problems += misspelt(draft.unknown, place=place)
    return Reading([draft], problems, "cloudevent", "event")


def is_ingestion(data: Mapping[str, Any]) -> bool:
    """Whether an event's data is itself a request: it says what triggered it, or its domain and table."""
    return "trigger_type" in data or ("domain" in data and "table_name" in data)


def _encoded(raw: Mapping[str, Any], *, wrapped: bool) -> EncodedEvent | Problem:
    try:
        return encode(from_eventbridge_event(raw) if wrapped else parse_event(raw))
    except InvalidEventError as error:
        return Problem(Code.WRONG_TYPE, f"no CloudEvent: {error}", error.field)


def _data(event: EncodedEvent, config: TriggerConfig) -> dict[str, Any] | list[Problem]:
    data = event.data
    if data is None:
        return {}
    content_type = event.attributes.get("datacontenttype")
    if isinstance(data, str | bytes) and (content_type is None or is_json_type(content_type)):
        return read_object(data, limit=config.max_input_bytes)
    if isinstance(data, dict):
        return data
    return [Problem(Code.WRONG_TYPE, "an event that starts something has an object as its data", "data", data)]


def _time(event: EncodedEvent) -> str | None:
    time = event.attributes.get("time")
    return None if time is None else str(time.isoformat()).replace("+00:00", "Z")


def _known_id(event: Mapping[str, Any]) -> str | None:
    source, identifier = event.get("source"), event.get("id")
    is_known = isinstance(source, str) and isinstance(identifier, str) and source and identifier
    return event_id(str(source), str(identifier)) if is_known else None


def _broken(*problems: Problem, correlation_id: str | None) -> Reading:
    return Reading(problems=problems, kind="cloudevent", trigger_type="event", correlation_id=correlation_id)
