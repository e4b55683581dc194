"""The detail of an event, read by its row of the table: as a draft, or as what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import AliasChoices, AliasPath, BaseModel, ValidationError

from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.reading.documents import Origin, read_document
from oms_events.triggers.reading.event_table import EventReader, EventReaders, NothingToStart
from oms_events.triggers.reading.identity import told_id
from oms_events.triggers.reading.misspelling import misspelt
from oms_events.triggers.reading.models import InputModel, problems_of, read_model
from oms_events.triggers.reading.results import Kind, Reading, nothing


def read_asked(
    row: EventReader[Any], detail: Mapping[str, Any], origin: Origin, *, place: str, kind: Kind
) -> Reading:
    """The start that a detail asks for; `place` is where it stands in what came in.

    A `ValueError` of what reads it says that it is wrong. Anything else is a fault of what reads it, or of what
    that needs: then it is `FAILED`, and only the error's name is told, as its text may hold secrets.
    """
    reading = Reading(kind=kind, trigger_type=origin.trigger_type, correlation_id=_id_of(detail, origin))
    reader = f"what reads {row.detail_type!r} of {row.source!r}"
    try:
        # A copy: validators may change what they look at, and what came in is kept as it came.
        model = read_model(row.model, _copied(detail), place=place, missing=Code.INVALID_DETAIL)
        if isinstance(model, list):
            return reading._replace(problems=model)
        asked = row.to_fields(model)
        if isinstance(asked, NothingToStart):
            nothing_asked = nothing(kind, origin.trigger_type, str(asked.reason))
            return nothing_asked._replace(correlation_id=reading.correlation_id)
        if not isinstance(asked, Mapping):
            raise TypeError(f"{reader} gives {type(asked).__name__}, and no fields")
        document = dict(asked)
    except ValidationError as error:
        return reading._replace(problems=problems_of(error, place, Code.INVALID_DETAIL))
    except ValueError as error:
        return reading._replace(problems=[Problem(Code.INVALID_DETAIL, f"{reader} refuses it: {error}", place)])
    except Exception as error:
        remedy = f"{reader} failed with {type(error).__name__}; the log has more. Try again later"
        return reading._replace(problems=[Problem(Code.FAILED, remedy, place)], error=error)
    day = document.pop("ds", None)
    origin = origin._replace(detail=model, data=detail, ds=origin.ds if day is None else day)
    unknown = _unknown(model, detail)
    draft, problems = read_document(document, origin, unknown=unknown)
    # Details of users' own models may have names that are like ours.
    if isinstance(model, InputModel):
        problems += misspelt(unknown, place=place)
    return Reading([draft], problems, kind, origin.trigger_type)


def _id_of(detail: Mapping[str, Any], origin: Origin) -> str | None:
    given = detail.get("correlation_id")
    return origin.derived_id if given is None else told_id(given)


def _copied(value: Any) -> Any:
    """A copy of JSON values, down to the last one."""
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def unknown_event(table: EventReaders, field: str, value: str) -> Problem:
    """No row of the table reads this event."""
    remedy = f"no event that is known; known are: {table.known()}. Register yours with EventReaders.register"
    return Problem(Code.UNKNOWN_EVENT, remedy, field, value)


def _unknown(model: BaseModel, detail: Mapping[str, Any]) -> dict[str, Any]:
    fields = type(model).model_fields
    known = {*fields}
    for field in fields.values():
        known.update(_names(field.validation_alias or field.alias))
    return {name: value for name, value in detail.items() if name not in known}


def _names(alias: str | AliasPath | AliasChoices | None) -> Iterator[str]:
    if isinstance(alias, AliasChoices):
        for choice in alias.choices:
            yield from _names(choice)
    elif isinstance(alias, AliasPath):
        yield str(alias.path[0])
    elif alias is not None:
        yield alias
