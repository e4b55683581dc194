"""A request document: the fields of a request as JSON, in manual calls, schedules and details of events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.reading.identity import given_id, short_id
from oms_events.triggers.request import REQUEST_FIELDS, TriggerType
from oms_events.triggers.start import Draft

CONTROL_FIELDS: Final = ("dry_run", "force_symbols", "override_config")
"""What a request document may say about how it runs."""

_OF_THE_DRAFT: Final = ("trigger_type", "correlation_id")
"""Fields of a request that a draft has beside the others."""
_FIELDS: Final[tuple[str, ...]] = tuple(name for name in REQUEST_FIELDS if name not in _OF_THE_DRAFT)
_KNOWN: Final = frozenset((*REQUEST_FIELDS, *CONTROL_FIELDS))


class Origin(NamedTuple):
    """What a source knows about a start besides its document."""

    trigger_type: TriggerType
    raw: Any
    time: str | None = None
    """When it started, where the document does not say it."""
    derived_id: str | None = None
    """The correlation id, where the document has none."""
    flow_id: str | None = None
    """That of its flow, and the event's own: longer than a correlation id may be, its digest."""
    cause_id: str | None = None
    ds: str | None = None
    detail: Any = None
    event: Any = None
    data: Mapping[str, Any] | None = None


def read_document(
    document: Mapping[str, Any], origin: Origin, *, unknown: Mapping[str, Any] | None = None
) -> tuple[Draft, list[Problem]]:
    """The draft of a request document, and what is wrong with how it says that symbols are forced.

    Null is the same as absent. Values stay as they came, also of wrong types: they are checked together with the
    others when the draft is completed. `unknown` is what else came.
    """
    given = {name: value for name, value in document.items() if value is not None}
    fields = {name: given[name] for name in _FIELDS if name in given}
    if origin.time is not None:
        fields.setdefault("trigger_time", origin.time)
    force, problems = _forced(given, fields)
    is_id_given = "correlation_id" in given
    correlation_id = given_id(given["correlation_id"]) if is_id_given else origin.derived_id
    others = {name: value for name, value in document.items() if name not in _KNOWN}
    draft = Draft(
        trigger_type=origin.trigger_type,
        raw=origin.raw,
        fields=fields,
        unknown={**others, **(unknown or {})},
        correlation_id=correlation_id,
        flow_id=None if origin.flow_id is None else short_id(origin.flow_id),
        ds=origin.ds,
        detail=origin.detail,
        event=origin.event,
        cause_id=None if origin.cause_id is None else short_id(origin.cause_id),
        dry_run=given.get("dry_run", False),
        force_symbols=force,
        override_config=given.get("override_config", {}),
        identity=origin.derived_id,
        is_id_given=is_id_given,
        is_timeless=not is_id_given and correlation_id is not None and "trigger_time" not in fields,
        data=origin.data,
    )
    return draft, problems


def _forced(given: Mapping[str, Any], fields: dict[str, Any]) -> tuple[Any, list[Problem]]:
    """`force_symbols`, which may be the symbols themselves: those go to the fields then."""
    force = given.get("force_symbols", False)
    if not isinstance(force, list):
        return force, []
    symbols = fields.get("symbols")
    fields["symbols"] = force
    if symbols is None or symbols == force:
        return True, []
    remedy = "symbols says others; give them once: in one of the two, and true in force_symbols"
    return True, [Problem(Code.INVALID_SYMBOLS, remedy, "force_symbols", force)]
