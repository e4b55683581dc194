"""The rules that start an ingestion: a schedule, events of four sources, and new objects in a bucket."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from oms_events.provisioning.specs.targets import InputTransformerSpec
from oms_events.triggers.request import TriggerRequest

SCHEDULES: Final[Mapping[str, str]] = {
    "dev": "cron(0 22 * * ? *)",
    "staging": "cron(0 21 * * ? *)",
    "prod": "cron(0 20 * * ? *)",
}
"""When each environment starts by itself, in UTC."""

EVENT_PATTERNS: Final[Mapping[str, Mapping[str, Any]]] = {
    "transform-pipeline": {
        "source": ["transform.pipeline"],
        "detail-type": ["Processing Complete"],
        "detail": {"trigger_reingestion": [True]},
    },
    "symbol-universe": {"source": ["symbol.universe"], "detail-type": ["Universe Updated"]},
    "market-events": {"source": ["market.events"], "detail-type": ["Market Close"]},
    "ops-manual": {"source": ["ops.manual"], "detail-type": ["Adhoc Ingestion"]},
}
"""Part of the rule's name to its pattern."""

MULTI_SOURCE_PATTERN: Final[Mapping[str, Any]] = {
    "source": ["transform.pipeline", "symbol.universe", "ops.manual"],
    "detail-type": [{"exists": True}],
}
"""The one rule instead: every event of three sources."""

SOURCES: Final = ("transform.pipeline", "symbol.universe", "market.events", "ops.manual")

_TIME: Final = "time"


def object_pattern(bucket: str, prefix: str, suffix: str) -> dict[str, Any]:
    """New objects of a bucket whose keys begin and end so; either may be empty.

    A prefix and a suffix in one list would be an "or": both together are a wildcard.
    """
    key = next(_key_matchers(prefix, suffix), None)
    matched: dict[str, Any] = {"bucket": {"name": [bucket]}}
    if key is not None:
        matched["object"] = {"key": [key]}
    return {"source": ["aws.s3"], "detail-type": ["Object Created"], "detail": matched}


def _key_matchers(prefix: str, suffix: str) -> Iterator[dict[str, str]]:
    if prefix and suffix:
        yield {"wildcard": f"{_literal(prefix)}*{_literal(suffix)}"}
    elif prefix:
        yield {"prefix": prefix}
    elif suffix:
        yield {"suffix": suffix}


def _literal(text: str) -> str:
    """The text in a wildcard, where it stands for itself."""
    return text.replace("\\", "\\\\").replace("*", "\\*")


def scheduled_request(rule: str, **fields: Any) -> TriggerRequest:
    """The request that a schedule makes, with the event's time to be filled in.

    Its correlation id is the rule and that time: the same run has the same id each time it is delivered.
    """
    return TriggerRequest(
        **fields, trigger_type="schedule", trigger_time=f"<{_TIME}>", correlation_id=f"{rule}:<{_TIME}>"
    )


def schedule_input(request: TriggerRequest) -> InputTransformerSpec:
    """What makes the request of the schedule's own event."""
    template = json.dumps(request.document(), separators=(",", ":"), ensure_ascii=False)
    # A variable that is the whole value stands without quotes: EventBridge gives them.
    return InputTransformerSpec(paths={_TIME: "$.time"}, template=template.replace(f'"<{_TIME}>"', f"<{_TIME}>"))
