"""A start on its way: as a source read it, and as handlers get it. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from oms_events.events import EncodedEvent
from oms_events.triggers.config import RunOptions
from oms_events.triggers.request import TriggerRequest, TriggerType


@dataclass(frozen=True, slots=True)
class Queued:
    """The message of a queue, most often the delay queue, that a start came in."""

    message_id: str
    receipt_handle: str = ""
    receive_count: int = 1
    group: str = ""
    """Of a FIFO queue: its messages go in their order. Empty: there is no order."""
    queue_arn: str = ""
    """The queue that it came from; empty when nobody says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One start as a source read it: nothing in it is checked but its shape.

    `fields` has the request's fields that were there, under their own names; `unknown` what no request has.
    `correlation_id` is given or derived (None: nobody said one, and the pipeline makes one up), `flow_id` is that
    of the whole flow, where an event has one; `ds` the date of the partition; `raw` the JSON that it came as, such
    that the same pipeline reads the same start out of it again.
    """

    trigger_type: TriggerType
    raw: Any
    fields: Mapping[str, Any] = field(default_factory=dict)
    unknown: Mapping[str, Any] = field(default_factory=dict)
    correlation_id: str | None = None
    flow_id: str | None = None
    ds: str | None = None
    detail: Any = None
    """The source's own typed detail: `UniverseUpdated`, `S3Object` and so on; None where it has none."""
    event: EncodedEvent | None = None
    """The CloudEvent that started it, where it was one."""
    cause_id: str | None = None
    """The id of the event that started it, of whatever kind."""
    dry_run: bool = False
    force_symbols: bool = False
    override_config: Mapping[str, Any] = field(default_factory=dict)
    queued: Queued | None = None
    identity: str | None = None
    """What makes it unique by itself, whatever correlation id it was given; None: nothing does."""
    is_id_given: bool = False
    """Whether somebody gave the correlation id: then other starts may have it too."""
    is_timeless: bool = False
    """Whether nobody says its time, and its id is unique without: its key has no day then."""
    data: Mapping[str, Any] | None = None
    """The event's detail or data as it came; None where it has none."""
    key: str | None = None
    """The key that it had when it was set aside; None: it was not."""
    is_wrapped: bool = False
    """Whether it came in a message or an envelope: nobody waits for the answer."""
    was_aside: bool = False
    """Whether it came in an envelope: it was set aside before, and comes again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One checked and admitted start, as handlers get it.

    `key` is what tells it from others (`domain:table_name:ds:correlation_id`); `fence` rises with each run of an
    exclusive key, so that what a handler writes to can refuse an older run; `detail`, `unknown`, `flow_id`,
    `cause_id` and `raw` are as in `Draft`.
    """

    request: TriggerRequest
    key: str
    ds: str
    correlation_id: str
    options: RunOptions
    fence: int | None = None
    flow_id: str | None = None
    cause_id: str | None = None
    detail: Any = None
    unknown: Mapping[str, Any] = field(default_factory=dict)
    raw: Any = None


Handler = Callable[[Start], Awaitable[Any]]
"""What a start is handed to. What it gives is answered and recorded: JSON values, at most 400,000 bytes of them.

A handler may also have a method `plan(start)`, not async, that says what it would send: dry runs show that.
"""
