"""Messages that JetStream delivered, read as events, and what is said about them to JetStream. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, Self

from oms_events._nats.messages import from_nats_message
from oms_events.errors import InvalidEventError
from oms_events.events import EncodedEvent, encode

ACK: Final = b"+ACK"
IN_PROGRESS: Final = b"+WPI"

# $JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer's sequence>.<time>.<pending>, and with a domain
# and an account's hash behind the "ACK", and a word of chance at the end (nats-server, ADR-15).
_SHORT: Final = 9
_LONG: Final = 11
_LONGEST_REASON: Final = 200


class Delivery(NamedTuple):
    """One message as it came: `deliveries` counts from 1, `sequence` is its place in the stream."""

    subject: str
    reply: str
    headers: Mapping[str, str] | None
    payload: bytes
    stream: str
    sequence: int
    deliveries: int

    @classmethod
    def read(cls, subject: str, reply: str, headers: Mapping[str, str] | None, payload: bytes) -> Self | None:
        """The delivery of a message with that reply address; None when JetStream did not send it."""
        tokens = reply.split(".")
        if tokens[:2] != ["$JS", "ACK"] or not (len(tokens) == _SHORT or len(tokens) >= _LONG):
            return None
        start = 2 if len(tokens) == _SHORT else 4
        stream, _, deliveries, sequence = tokens[start : start + 4]
        if not (deliveries.isdecimal() and sequence.isdecimal()):
            return None
        return cls(subject, reply, headers, payload, stream, int(sequence), int(deliveries))

    def event(self) -> EncodedEvent:
        """Its event. Raises `InvalidEventError` for what is no CloudEvent."""
        try:
            return encode(from_nats_message(self.headers, self.payload))
        except (ValueError, TypeError, RecursionError) as error:
            if isinstance(error, InvalidEventError):
                raise
            raise InvalidEventError(f"the message cannot be read as a CloudEvent: {error}") from error


class Dropped(NamedTuple):
    """A message that the consumer will not get again: no CloudEvent, refused by the handler, or failed too often.

    `event` is None for what is no CloudEvent. The message itself stays in the stream under `sequence`, as long as
    the stream keeps it.
    """

    stream: str
    sequence: int
    subject: str
    deliveries: int
    error: Exception
    event: EncodedEvent | None
    headers: Mapping[str, str] | None
    payload: bytes


def again(delay: float) -> bytes:
    """What asks for a message again, after so many seconds."""
    return b'-NAK {"delay": %d}' % round(delay * 1e9) if delay > 0 else b"-NAK"


def never_again(error: Exception) -> bytes:
    """What asks for a message never again; the server's advisory carries the reason."""
    reason = " ".join(str(error).split())[:_LONGEST_REASON]
    return f"+TERM {reason}".encode(errors="replace")


def retry_delay(deliveries: int, *, initial: float, maximum: float, draw: float) -> float:
    """How long a message that failed `deliveries` times waits: spread by a quarter, with `draw` from 0 to 1."""
    # 2.0 ** 1024 is no float any more.
    exponential = initial * 2.0 ** min(deliveries - 1, 60)
    return min(maximum, exponential) * (0.75 + 0.25 * draw)
