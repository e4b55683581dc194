"""The rules of the OMS bus: their names, the patterns that match what the publisher sends, and their targets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from oms_events.errors import OmsEventsError
from oms_events.events import build_event, encode
from oms_events.provisioning.specs.base import Reference
from oms_events.provisioning.specs.rules import RuleSpec
from oms_events.provisioning.specs.targets import TargetSpec
from oms_events.publishers.eventbridge.config import EventBridgeConfig
from oms_events.publishers.eventbridge.mapping import EventMapper

_SOURCE: Final = "/oms"
"""What the sources of all OMS events begin with."""

_NOT_IN_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")


def rule_name(event_type: str) -> str:
    """`oms_objecttype_created_rule` for `com.foundry.oms.objecttype.created`. Raises `ValueError`."""
    words = [_NOT_IN_NAME.sub("_", part) for part in event_type.split(".") if part]
    if len(words) < 2:
        raise ValueError(
            "a rule is named by the last two segments of its type; write one such as 'acme.order.placed'"
        )
    return f"oms_{'_'.join(words[-2:])}_rule"


def event_pattern(event_type: str, source_prefix: str | None = None) -> dict[str, Any]:
    """What matches events of one type as the publisher sends them in the mapping `wrapped`.

    It is made by the publisher's own mapper. Raises `ConfigurationError` for a prefix and `PublishError` or
    `InvalidEventError` for a type that the publisher would refuse.
    """
    mapper = EventMapper(EventBridgeConfig(source_prefix=source_prefix))
    sent = mapper.entry(encode(build_event(event_type, _SOURCE, {}, id="pattern")), 0).document
    return {
        "source": [{"prefix": sent["Source"]}],
        "detail-type": [sent["DetailType"]],
        "detail": {"cloudEvents": {"type": [event_type]}},
    }


def make_rules(
    event_types: Sequence[str],
    *,
    bus: Reference,
    source_prefix: str | None,
    targets: Mapping[str, Sequence[TargetSpec]],
    default_targets: Sequence[TargetSpec],
    dead_letter: Reference | None,
) -> dict[str, RuleSpec]:
    """Event type to its rule. `dead_letter` is for the targets that have none of their own."""
    made = {}
    for event_type in event_types:
        name = rule_name(event_type)
        chosen = targets.get(event_type, targets.get(name, default_targets))
        made[event_type] = RuleSpec(
            name=name,
            bus=bus,
            pattern=event_pattern(event_type, source_prefix),
            targets=tuple(_with_dead_letter(target, dead_letter) for target in chosen),
        )
    return made


def rule_problems(
    event_types: Sequence[str], targets: Mapping[str, Sequence[TargetSpec]], source_prefix: str | None
) -> Iterator[str]:
    """What keeps the types from having a rule each, and the targets from belonging to one."""
    names: dict[str, str] = {}
    for event_type in event_types:
        try:
            name = rule_name(event_type)
            event_pattern(event_type, source_prefix)
        except (OmsEventsError, ValueError) as error:
            yield f"event_types: {event_type!r}: {error}"
            continue
        other = names.setdefault(name, event_type)
        if other != event_type:
            yield f"event_types: {other!r} and {event_type!r} both give the rule {name}; keep one"
    for twice in dict.fromkeys(kind for kind in event_types if list(event_types).count(kind) > 1):
        yield f"event_types: {twice!r} stands more than once; name each type once"
    known = {**names, **{event_type: event_type for event_type in names.values()}}
    chosen: dict[str, str] = {}
    for key in targets:
        if key not in known:
            yield (
                f"targets: {key!r} is neither an event type of this bus nor the name of its rule, such as "
                f"{next(iter(known), 'oms_schema_created_rule')!r}"
            )
        elif (other := chosen.setdefault(known[key], key)) != key:
            yield f"targets: {other!r} and {key!r} mean the same rule; keep one"


def _with_dead_letter(target: TargetSpec, dead_letter: Reference | None) -> TargetSpec:
    if dead_letter is None or target.dead_letter is not None:
        return target
    return target.model_copy(update={"dead_letter": dead_letter})
