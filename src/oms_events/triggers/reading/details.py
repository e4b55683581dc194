"""The detail of an event, read by its row of the table: as a draft, or as what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.reading.documents import Origin, read_document
from oms_events.triggers.reading.event_table import EventReader, EventReaders, NothingToStart
from oms_events.triggers.reading.models import read_model, said
from oms_events.triggers.reading.results import Kind, Reading, nothing


def read_asked(row: EventReader, detail: Mapping[str, Any], origin: Origin, *, place: str, kind: Kind) -> Reading:
    """The start that a detail asks for; `place` is where it stands in what came in."""
    model = read_model(row.model, detail, place=place, missing=Code.INVALID_DETAIL)
    if isinstance(model, list):
        return Reading(problems=model, kind=kind, trigger_type=origin.trigger_type)
    try:
        asked = row.to_fields(model)
        if isinstance(asked, NothingToStart):
            return nothing(kind, origin.trigger_type, str(asked.reason))
        document = dict(asked)
    except Exception as error:  # Functions of users may raise anything
        remedy = f"what reads {row.detail_type!r} of {row.source!r} refuses it: {said(error)}"
        problem = Problem(Code.INVALID_DETAIL, remedy, place)
        return Reading(problems=[problem], kind=kind, trigger_type=origin.trigger_type)
    day = document.pop("ds", None)
    origin = origin._replace(detail=model, ds=origin.ds if day is None else day)
    draft, problems = read_document(document, origin, unknown=_unknown(model, detail))
    return Reading([draft], problems, kind, origin.trigger_type)


def unknown_event(table: EventReaders, field: str, value: str) -> Problem:
    """No row of the table reads this event."""
    remedy = f"no event that is known; known are: {table.known()}. Register yours with EventReaders.register"
    return Problem(Code.UNKNOWN_EVENT, remedy, field, value)


def _unknown(model: BaseModel, detail: Mapping[str, Any]) -> dict[str, Any]:
    fields = type(model).model_fields
    known = {*fields, *(str(field.validation_alias or field.alias) for field in fields.values())}
    return {name: value for name, value in detail.items() if name not in known}
