"""The envelope of EventBridge: what all its events have around their details."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, StrictStr

from oms_events.triggers.reading.models import InputModel, Texts


class EventBridgeEvent(InputModel):
    """An event as a target gets it ("EventBridge events", EventBridge user guide).

    Only what a start needs must be there, so that it may be written by hand.
    """

    source: StrictStr = Field(min_length=1)
    detail_type: StrictStr = Field(alias="detail-type", min_length=1)
    detail: dict[str, Any] = Field(default_factory=dict)
    id: StrictStr | None = Field(default=None, min_length=1)
    time: StrictStr | None = None
    resources: Texts = ()


def is_eventbridge_event(document: Mapping[str, Any]) -> bool:
    """Whether it has the shape of one."""
    return "detail-type" in document and "source" in document
