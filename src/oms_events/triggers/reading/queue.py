"""Batches of SQS messages as Lambda gets them, and what SNS wraps: each message may be any input that is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import Field, StrictStr

from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.reading.identity import derived_id, escaped
from oms_events.triggers.reading.models import InputModel, joined, read_model
from oms_events.triggers.reading.results import Reading, together
from oms_events.triggers.start import Draft, Queued

SQS_SOURCE: Final = "aws:sqs"
SNS_SOURCE: Final = "aws:sns"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOTIFICATION: Final = "Notification"

ReadText = Callable[[str], Reading]


class SqsRecord(InputModel):
    """A message in the `Records` of an SQS batch ("Using Lambda with Amazon SQS", Lambda guide)."""

    message_id: StrictStr = Field(alias="messageId", min_length=1)
    receipt_handle: StrictStr = Field(default="", alias="receiptHandle")
    body: StrictStr
    attributes: dict[str, Any] = Field(default_factory=dict)

    @property
    def queued(self) -> Queued:
        """The message as guards know it."""
        count = _number(self.attributes.get("ApproximateReceiveCount"))
        group = self.attributes.get("MessageGroupId")
        return Queued(
            self.message_id,
            self.receipt_handle,
            receive_count=max(count or 1, 1),
            group=group if isinstance(group, str) else "",
        )

    @property
    def sent_at(self) -> str | None:
        """When it was put in the queue, in RFC 3339."""
        milliseconds = _number(self.attributes.get("SentTimestamp"))
        if milliseconds is None:
            return None
        try:
            sent = _EPOCH + timedelta(milliseconds=milliseconds)
        except OverflowError:
            return None
        return sent.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class SnsNotification(InputModel):
    """What SNS wraps a message in, in a queue's message or as `Sns` of a Lambda record."""

    message: StrictStr = Field(alias="Message")
    message_id: StrictStr | None = Field(default=None, alias="MessageId", min_length=1)
    timestamp: StrictStr | None = Field(default=None, alias="Timestamp")


class SnsRecord(InputModel):
    """A record of Lambda's own subscription to a topic."""

    sns: dict[str, Any] = Field(alias="Sns")


def read_messages(records: list[Mapping[str, Any]], read: ReadText) -> Reading:
    """One reading per message; `read` reads a body. A record that is no message spoils the batch."""
    problems: list[Problem] = []
    messages: dict[str, Reading] = {}
    for at, record in enumerate(records):
        place = f"Records.{at}"
        message = read_model(SqsRecord, record, place=place)
        if isinstance(message, list):
            problems += message
        elif message.message_id in messages:
            problem = Problem(
                Code.UNKNOWN_SHAPE, "two messages have this id", joined(place, "messageId"), message.message_id
            )
            problems.append(problem)
        else:
            messages[message.message_id] = _read_message(message, read)
    if problems:
        return Reading(problems=problems, kind="queue", trigger_type="event")
    return Reading(kind="queue", trigger_type="event", messages=messages)


def is_notification(document: Mapping[str, Any]) -> bool:
    """Whether it is a message of SNS."""
    return document.get("Type") == _NOTIFICATION and "Message" in document


def read_notification(document: Mapping[str, Any], read: ReadText, *, place: str = "") -> Reading:
    """What is in a message of SNS."""
    message = read_model(SnsNotification, document, place=place)
    if isinstance(message, list):
        return Reading(problems=message, kind="notification", trigger_type="event")
    reading = read(message.message)
    return _told(reading, message.message_id, message.timestamp)


def read_topic_records(records: list[Mapping[str, Any]], read: ReadText) -> Reading:
    """What is in the messages of SNS that Lambda got."""
    readings = []
    for at, record in enumerate(records):
        place = f"Records.{at}"
        wrapped = read_model(SnsRecord, record, place=place)
        if isinstance(wrapped, list):
            readings.append(Reading(problems=wrapped))
        else:
            readings.append(read_notification(wrapped.sns, read, place=joined(place, "Sns")))
    return together(readings, "notification", readings[0].trigger_type if readings else "event")


def _read_message(message: SqsRecord, read: ReadText) -> Reading:
    reading = _told(read(message.body), message.message_id, message.sent_at)
    queued = message.queued
    return reading._replace(drafts=[dataclasses.replace(draft, queued=queued) for draft in reading.drafts])


def _told(reading: Reading, message_id: str | None, time: str | None) -> Reading:
    """The drafts with an id and a time from the message, where they have none of their own.

    A message that is delivered again has the same: without them a manual call in a queue would run twice.
    """
    several = len(reading.drafts) > 1
    drafts = [
        _told_draft(draft, message_id and (f"{message_id}.{at}" if several else message_id), time)
        for at, draft in enumerate(reading.drafts)
    ]
    return reading._replace(drafts=drafts)


def _told_draft(draft: Draft, message_id: str | None, time: str | None) -> Draft:
    if draft.correlation_id is None and message_id is not None:
        draft = dataclasses.replace(draft, correlation_id=derived_id(escaped(message_id)))
    if time is not None and "trigger_time" not in draft.fields:
        draft = dataclasses.replace(draft, fields={**draft.fields, "trigger_time": time})
    return draft


def _number(value: object) -> int | None:
    """SQS has numbers as text."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
