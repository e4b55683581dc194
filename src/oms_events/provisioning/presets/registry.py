"""The presets by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from oms_events.provisioning.presets.base import Preset
from oms_events.provisioning.presets.event_sourcing import EventSourcingPreset
from oms_events.provisioning.presets.ingestion_triggers import IngestionTriggersPreset
from oms_events.provisioning.presets.oms import OmsPreset
from oms_events.provisioning.presets.ticket_events import TicketEventsPreset
from oms_events.provisioning.presets.ticket_tables import TicketTablesPreset

PRESETS: Final[Mapping[str, type[Preset]]] = {
    "oms": OmsPreset,
    "ticket-events": TicketEventsPreset,
    "ticket-tables": TicketTablesPreset,
    "event-sourcing": EventSourcingPreset,
    "ingestion-triggers": IngestionTriggersPreset,
}
