"""Events of EventBridge that ask for an ingestion: the four of the preset `ingestion-triggers`, and users' own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import Field, StrictBool, StrictInt, StrictStr, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from oms_events.triggers.reading.details import read_asked, unknown_event
from oms_events.triggers.reading.documents import CONTROL_FIELDS, Origin
from oms_events.triggers.reading.envelopes import EventBridgeEvent
from oms_events.triggers.reading.event_table import (
    Asked,
    EventReader,
    EventReaders,
    NothingToStart,
)
from oms_events.triggers.reading.identity import known_id
from oms_events.triggers.reading.models import Date, InputModel, Texts
from oms_events.triggers.reading.partitions import day_of, fields_of, read_partitions, says_day
from oms_events.triggers.reading.results import Reading
from oms_events.triggers.request import REQUEST_FIELDS

_LIKE_A_DAY: Final = re.compile(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}")
_PARTITION_REMEDY: Final = (
    "its day, or all of it, is not understood; write ds=2026-09-09 or year=2026/month=09/day=09, or a symbol "
    "alone, or leave it out"
)


class IngestionDetail(InputModel):
    """What every detail may say: any field of a request, under its own name."""

    data_source: StrictStr | None = None
    data_type: StrictStr | None = None
    domain: StrictStr | None = None
    table_name: StrictStr | None = None
    symbols: Texts | None = None
    period: StrictStr | None = None
    interval: StrictStr | None = None
    file_format: StrictStr | None = None
    trigger_time: StrictStr | None = None
    correlation_id: StrictStr | None = None
    urgent: StrictBool | None = None
    reason: StrictStr | None = None
    """Why, for whoever reads logs."""


class ProcessingComplete(IngestionDetail):
    """`Processing Complete` of `transform.pipeline`: a partition is done, and may have to be ingested again."""

    partition: StrictStr | dict[str, StrictStr | StrictInt] | None = None
    """Which one: `ds=2026-09-09/symbol=AAPL`, an object of the same, or a day alone. One that says no day, symbol,
    domain or table, or a day that is none, is refused: it would ingest everything for today."""
    trigger_reingestion: StrictBool | None = None
    """Whether it is ingested again; the preset's rule passes only those on that say true."""

    @property
    def partitions(self) -> Mapping[str, str]:
        """The partition's parts; a day alone is `ds`."""
        if isinstance(self.partition, dict):
            return {name: str(value) for name, value in self.partition.items()}
        text = self.partition or ""
        if _LIKE_A_DAY.fullmatch(text):
            return {"ds": text}
        return read_partitions(text)


class UniverseUpdated(IngestionDetail):
    """`Universe Updated` of `symbol.universe`: symbols came and went; those that came are ingested."""

    added_symbols: Texts | None = None
    removed_symbols: Texts | None = None
    effective_date: Date | None = None
    immediate_ingestion: StrictBool | None = None
    """False: the next schedule is soon enough."""


class MarketClose(IngestionDetail):
    """`Market Close` of `market.events`: a market's day is over."""

    market: StrictStr | None = None
    """Which market, such as NYSE."""
    market_date: Date | None = Field(default=None, alias="date")
    close_time: StrictStr | None = None


class AdhocIngestion(IngestionDetail):
    """`Adhoc Ingestion` of `ops.manual`: somebody asks for it, with all that a manual call may say."""

    # Checked with the other fields when the draft is completed.
    dry_run: Any = None
    force_symbols: Any = None
    override_config: Any = None
    requested_by: StrictStr | None = None


def requested(detail: IngestionDetail) -> dict[str, Any]:
    """The request's fields that a detail has."""
    names = (*REQUEST_FIELDS, *CONTROL_FIELDS)
    given = {name: getattr(detail, name, None) for name in names}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


def _reingestion(detail: ProcessingComplete) -> Asked:
    if not detail.trigger_reingestion:
        return NothingToStart("trigger_reingestion is not true")
    partitions = detail.partitions
    fields, day = fields_of(partitions), day_of(partitions)
    if detail.partition and day is None and (not fields or says_day(partitions)):
        wrong = PydanticCustomError("partition", _PARTITION_REMEDY)
        found: InitErrorDetails = {"type": wrong, "loc": ("partition",), "input": detail.partition}
        raise ValidationError.from_exception_data("ProcessingComplete", [found])
    asked = {name: value for name, value in requested(detail).items() if value not in (None, [])}
    return {**fields, **asked, "ds": day}


def _new_symbols(detail: UniverseUpdated) -> Asked:
    if detail.immediate_ingestion is False:
        return NothingToStart("immediate_ingestion is false")
    asked = requested(detail)
    symbols = list(detail.added_symbols or ()) or asked["symbols"]
    # Without this an update that adds nothing would ingest all there is.
    return {**asked, "symbols": symbols} if symbols else NothingToStart("no symbols were added")


PRESET_EVENTS: Final = (
    EventReader("transform.pipeline", "Processing Complete", ProcessingComplete, _reingestion),
    EventReader("symbol.universe", "Universe Updated", UniverseUpdated, _new_symbols),
    EventReader("market.events", "Market Close", MarketClose, requested),
    EventReader("ops.manual", "Adhoc Ingestion", AdhocIngestion, requested),
)

DEFAULT_EVENTS: Final = EventReaders(PRESET_EVENTS, closed=True)
"""The four of the preset. It takes no others: `EventReaders(DEFAULT_EVENTS)` does."""


def read_custom_event(event: EventBridgeEvent, raw: Mapping[str, Any], events: EventReaders) -> Reading:
    """The start that an event asks for, by its source and detail type; its id is the event's, if it says none."""
    row = events.find(event.source, event.detail_type)
    if row is None:
        problem = unknown_event(events, "detail-type", f"{event.source}: {event.detail_type}")
        return Reading(problems=[problem], kind="event", trigger_type="event", correlation_id=known_id(event.id))
    derived = known_id(event.id)
    origin = Origin("event", raw, time=event.time, derived_id=derived, cause_id=event.id)
    return read_asked(row, event.detail, origin, place="detail", kind="event")
