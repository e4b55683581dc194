"""Direct calls, and request documents that say themselves what triggered them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from oms_events._config import suggestion
from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.reading.documents import CONTROL_FIELDS, Origin, read_document
from oms_events.triggers.reading.event_table import same_source
from oms_events.triggers.reading.misspelling import misspelt
from oms_events.triggers.reading.models import read_model
from oms_events.triggers.reading.partitions import day_of, fields_of
from oms_events.triggers.reading.results import Kind, Reading
from oms_events.triggers.reading.s3 import NamedObject, S3Object, id_of, named_object
from oms_events.triggers.reading.scheduled import transformed_run
from oms_events.triggers.request import REQUEST_FIELDS, TRIGGER_TYPES, TriggerType

_BUCKET, _KEY, _SEQUENCER, _SOURCE = "bucket", "key", "sequencer", "source"
_KNOWN: Final = frozenset((*REQUEST_FIELDS, *CONTROL_FIELDS, _BUCKET))
_KINDS: Final[Mapping[TriggerType, Kind]] = {
    "manual": "manual", "schedule": "scheduled", "event": "event", "s3": "s3",
}  # fmt: skip


def read_request_document(raw: Mapping[str, Any]) -> Reading:
    """The start of a request document: `trigger_type` says of which kind, and without it somebody made it.

    An object may be empty: all comes from the defaults then. One that has names, and none that is known, is
    `UNKNOWN_SHAPE`: a misspelt `symbols` would ingest everything. So is a misspelling of it beside known names.
    """
    if raw and _KNOWN.isdisjoint(raw):
        return Reading(problems=[_unknown_shape(raw)])
    trigger_type = raw.get("trigger_type")
    if trigger_type is None:
        trigger_type = "manual"
    if trigger_type not in TRIGGER_TYPES:
        remedy = f"give one of {', '.join(TRIGGER_TYPES)}, or leave it out: then it is manual"
        return Reading(problems=[Problem(Code.WRONG_TYPE, remedy, "trigger_type", trigger_type)])
    named, problems = _named_object(raw)
    document = dict(raw)
    if isinstance(document.get(_SOURCE), str):
        document[_SOURCE] = same_source(document[_SOURCE])
    origin = Origin(trigger_type, raw)
    if trigger_type != "manual":
        origin = origin._replace(derived_id=transformed_run({**raw, "trigger_type": trigger_type}))
    if named is not None:
        document.pop(_KEY, None)
        document[_BUCKET] = named.bucket
    if isinstance(named, S3Object):
        del document[_BUCKET]
        document.pop(_SEQUENCER, None)
        told = fields_of(named.partitions)
        document = {**told, **{name: value for name, value in document.items() if value is not None}}
        origin = origin._replace(detail=named, ds=day_of(named.partitions))
        if trigger_type == "s3":
            origin = origin._replace(derived_id=id_of(named) or origin.derived_id)
    draft, more = read_document(document, origin)
    more += misspelt(draft.unknown)
    return Reading([draft], [*problems, *more], _KINDS[draft.trigger_type], draft.trigger_type)


def _named_object(raw: Mapping[str, Any]) -> tuple[S3Object | NamedObject | None, list[Problem]]:
    if raw.get(_BUCKET) is None:
        return None, []
    named = read_model(NamedObject, raw)
    if isinstance(named, list):
        return None, named
    if named.key is None:
        return named, []
    time = raw.get("trigger_time")
    time = time if isinstance(time, str) else None
    return named_object(named.bucket, named.key, sequencer=named.sequencer, event_time=time), []


def _unknown_shape(raw: Mapping[str, Any]) -> Problem:
    hints = (suggestion(name[:100], _KNOWN) for name in list(raw)[:20])
    hint = next((hint for hint in hints if hint), f"a request has some of {', '.join(REQUEST_FIELDS)}")
    names = ", ".join(list(raw)[:10])
    return Problem(Code.UNKNOWN_SHAPE, f"no input that is known; {hint}", value=names)
