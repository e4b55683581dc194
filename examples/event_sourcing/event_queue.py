"""The queue behind the rule of the event bus, as the preset `event-sourcing` has it."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from typing import Any, Final, NamedTuple

_PATIENCE: Final = 60.0
"""Seconds that a delivery may take: the bus follows the outbox, which follows the events."""


class Delivered(NamedTuple):
    """An event as the bus delivered it."""

    source: str
    detail_type: str


class EventQueue:
    """Messages of the queue; it takes out only those it is asked for."""

    def __init__(self, sqs: Any, url: str) -> None:
        self._sqs = sqs
        self._url = url

    async def receive(self, ids: Collection[str]) -> dict[str, Delivered]:
        """The events of these ids, as far as they come. An event bus may deliver one twice, and in any order."""
        found: dict[str, Delivered] = {}
        deadline = time.monotonic() + _PATIENCE
        while not found.keys() >= set(ids) and time.monotonic() < deadline:
            answer = await self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10, WaitTimeSeconds=5)
            for message in answer.get("Messages", ()):
                event = json.loads(message["Body"])
                event_id = event["detail"].get("cloudEvents", {}).get("id")
                if event_id in ids:
                    found[event_id] = Delivered(event["source"], event["detail-type"])
                    await self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        return found
