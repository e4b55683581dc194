"""Whether the policy on a resource lets a service use it. Pure.

Three answers: yes, no, and unclear for what only AWS can decide (conditions whose keys are not known here).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Final

_EVERYBODY: Final = "*"
_ABSENT: Final = frozenset(("aws:sourceowner",))
"""Keys that EventBridge never gives: the default policy of SNS topics asks for one (EventBridge user guide,
"Troubleshooting": a topic's policy must name events.amazonaws.com)."""


class Verdict(Enum):
    """What a policy says of a request."""

    ALLOWED = "allowed"
    DENIED = "denied"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Request:
    """A service that acts on behalf of a source; `resource` is empty for trust policies, which name none."""

    principal: str
    action: str
    resource: str
    source: str

    def context(self, key: str) -> str | None:
        """The value of a condition key in lower case; None for one that is not known."""
        values = {
            "aws:sourcearn": self.source,
            "aws:sourceaccount": self.source.split(":")[4],
            "aws:securetransport": "true",
            "aws:principalisawsservice": "true",
        }
        return values.get(key)


def decide(policy: str | Mapping[str, Any] | None, request: Request) -> Verdict:
    """What the policy, as JSON or parsed, says; a policy that cannot be read is unclear, none at all denies."""
    if not policy:
        return Verdict.DENIED
    try:
        document = json.loads(policy) if isinstance(policy, str) else policy
        found = [(statement["Effect"], _applies(statement, request)) for statement in _list(document["Statement"])]
    except (ValueError, KeyError, TypeError, AttributeError):
        return Verdict.UNCLEAR
    if ("Deny", True) in found:
        return Verdict.DENIED
    if ("Deny", None) not in found and ("Allow", True) in found:
        return Verdict.ALLOWED
    may_be_allowed = any(effect == "Allow" and applies is not False for effect, applies in found)
    return Verdict.UNCLEAR if may_be_allowed else Verdict.DENIED


def _applies(statement: Mapping[str, Any], request: Request) -> bool | None:
    """Whether a statement is about the request; None when that is unclear."""
    if not _is_about(statement, request):
        return False
    if statement.keys() & {"NotPrincipal", "NotAction", "NotResource"}:
        return None
    return _and(_conditions(statement.get("Condition", {}), request))


def _is_about(statement: Mapping[str, Any], request: Request) -> bool:
    principal = statement.get("Principal", _EVERYBODY)
    if isinstance(principal, Mapping):
        named = [*_list(principal.get("Service", [])), *_list(principal.get("AWS", []))]
        if request.principal not in named and _EVERYBODY not in named:
            return False
    elif principal != _EVERYBODY:
        return False
    if "Action" in statement and not _any_like(request.action.lower(), map(str.lower, _list(statement["Action"]))):
        return False
    if "Resource" not in statement or not request.resource:
        return True
    return _any_like(request.resource, _list(statement["Resource"]))


def _conditions(conditions: Mapping[str, Mapping[str, Any]], request: Request) -> Iterator[bool | None]:
    for operator, keys in conditions.items():
        for key, expected in keys.items():
            yield _condition(operator, key.lower(), [_text(value) for value in _list(expected)], request)


def _condition(operator: str, key: str, expected: list[str], request: Request) -> bool | None:
    name = operator.removesuffix("IfExists")
    value = request.context(key)
    if value is None and key not in _ABSENT:
        return None
    if name == "Null":
        return expected == [str(value is None).lower()]
    if value is None:
        return name != operator
    negated = "Not" in name
    kind = name.replace("Not", "")
    if kind in ("ArnEquals", "ArnLike", "StringLike"):
        holds = _any_like(value, expected)
    elif kind == "StringEquals":
        holds = value in expected
    elif kind in ("StringEqualsIgnoreCase", "Bool"):
        holds = value.lower() in (text.lower() for text in expected)
    else:
        return None
    return holds is not negated


def _and(answers: Iterable[bool | None]) -> bool | None:
    found = list(answers)
    if False in found:
        return False
    return None if None in found else True


def _any_like(text: str, patterns: Iterable[str]) -> bool:
    return any(_regex(pattern).fullmatch(text) is not None for pattern in patterns)


@lru_cache(maxsize=1024)
def _regex(pattern: str) -> re.Pattern[str]:
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(char) for char in pattern)
    return re.compile("".join(parts), re.DOTALL)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
