"""AWS EventBridge: CloudEvents to entries of a bus, and back."""

from __future__ import annotations

from oms_events.publishers.eventbridge.config import EventBridgeConfig
from oms_events.publishers.eventbridge.mapping import from_eventbridge_event
from oms_events.publishers.eventbridge.publisher import EventBridgePublisher

__all__ = ["EventBridgeConfig", "EventBridgePublisher", "from_eventbridge_event"]
