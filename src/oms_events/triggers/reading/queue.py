"""Batches of SQS messages as Lambda gets them, and what SNS wraps: each message may be any input that is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

from pydantic import Field, StrictStr

from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.reading.identity import derived_id, escaped
from oms_events.triggers.reading.json_text import read_object
from oms_events.triggers.reading.models import InputModel, joined, read_model
from oms_events.triggers.reading.results import MAX_RECORDS, Reading, together, too_many
from oms_events.triggers.start import Draft, Queued

SQS_SOURCE: Final = "aws:sqs"
SNS_SOURCE: Final = "aws:sns"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOTIFICATION: Final = "Notification"

MAX_MESSAGES: Final = 10_000
"""What a batch has at most ("Using Lambda with Amazon SQS", Lambda guide)."""
_READ: Final = ("messageId", "receiptHandle", "body", "attributes", "eventSourceARN")
_MAX_RECORD: Final = 65_536
"""Bytes of a record besides its body: ids, a handle, and attributes of SQS itself."""
_NAMED: Final = 20
"""Problems of records without an id that are named."""

ReadText = Callable[[str], Reading]


class SqsRecord(InputModel):
    """A message in the `Records` of an SQS batch ("Using Lambda with Amazon SQS", Lambda guide)."""

    message_id: StrictStr = Field(alias="messageId", min_length=1)
    receipt_handle: StrictStr = Field(default="", alias="receiptHandle")
    body: StrictStr
    attributes: dict[str, Any] = Field(default_factory=dict)
    queue_arn: Any = Field(default="", alias="eventSourceARN")

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
            queue_arn=self.queue_arn if isinstance(self.queue_arn, str) else "",
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


def is_batch(value: Mapping[Any, Any]) -> bool:
    """Whether it is a batch of messages as Lambda hands it over: a dict, with text in the places looked at."""
    records = value.get("Records")
    return (
        isinstance(records, list)
        and len(records) > 0
        and all(isinstance(record, dict) and record.get("eventSource") == SQS_SOURCE for record in records)
    )


def read_batch(records: list[Mapping[str, Any]], read: ReadText) -> Reading:
    """One reading per message; `read` reads a body, and its limit is that of a body.

    A message that is in it twice is read once: standard queues may do that. A record that is no message must not
    be lost: its reading is `FAILED`, under its id where it has one, else under the empty one.
    """
    if len(records) > MAX_MESSAGES:
        return too_many("queue", "event", "Records", len(records), MAX_MESSAGES)
    messages: dict[str, Reading] = {}
    for at, record in enumerate(records):
        message = _message(record, f"Records.{at}")
        if isinstance(message, SqsRecord):
            if message.message_id not in messages:
                messages[message.message_id] = _read_message(message, read)
            continue
        given = record.get("messageId")
        name = str.__str__(given) if isinstance(given, str) and given.isprintable() else ""
        broken = messages.setdefault(name, _no_message(name))
        if broken.queued is None and len(broken.problems) <= _NAMED:
            messages[name] = broken._replace(problems=[*broken.problems, *message])
    return Reading(kind="queue", trigger_type="event", messages=messages)


def _message(record: Mapping[str, Any], place: str) -> SqsRecord | list[Problem]:
    given = {name: record.get(name) for name in _READ if name in record}
    body = given.pop("body", None)
    # The body is copied when it is read, under the limit of an input.
    copied = read_object(given, limit=_MAX_RECORD)
    if isinstance(copied, list):
        return copied
    return read_model(SqsRecord, {**copied, "body": body}, place=place)


def _no_message(name: str) -> Reading:
    remedy = "a record that is no message of SQS; it stays in its queue"
    problem = Problem(Code.FAILED, remedy, "Records.messageId", name or None)
    correlation_id = derived_id(escaped(name)) if name else None
    return Reading([], [problem], "queue", "event", correlation_id=correlation_id, is_wrapped=True)


def is_notification(document: Mapping[str, Any]) -> bool:
    """Whether it is a message of SNS."""
    return document.get("Type") == _NOTIFICATION and "Message" in document


def read_notification(document: Mapping[str, Any], read: ReadText, *, place: str = "") -> Reading:
    """What is in a message of SNS."""
    message = read_model(SnsNotification, document, place=place)
    if isinstance(message, list):
        return Reading(problems=message, kind="notification", trigger_type="event")
    reading = read(message.message)
    return _told(reading, message.message_id, message.timestamp)._replace(is_wrapped=True)


def read_topic_records(records: list[Mapping[str, Any]], read: ReadText) -> Reading:
    """What is in the messages of SNS that Lambda got."""
    if len(records) > MAX_RECORDS:
        return too_many("notification", "event", "Records", len(records))
    readings: list[Reading] = []
    starts = 0
    for at, record in enumerate(records):
        place = f"Records.{at}"
        wrapped = read_model(SnsRecord, record, place=place)
        if isinstance(wrapped, list):
            readings.append(Reading(problems=wrapped, kind="notification", trigger_type="event", is_wrapped=True))
        else:
            readings.append(read_notification(wrapped.sns, read, place=joined(place, "Sns")))
        starts += max(len(readings[-1].parts), len(readings[-1].drafts), 1)
        if starts > MAX_RECORDS:
            return too_many("notification", "event", "Records", starts)
    return together(readings, "notification", readings[0].trigger_type if readings else "event")._replace(
        is_wrapped=True
    )


def _read_message(message: SqsRecord, read: ReadText) -> Reading:
    reading = _told(read(message.body), message.message_id, message.sent_at)
    queued = message.queued
    reading = reading.with_drafts(lambda draft: dataclasses.replace(draft, queued=queued))
    return reading._replace(queued=queued, is_wrapped=True)


def _told(reading: Reading, message_id: str | None, time: str | None) -> Reading:
    """The drafts with an id and a time from the message, where they have none of their own.

    A message that is delivered again has the same: without them a manual call in a queue would run twice.
    """
    several = bool(reading.parts) or len(reading.drafts) > 1
    numbers = count()

    def tell(draft: Draft) -> Draft:
        at = next(numbers)
        return _told_draft(draft, message_id and (f"{message_id}.{at}" if several else message_id), time)

    told = reading.with_drafts(tell)
    is_stopped = bool(told.problems) or not (told.drafts or told.parts)
    if is_stopped and told.correlation_id is None and message_id is not None:
        told = told._replace(correlation_id=derived_id(escaped(message_id)))
    return told


def _told_draft(draft: Draft, message_id: str | None, time: str | None) -> Draft:
    if draft.correlation_id is None and message_id is not None:
        draft = dataclasses.replace(draft, correlation_id=derived_id(escaped(message_id)))
        draft = dataclasses.replace(draft, is_timeless=time is None and "trigger_time" not in draft.fields)
    if time is not None and "trigger_time" not in draft.fields:
        draft = dataclasses.replace(draft, fields={**draft.fields, "trigger_time": time})
    return draft


def _number(value: object) -> int | None:
    """SQS has numbers as text."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
