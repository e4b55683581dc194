"""Whatever came in, recognized by its shape and read as drafts of starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from oms_events.errors import InvalidEventError
from oms_events.events import EncodedEvent, encode
from oms_events.triggers.config import TriggerConfig
from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.reading import queue, s3, scheduled
from oms_events.triggers.reading.cloudevents import (
    has_cloudevent,
    is_cloudevent,
    read_cloudevent,
    read_wrapped_cloudevent,
)
from oms_events.triggers.reading.custom_events import DEFAULT_EVENTS, read_custom_event
from oms_events.triggers.reading.delayed import is_delayed, read_delayed
from oms_events.triggers.reading.envelopes import EventBridgeEvent, is_eventbridge_event
from oms_events.triggers.reading.event_table import EventReaders
from oms_events.triggers.reading.identity import known_id
from oms_events.triggers.reading.json_text import read_object
from oms_events.triggers.reading.manual import read_request_document
from oms_events.triggers.reading.models import read_model
from oms_events.triggers.reading.results import Reading

__all__ = ["Reading", "read_starts"]

_RECORDS: Final = "Records"
_WRAPPINGS: Final = 4
"""How often one input may be in another: SNS wraps one in a message, the delay queue one in an envelope."""


def read_starts(raw: object, *, config: TriggerConfig, events: EventReaders = DEFAULT_EVENTS) -> Reading:
    """The starts in what came in: a mapping, JSON text or bytes, or a CloudEvent of the SDK.

    Raises nothing, whatever it is: see `Reading` for what is wrong, and for what starts nothing.
    """
    return _Reader(config, events).read(raw, _WRAPPINGS)


@dataclass(frozen=True, slots=True)
class _Reader:
    config: TriggerConfig
    events: EventReaders

    def read(self, raw: object, wrappings: int) -> Reading:
        try:
            if not isinstance(raw, str | bytes | dict):
                raw = _structured(raw)
            # Lambda's limit is that of the batch, and ours that of one message.
            batch = raw["Records"] if isinstance(raw, dict) and queue.is_batch(raw) else None
        except Exception as error:  # What came in may do anything when it is looked at
            remedy = f"give one JSON object; this cannot be looked at: {type(error).__name__}"
            return Reading(problems=[Problem(Code.NOT_AN_OBJECT, remedy)])
        if isinstance(raw, Problem):
            return Reading(problems=[raw], kind="cloudevent", trigger_type="event")
        if batch is not None and wrappings == _WRAPPINGS:
            return self._read_batch(batch)
        document = read_object(raw, limit=self.config.max_input_bytes)
        if isinstance(document, list):
            return Reading(problems=document)
        return self._read_document(document, wrappings)

    def _read_batch(self, records: list[Mapping[str, Any]]) -> Reading:
        return queue.read_batch(records, lambda body: self.read(body, _WRAPPINGS - 1))

    def _read_document(self, document: Mapping[str, Any], wrappings: int) -> Reading:
        if wrappings < 0:
            remedy = f"more than {_WRAPPINGS} inputs in each other; send what is inside"
            return Reading(problems=[Problem(Code.UNKNOWN_SHAPE, remedy)])
        if _RECORDS in document:
            return self._read_records(document[_RECORDS], wrappings)
        if is_delayed(document):
            return read_delayed(document, lambda held: self._read_document(held, wrappings - 1))
        if is_cloudevent(document):
            return read_cloudevent(document, self.config, self.events)
        if is_eventbridge_event(document):
            return self._read_event(document)
        if queue.is_notification(document):
            return queue.read_notification(document, lambda text: self.read(text, wrappings - 1))
        if s3.is_test_event(document):
            return s3.read_test_event()
        return read_request_document(document)

    def _read_event(self, document: Mapping[str, Any]) -> Reading:
        told = scheduled.with_detail(document, limit=self.config.max_input_bytes)
        event = told if isinstance(told, list) else read_model(EventBridgeEvent, told)
        if isinstance(event, list):
            known = known_id(document.get("id"))
            return Reading(problems=event, kind="event", trigger_type="event", correlation_id=known)
        if event.source in scheduled.SOURCES and event.detail_type == scheduled.SCHEDULED_EVENT:
            return scheduled.read_scheduled(event, document)
        if event.source == s3.EVENTBRIDGE_SOURCE:
            return s3.read_object_event(event, document, self.config)
        if has_cloudevent(event):
            return read_wrapped_cloudevent(event, document, self.config, self.events)
        return read_custom_event(event, document, self.events)

    def _read_records(self, records: object, wrappings: int) -> Reading:
        if not isinstance(records, list) or not all(isinstance(record, Mapping) for record in records):
            remedy = "write a list of objects, as AWS sends them"
            return Reading(problems=[Problem(Code.WRONG_TYPE, remedy, _RECORDS, records)])
        # SNS begins the name with a capital letter.
        sources = {str(record.get("eventSource", record.get("EventSource"))) for record in records}
        source = sources.pop() if len(sources) == 1 else ""
        if source == s3.EVENT_SOURCE or not records:
            return s3.read_notification(records, self.config)
        if source == queue.SQS_SOURCE and wrappings == _WRAPPINGS:
            return self._read_batch(records)
        if source == queue.SQS_SOURCE:
            # What of it has to come again could not be told to its queue.
            remedy = "a batch of messages is no input of another; send what its messages have, each by itself"
            return Reading(problems=[Problem(Code.UNKNOWN_SHAPE, remedy, _RECORDS)], trigger_type="event")
        if source == queue.SNS_SOURCE:
            return queue.read_topic_records(records, lambda text: self.read(text, wrappings - 1))
        known = ", ".join((s3.EVENT_SOURCE, queue.SQS_SOURCE, queue.SNS_SOURCE))
        remedy = f"records of one source are known, which is one of {known}"
        return Reading(problems=[Problem(Code.UNKNOWN_SHAPE, remedy, f"{_RECORDS}.eventSource", source)])


def _structured(value: object) -> object:
    """An event of the SDK as its JSON; anything else as it is."""
    try:
        if not (isinstance(value, EncodedEvent) or hasattr(type(value), "get_attributes")):
            return value
        return encode(value).json
    except InvalidEventError as error:
        return Problem(Code.WRONG_TYPE, f"no CloudEvent: {error}", error.field)
    except Exception as error:  # What only looks like an event may do anything
        return Problem(Code.NOT_AN_OBJECT, f"no CloudEvent: {type(error).__name__}")
