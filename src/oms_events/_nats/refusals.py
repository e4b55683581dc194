"""What JetStream refuses, as errors of the right class. Pure."""

from __future__ import annotations

from typing import Any, Final

from oms_events.errors import (
    AddressDeniedError,
    EventRejectedError,
    PlatformDeniedError,
    PublishError,
    TransientError,
    UnknownOutcomeError,
)

# Error codes of the server's errors.json (2.15).
_EVENT: Final = {
    10054: "the event is larger than the stream's max_msg_size; raise it or make the event smaller",
    10097: "the headers are larger than JetStream takes (64 KiB); shorten the attributes",
}
_PLATFORM: Final = {
    10035: "the server does not know the account; check the credentials",
    10039: "JetStream is not enabled for this account; enable it",
    10076: "JetStream is not enabled on the server; start it with JetStream",
}
_ACCOUNT_IS_FULL: Final = 10002
_TOO_MANY_REQUESTS: Final = 429
_ALREADY_ON_ITS_WAY: Final = 10158
_NOT_NOW: Final = frozenset((409, _TOO_MANY_REQUESTS, 500, 503))


def error_of(error: dict[str, Any], what: str) -> PublishError:
    """The error of the right class for an error object of JetStream.

    What was refused for want of room or a leader may work later. An unknown refusal counts against the
    address, never the event: a dead letter would be harder to undo than a retry.
    """
    status = int(error.get("code", 0))
    number = int(error.get("err_code", 0))
    code = str(number or status)
    text = f"{what}: {error.get('description', 'no reason given')} (error {code})"
    if number in _EVENT:
        return EventRejectedError(f"{text}; {_EVENT[number]}", code=code)
    if number in _PLATFORM:
        return PlatformDeniedError(f"{text}; {_PLATFORM[number]}", code=code)
    if number == _ALREADY_ON_ITS_WAY:
        # An earlier copy is being stored, and may still fail.
        return UnknownOutcomeError(text, code=code)
    if status in _NOT_NOW or number == _ACCOUNT_IS_FULL:
        return TransientError(text, code=code, throttled=status == _TOO_MANY_REQUESTS)
    return AddressDeniedError(text, code=code)
