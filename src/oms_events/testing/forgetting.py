"""Events as they are read once the people in them are forgotten, to test upcasters and models with."""

from __future__ import annotations

from pydantic import BaseModel

from oms_events.eventstore.personal.sealed import json_bytes
from oms_events.eventstore.personal.walk import without_personal
from oms_events.eventstore.registry import EventName, EventRegistry


def read_when_forgotten(event: BaseModel, registry: EventRegistry, name: EventName | None = None) -> BaseModel:
    """The domain event that the registry reads of this one, once all that is personal in it was forgotten.

    `name` is the type and version that it was stored under, when the registry does not know its model any more.
    Raises `EventUnreadableError` when an upcaster, or the newest model, does not take the replacements:
    histories with such events could not be read any more. `ConfigurationError` for marks in error.
    """
    stored = registry.name_of(event) if name is None else name
    data = event.model_dump(mode="json", by_alias=True, round_trip=True)
    return registry.read(stored.type, stored.version, json_bytes(without_personal(event, data)))
