"""The envelope in which a start waits on the delay queue: what came in, with its id and its first arrival."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from pydantic import StrictStr

from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.reading.identity import told_id
from oms_events.triggers.reading.models import InputModel, read_model
from oms_events.triggers.reading.queue import is_batch
from oms_events.triggers.reading.results import Reading
from oms_events.triggers.request import TriggerRequest
from oms_events.triggers.start import Draft

DELAYED: Final = "delayed_start"
VERSION: Final = 1


class DelayedStart(InputModel):
    """What is read of the envelope. `raw` is what came in first; id and time are those that the start had then."""

    version: Literal[1]
    raw: dict[str, Any]
    correlation_id: StrictStr
    trigger_time: StrictStr
    key: StrictStr | None = None


class DeliveredStart(InputModel):
    """What is read of an envelope without a correlation id, around the input of an earlier delivery.

    `raw` may hold several starts; those that say no id have `delivery_id`, as they had it then.
    """

    version: Literal[1]
    raw: dict[str, Any]
    delivery_id: StrictStr


def wrap_delayed(
    draft: Draft, request: TriggerRequest, *, key: str, delayed_at: str, reason: str
) -> dict[str, Any]:
    """The envelope of a start that was completed as `request`, under its idempotency `key`.

    Read again it gives the same draft with the request's correlation id and time, whenever that is. A start that
    came in an envelope gets a new one around what came in first. `delayed_at` is RFC 3339.
    """
    raw = draft.raw
    if isinstance(raw, Mapping) and isinstance(raw.get(DELAYED), Mapping):
        raw = raw[DELAYED]["raw"]
    return enveloped(
        raw,
        trigger_type=request.trigger_type,
        correlation_id=request.correlation_id,
        trigger_time=request.trigger_time,
        key=key,
        delayed_at=delayed_at,
        reason=reason,
    )


def enveloped(raw: Any, **said: str | None) -> dict[str, Any]:
    """The envelope around `raw`, with what is said of its start: `correlation_id` and `trigger_time`, or else
    `delivery_id`.
    """
    told = {name: value for name, value in said.items() if value is not None}
    return {DELAYED: {"version": VERSION, "raw": raw, **told}}


def wrap_delivered(
    raw: dict[str, Any], *, delivery_id: str, delayed_at: str | None, reason: str
) -> dict[str, Any]:
    """The envelope of an input that was delivered under this id; an envelope, or a batch of messages, as it is."""
    if DELAYED in raw or is_batch(raw):
        return raw
    return enveloped(raw, delivery_id=delivery_id, delayed_at=delayed_at, reason=reason)


def is_delayed(document: Mapping[str, Any]) -> bool:
    """Whether it is an envelope of the delay queue."""
    return DELAYED in document


def read_delayed(raw: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Reading]) -> Reading:
    """The start in an envelope; `read` reads what it holds."""
    envelope = raw[DELAYED]
    if isinstance(envelope, Mapping) and "delivery_id" in envelope and "correlation_id" not in envelope:
        return _read_delivered(envelope, read)
    held = read_model(DelayedStart, envelope, place=DELAYED)
    if isinstance(held, list):
        known = told_id(envelope.get("correlation_id")) if isinstance(envelope, Mapping) else None
        return Reading(problems=held, kind="delayed", correlation_id=known, is_wrapped=True)
    reading = read(held.raw)
    if reading.parts or len(reading.drafts) > 1:
        problem = Problem(
            Code.UNKNOWN_SHAPE, "an envelope holds one start; send each in its own", f"{DELAYED}.raw"
        )
        return Reading(
            problems=[problem],
            kind="delayed",
            trigger_type=reading.trigger_type,
            correlation_id=told_id(held.correlation_id),
            is_wrapped=True,
        )
    drafts = [
        dataclasses.replace(
            draft,
            raw=raw,
            correlation_id=held.correlation_id,
            fields={**draft.fields, "trigger_time": held.trigger_time},
            key=held.key,
            was_aside=True,
        )
        for draft in reading.drafts
    ]
    known = None if drafts and not reading.problems else told_id(held.correlation_id)
    return reading._replace(drafts=drafts, kind="delayed", correlation_id=known, is_wrapped=True)


def _read_delivered(envelope: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Reading]) -> Reading:
    held = read_model(DeliveredStart, envelope, place=DELAYED)
    if isinstance(held, list):
        known = told_id(envelope["delivery_id"])
        return Reading(problems=held, kind="delayed", correlation_id=known, is_wrapped=True)
    reading = read(held.raw)._replace(kind="delayed", is_wrapped=True).delivered_as(held.delivery_id)
    return reading.with_drafts(lambda draft: dataclasses.replace(draft, was_aside=True))
