"""The OMS domain: its event types and builders, its default rules, its router and its event service."""

from __future__ import annotations

from oms_events.oms.builders import (
    EventOptions,
    create_action_event,
    create_branch_event,
    create_proposal_event,
    create_schema_change_event,
    create_system_event,
)
from oms_events.oms.catalogue import EventFamily, EventType
from oms_events.oms.data import (
    ActionData,
    BranchData,
    OmsContext,
    OmsData,
    ProposalData,
    SchemaChangeData,
    SystemData,
)
from oms_events.oms.environment import router_from_environment
from oms_events.oms.factory import create_oms_multi_platform_router
from oms_events.oms.outbox import create_oms_outbox_processor
from oms_events.oms.rules import default_rules
from oms_events.oms.service import EnhancedEventService, RouterFactory

__all__ = [
    "ActionData",
    "BranchData",
    "EnhancedEventService",
    "EventFamily",
    "EventOptions",
    "EventType",
    "OmsContext",
    "OmsData",
    "ProposalData",
    "RouterFactory",
    "SchemaChangeData",
    "SystemData",
    "create_action_event",
    "create_branch_event",
    "create_oms_multi_platform_router",
    "create_oms_outbox_processor",
    "create_proposal_event",
    "create_schema_change_event",
    "create_system_event",
    "default_rules",
    "router_from_environment",
]
