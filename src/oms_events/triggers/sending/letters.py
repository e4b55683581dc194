"""What dead letters look like in a queue: ours, and those of EventBridge, of Lambda and of other queues. Pure."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

from cloudevents.core.v1.event import CloudEvent

from oms_events.events import encode
from oms_events.triggers.problems import Problem
from oms_events.triggers.reading.delayed import DELAYED, enveloped, wrap_delivered
from oms_events.triggers.request import TriggerType
from oms_events.triggers.sending.queues import counted

ENVELOPE: Final = "dead_letter"
VERSION: Final = 1

_MAX_PROBLEMS: Final = 50
_MAX_TEXT: Final = 1_000
"""Characters of each text of a letter but its raw input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A start that nobody tries again by itself: why, and the input that it came as.

    `reason` is a code; `raw` anything that a pipeline was given. `trigger_time` (RFC 3339) and `key` are those
    that the start had: with them and its correlation id it can be started again as the same start.
    """

    reason: str
    raw: Any
    time: datetime
    problems: Sequence[Problem] = ()
    correlation_id: str | None = None
    trigger_type: TriggerType | None = None
    trigger_time: str | None = None
    key: str | None = None


class LetterKind(StrEnum):
    """Who gave it up."""

    START = "start"
    """A pipeline."""
    EVENT = "event"
    """EventBridge: a rule's target could not be reached."""
    INVOCATION = "invocation"
    """Lambda: an asynchronous invocation failed each time."""
    DELAYED = "delayed"
    """The delay queue: a start was received too often."""
    CHUNK = "chunk"
    """The queue of chunks: a chunk was received too often."""
    OTHER = "other"
    """Nobody who is known here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLetter:
    """A message of a dead-letter queue, as it is understood.

    `raw` is the input to start with again. Where it is not `is_whole`, as it was too long for the queue or no
    JSON, it is None, and `head` has its beginning. `time` (RFC 3339) is when it was given up, or when the queue
    got it; `details` is what its sender says besides.
    """

    message_id: str
    kind: LetterKind
    reason: str
    body: str
    raw: Any = None
    is_whole: bool = True
    head: str | None = None
    problems: Sequence[Mapping[str, Any]] = ()
    correlation_id: str | None = None
    trigger_type: str | None = None
    trigger_time: str | None = None
    key: str | None = None
    time: str | None = None
    receive_count: int = 1
    group: str | None = None
    details: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """It as JSON, without the body."""
        return {
            "message_id": self.message_id,
            "kind": self.kind.value,
            "reason": self.reason,
            "problems": list(self.problems),
            "correlation_id": self.correlation_id,
            "trigger_type": self.trigger_type,
            "trigger_time": self.trigger_time,
            "key": self.key,
            "time": self.time,
            "receive_count": self.receive_count,
            "group": self.group,
            "details": dict(self.details),
            "is_whole": self.is_whole,
            **({"raw": self.raw} if self.is_whole else {"head": self.head}),
        }

    def input(self) -> Any:
        """What starts it again, as the same start: of a pipeline's letter, an envelope of the delay queue.

        The envelope has the id and time of the first time; and as nobody waits for its answer, what may go well
        later is delivered again, also when it was a manual call. That of an invocation, which Lambda gave up, has
        the id of the invocation, for starts that have none of their own.
        """
        raw = self.raw
        if self.kind is LetterKind.INVOCATION:
            delivery_id = self.details.get("RequestID") or self.details.get("requestId")
            if not delivery_id or not isinstance(raw, dict):
                return raw
            return wrap_delivered(raw, delivery_id=delivery_id, delayed_at=self.time, reason=self.reason)
        if self.kind is not LetterKind.START or self.correlation_id is None:
            return raw
        if isinstance(raw, str):
            try:
                raw = json.loads(raw)
            except (ValueError, RecursionError):
                return raw
        if not isinstance(raw, dict) or DELAYED in raw:
            return raw
        return enveloped(
            raw,
            trigger_type=self.trigger_type,
            correlation_id=self.correlation_id,
            trigger_time=self.trigger_time or self.time,
            key=self.key,
            delayed_at=self.time,
            reason=self.reason,
        )


# ---------------------------------------------------------------------- ours


class LetterText(NamedTuple):
    """A dead letter as a message's body, and whether its raw input had to be cut."""

    body: str
    is_cut: bool


def letter_text(letter: DeadLetter, *, limit: int) -> LetterText:
    """The letter in at most `limit` bytes of ASCII: its raw input as it is, compressed, or only its beginning."""
    said = {
        "version": VERSION,
        "reason": _short(letter.reason),
        "problems": list(_problems(letter.problems)),
        "correlation_id": _short(letter.correlation_id),
        "trigger_type": letter.trigger_type,
        "trigger_time": _short(letter.trigger_time),
        "key": letter.key,
        "time": _rfc3339(letter.time),
    }
    raw = _raw_member(letter.raw)
    if len(body := _enclosed({**said, **raw})) <= limit:
        return LetterText(body, is_cut=False)
    # Deterministic: the same letter is the same text.
    packed = gzip.compress(json.dumps(raw).encode(), mtime=0)
    if len(body := _enclosed({**said, "raw_gzip": base64.b64encode(packed).decode()})) <= limit:
        return LetterText(body, is_cut=False)
    text = json.dumps(raw)
    kept = {"raw_characters": len(text), "raw_sha256": hashlib.sha256(text.encode()).hexdigest()}
    # In ASCII JSON only quotes and backslashes take two characters when they are quoted again.
    room = max(limit - len(_enclosed({**said, **kept, "raw_head": ""})), 0) // 2
    return LetterText(_enclosed({**said, **kept, "raw_head": text[:room]}), is_cut=True)


def _raw_member(raw: Any) -> dict[str, Any]:
    """The raw input as a member that JSON takes; what it cannot be read back from is `raw_text`."""
    if isinstance(raw, CloudEvent):
        raw = json.loads(encode(raw).json)
    if isinstance(raw, bytes | bytearray | memoryview):
        try:
            raw = bytes(raw).decode()
        except UnicodeDecodeError:
            return {"raw_base64": base64.b64encode(raw).decode()}
    try:
        json.dumps(raw, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return {"raw_text": _shown(raw)}
    return {"raw": raw}


def _shown(raw: object) -> str:
    try:
        return repr(raw)
    except Exception:  # anything may come from outside, and its letter must be written all the same
        return f"<{type(raw).__name__} that cannot be shown>"


def _problems(problems: Sequence[Problem]) -> Iterator[dict[str, Any]]:
    for problem in problems[:_MAX_PROBLEMS]:
        document = problem.document()
        yield {name: _short(value) for name, value in document.items()}


def _short(value: Any) -> Any:
    return f"{value[:_MAX_TEXT]}..." if isinstance(value, str) and len(value) > _MAX_TEXT else value


def _enclosed(said: Mapping[str, Any]) -> str:
    return json.dumps({ENVELOPE: said}, separators=(",", ":"))


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


# ---------------------------------------------------------------------- all


def read_letter(
    message_id: str, body: str, *, attributes: Mapping[str, str], message_attributes: Mapping[str, str]
) -> StoredLetter:
    """What a message of a dead-letter queue says; never raises.

    `attributes` are the queue's own, `message_attributes` the sender's.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = body
    common: dict[str, Any] = {
        "message_id": message_id,
        "body": body,
        "time": _sent(attributes),
        "receive_count": counted(attributes.get("ApproximateReceiveCount")),
        "group": attributes.get("MessageGroupId") or None,
    }
    if isinstance(document, dict) and isinstance(envelope := document.get(ENVELOPE), dict):
        return _read_start(common, envelope)
    if "ERROR_CODE" in message_attributes:
        kind, reason = LetterKind.EVENT, message_attributes["ERROR_CODE"]
    elif isinstance(document, dict) and {"requestContext", "requestPayload"} <= document.keys():
        return _read_destination(common, document)
    elif "RequestID" in message_attributes:
        kind, reason = LetterKind.INVOCATION, _reason_of_lambda(message_attributes)
    elif isinstance(document, dict) and isinstance(envelope := document.get(DELAYED), dict):
        return _read_delayed(common, document, envelope, attributes)
    elif isinstance(document, dict) and {"chunk_id", "chunk_index"} <= document.keys():
        kind, reason = LetterKind.CHUNK, "RECEIVED_TOO_OFTEN"
    else:
        kind, reason = LetterKind.OTHER, "UNKNOWN_LETTER"
    return StoredLetter(
        **common,
        kind=kind,
        reason=reason,
        raw=document,
        correlation_id=_correlation_id(document),
        trigger_type=_text(document.get("trigger_type")) if isinstance(document, dict) else None,
        details={**message_attributes, **_source(attributes)},
    )


def _read_start(common: Mapping[str, Any], envelope: Mapping[str, Any]) -> StoredLetter:
    said: dict[str, Any] = {**common, "time": _text(envelope.get("time")) or common["time"]}
    problems = envelope.get("problems")
    letter: dict[str, Any] = {
        "kind": LetterKind.START,
        "reason": _text(envelope.get("reason")) or "UNKNOWN_LETTER",
        "problems": [one for one in problems if isinstance(one, dict)] if isinstance(problems, list) else [],
        "correlation_id": _text(envelope.get("correlation_id")),
        "trigger_type": _text(envelope.get("trigger_type")),
        "trigger_time": _text(envelope.get("trigger_time")),
        "key": _text(envelope.get("key")),
    }
    if envelope.get("version") != VERSION:
        details = {"problem": f"version {envelope.get('version')!r} is not known here: update oms-events"}
        return StoredLetter(**said, **{**letter, "kind": LetterKind.OTHER}, is_whole=False, details=details)
    member: Mapping[str, Any] | None = envelope
    if "raw_gzip" in envelope:
        member = _unpacked(envelope["raw_gzip"])
    if member is not None and "raw" in member:
        return StoredLetter(**said, **letter, raw=member["raw"])
    if member is not None and "raw_base64" in member:
        # No text, and so no start: it is kept for who looks at it.
        return StoredLetter(**said, **letter, is_whole=False, head=_text(member["raw_base64"]))
    if member is not None and "raw_text" in member:
        return StoredLetter(**said, **letter, is_whole=False, head=_text(member["raw_text"]))
    details = {name: str(envelope[name]) for name in ("raw_characters", "raw_sha256") if name in envelope}
    return StoredLetter(**said, **letter, is_whole=False, head=_text(envelope.get("raw_head")), details=details)


def _unpacked(packed: object) -> Mapping[str, Any] | None:
    try:
        member = json.loads(gzip.decompress(base64.b64decode(str(packed), validate=True)))
    except (ValueError, OSError, EOFError, zlib.error, RecursionError):
        return None
    return member if isinstance(member, dict) else None


def _read_delayed(
    common: Mapping[str, Any], document: Any, envelope: Mapping[str, Any], attributes: Mapping[str, str]
) -> StoredLetter:
    details = {name: str(envelope[name]) for name in ("reason", "key", "delayed_at") if name in envelope}
    return StoredLetter(
        **common,
        kind=LetterKind.DELAYED,
        reason="RECEIVED_TOO_OFTEN",
        # With its envelope: that has the correlation id and the time of the first arrival.
        raw=document,
        correlation_id=_text(envelope.get("correlation_id")),
        trigger_type=_text(envelope.get("trigger_type")),
        details={**details, **_source(attributes)},
    )


def _read_destination(common: Mapping[str, Any], document: Mapping[str, Any]) -> StoredLetter:
    """The record that Lambda sends to a destination for failures, around the input."""
    context, payload = document["requestContext"], document["requestPayload"]
    said = context if isinstance(context, dict) else {}
    return StoredLetter(
        **{**common, "time": _text(document.get("timestamp")) or common["time"]},
        kind=LetterKind.INVOCATION,
        reason=_text(said.get("condition")) or "LAMBDA",
        raw=payload,
        correlation_id=_correlation_id(payload),
        details={name: str(said[name]) for name in ("requestId", "functionArn") if name in said},
    )


def _reason_of_lambda(message_attributes: Mapping[str, str]) -> str:
    code = message_attributes.get("ErrorCode", "")
    return f"LAMBDA_{code}" if code else "LAMBDA"


def _source(attributes: Mapping[str, str]) -> dict[str, str]:
    name = "DeadLetterQueueSourceArn"
    return {name: attributes[name]} if name in attributes else {}


def _correlation_id(document: object) -> str | None:
    """That which the input says itself; a pipeline may derive another one."""
    if not isinstance(document, dict):
        return None
    detail = document.get("detail")
    return _text(document.get("correlation_id")) or (
        _text(detail.get("correlation_id")) if isinstance(detail, dict) else None
    )


def _sent(attributes: Mapping[str, str]) -> str | None:
    sent = attributes.get("SentTimestamp", "")
    try:
        return _rfc3339(datetime.fromtimestamp(int(sent) / 1000, UTC))
    except (ValueError, OverflowError, OSError):
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
