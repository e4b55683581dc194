"""Event patterns of rules and archives, refused here as the service would refuse them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from oms_events.routing.conditions import compile_document_pattern

MAX_PATTERN_LENGTH: Final = 2048
"""Characters of a pattern (EventBridge quotas; adjustable per account, `AWS::Events::Rule` takes more then)."""

_ENVELOPE: Final = frozenset(
    ("account", "detail", "detail-type", "id", "region", "replay-name", "resources", "source", "time", "version")
)


def check_pattern(pattern: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pattern in normal form, keys in their order. Raises `ValueError` that names path, value and remedy."""
    normal = compile_document_pattern(pattern).to_pattern()
    if unknown := sorted(_roots(normal) - _ENVELOPE):
        raise ValueError(
            f"{unknown[0]!r} is no part of a delivered event ({', '.join(sorted(_ENVELOPE))}); what the publisher "
            f"sends is below 'detail'"
        )
    length = len(json.dumps(normal, separators=(",", ":"), ensure_ascii=False))
    if length > MAX_PATTERN_LENGTH:
        raise ValueError(
            f"has {length} characters and EventBridge takes {MAX_PATTERN_LENGTH}; shorten it with 'prefix' or "
            "'wildcard', or split the rule"
        )
    return normal


def _roots(pattern: Mapping[str, Any]) -> set[str]:
    found = set(pattern) - {"$or"}
    for branch in pattern.get("$or", ()):
        found |= _roots(branch)
    return found
