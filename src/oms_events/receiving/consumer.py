"""The durable consumer: made, changed to agree, or only looked at, with errors that name fields."""

from __future__ import annotations

import logging
from typing import Any, Final

from oms_events._nats.api import STREAM_NOT_FOUND, ApiForbiddenError, ApiRefusedError, JetStreamApi
from oms_events._nats.refusals import error_of
from oms_events.errors import PlatformDeniedError, PublishError, TransientError
from oms_events.receiving.config import ReceiverConfig

_log = logging.getLogger("oms_events")

_CONSUMER_NOT_FOUND: Final = 10014
_WITHOUT_END: Final = -1
_NANOSECONDS: Final = 1_000_000_000
_NOT_NOW: Final = (408, 429, 500, 503)


async def prepare_consumer(api: JetStreamApi, config: ReceiverConfig) -> float:
    """Makes or changes the consumer, or only looks at it; gives its ack wait in seconds.

    Raises `PlatformDeniedError` for one that is missing or cannot be used, and for a stream that is missing;
    `TransientError` when JetStream does not answer.
    """
    try:
        there = await _look(api, config)
    except ApiForbiddenError as forbidden:
        if not config.manage:
            return config.ack_wait
        raise _forbidden(forbidden) from forbidden
    if there is None:
        if not config.manage:
            raise PlatformDeniedError(
                f"stream {config.stream!r} has no consumer {config.durable!r}; make it, or set manage = true",
                code="no_consumer",
            )
        return await _put(api, config, {"deliver_policy": "all", "replay_policy": "instant"})
    _check_usable(config, there)
    if config.manage and any(there.get(key) != value for key, value in _wanted(config).items()):
        # Whoever filters by one subject has another field than who filters by several.
        kept = {key: value for key, value in there.items() if key not in ("filter_subject", "filter_subjects")}
        return await _put(api, config, kept)
    if (most := there.get("max_deliver", _WITHOUT_END)) != _WITHOUT_END:
        _log.warning(
            "consumer %r of stream %r has max_deliver = %s: after so many deliveries JetStream gives a message up "
            "without a word; set it to -1, and max_deliveries here",
            config.durable,
            config.stream,
            most,
        )
    return float(there.get("ack_wait", 0)) / _NANOSECONDS or config.ack_wait


async def _look(api: JetStreamApi, config: ReceiverConfig) -> dict[str, Any] | None:
    try:
        answer = await api.request(f"CONSUMER.INFO.{config.stream}.{config.durable}")
    except ApiRefusedError as refused:
        if refused.number == _CONSUMER_NOT_FOUND:
            return None
        raise _refused(config, refused) from refused
    found: dict[str, Any] = answer["config"]
    return found


async def _put(api: JetStreamApi, config: ReceiverConfig, others: dict[str, Any]) -> float:
    body = {"stream_name": config.stream, "config": {**others, **_wanted(config)}}
    try:
        await api.request(f"CONSUMER.CREATE.{config.stream}.{config.durable}", body)
    except ApiRefusedError as refused:
        raise _refused(config, refused) from refused
    except ApiForbiddenError as forbidden:
        raise _forbidden(forbidden) from forbidden
    return config.ack_wait


def _wanted(config: ReceiverConfig) -> dict[str, Any]:
    """What must be so; a consumer's other settings are left as they are."""
    wanted: dict[str, Any] = {
        "name": config.durable,
        "durable_name": config.durable,
        "ack_policy": "explicit",
        "ack_wait": round(config.ack_wait * _NANOSECONDS),
        "max_ack_pending": config.max_ack_pending,
        # The server would give a message up without a word; `max_deliveries` says so.
        "max_deliver": _WITHOUT_END,
    }
    match config.subjects:
        case ():
            # What is absent from the server's answer and from here is the same: no filter.
            return {**wanted, "filter_subject": None, "filter_subjects": None}
        case (subject,):
            return {**wanted, "filter_subject": subject, "filter_subjects": None}
    return {**wanted, "filter_subject": None, "filter_subjects": list(config.subjects)}


def _check_usable(config: ReceiverConfig, there: dict[str, Any]) -> None:
    what = f"consumer {config.durable!r} of stream {config.stream!r}"
    if there.get("deliver_subject"):
        raise PlatformDeniedError(f"{what} pushes its messages to a subject; take another name in durable")
    if there.get("ack_policy") != "explicit":
        raise PlatformDeniedError(
            f"{what} has ack_policy = {there.get('ack_policy')!r}, and 'explicit' is needed; take another name in "
            "durable, or delete it"
        )


def _forbidden(forbidden: ApiForbiddenError) -> PlatformDeniedError:
    return PlatformDeniedError(f"no permission for {forbidden}; grant it, or let others make it: manage = false")


def _refused(config: ReceiverConfig, refused: ApiRefusedError) -> PublishError:
    what = f"consumer {config.durable!r} of stream {config.stream!r}"
    if refused.number == STREAM_NOT_FOUND:
        return PlatformDeniedError(
            f"stream {config.stream!r} does not exist; create it, or correct stream", code="no_stream"
        )
    error = error_of(refused.error, f"{what} cannot be used")
    if refused.error.get("code") in _NOT_NOW and isinstance(error, TransientError):
        return error
    return PlatformDeniedError(
        f"{error}; change the configuration, or take another name in durable", code=error.code
    )
