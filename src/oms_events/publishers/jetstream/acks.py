"""What JetStream answers to a message, as a receipt or as an error of the right class. Pure."""

from __future__ import annotations

from typing import Any, Final

import orjson

from oms_events._nats.refusals import error_of
from oms_events.errors import AddressDeniedError, PublishError, UnknownOutcomeError
from oms_events.publishing import Receipt

NO_RESPONDERS: Final = "no_responders"
"""The code of the error for a message that nobody listens to."""


def read_ack(payload: bytes, status: str | None) -> Receipt | PublishError:
    """Reads one publish acknowledgement; `status` is the inline status of a reply that the server made."""
    if status == "503":
        return AddressDeniedError("no stream takes this subject: no responders", code=NO_RESPONDERS)
    try:
        ack: dict[str, Any] = orjson.loads(payload)
        error = ack.get("error")
        if error is None:
            return Receipt(None, ack["stream"], ack["seq"], ack.get("duplicate", False))
        return error_of(error, "JetStream did not store the event")
    except (ValueError, KeyError, AttributeError, TypeError) as problem:
        unreadable = UnknownOutcomeError(f"the acknowledgement cannot be read: {payload[:100]!r}")
        unreadable.__cause__ = problem
        return unreadable
