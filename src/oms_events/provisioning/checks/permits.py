"""Whether the policies on a resource let somebody use it. Pure.

Three answers: yes, no, and unclear for what only AWS can decide: condition keys that are not known here, keys that
a request may have or not, and policy variables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Final

from oms_events.provisioning.specs.buses import EVENTS_SERVICE

Policy = str | Mapping[str, Any] | None
"""A policy as JSON or parsed."""

_EVERYBODY: Final = "*"
_VARIABLE: Final = "${"
_ARN_PARTS: Final = 6


class Verdict(Enum):
    """What policies say of a request."""

    ALLOWED = "allowed"
    DENIED = "denied"
    UNCLEAR = "unclear"


class Tells(Enum):
    """Whether EventBridge's request has its source's ARN, and its account: True, False, None for unknown."""

    ALL = (True, True)
    """When it takes a role or uses the key of a bus (EventBridge user guide, "Cross-service confused deputy
    prevention", "Authorizing EventBridge to use a customer managed key")."""
    ARN = (True, None)
    """When it reaches a target: the guide's policies for targets ask for the ARN alone."""
    NOTHING = (False, False)
    """When a topic's key is used (SNS developer guide, "Key management")."""
    UNKNOWN = (None, None)
    """When it makes log streams (the guide's policy for log groups asks for no source there), or uses the key of a
    queue."""


@dataclass(frozen=True, slots=True)
class Request:
    """A call: `principals` are the names that a policy may call the caller by; trust policies have no `resource`.

    `context` has by condition key, in lower case, what may stand in the request: None for nothing. Keys that it
    does not have are unclear.
    """

    principals: frozenset[str]
    action: str
    resource: str
    context: Mapping[str, tuple[str | None, ...]]


def by_events(
    action: str, resource: str, source: str, *, tells: Tells = Tells.ARN, context: Mapping[str, str] | None = None
) -> Request:
    """EventBridge's call on behalf of a rule or bus, `source`; `context` is what it says besides."""
    arn, account = tells.value
    told: dict[str, tuple[str | None, ...]] = {
        "aws:sourcearn": _possible(source, told=arn),
        "aws:sourceaccount": _possible(source.split(":")[4], told=account),
        # The default policy of SNS topics asks for it, and does not let EventBridge publish (user guide,
        # "Troubleshooting").
        "aws:sourceowner": (None,),
        "aws:securetransport": ("true",),
        "aws:principalisawsservice": ("true",),
    }
    told |= {key: (value,) for key, value in (context or {}).items()}
    return Request(frozenset((EVENTS_SERVICE,)), action, resource, told)


def by_principal(arn: str, action: str, resource: str, *, session: str) -> Request:
    """The call of a user or role, `arn`, with credentials of `session`, which is the same for a user."""
    partition, account = arn.split(":")[1], arn.split(":")[4]
    context: dict[str, tuple[str | None, ...]] = {
        "aws:principalarn": (arn,),
        "aws:principalaccount": (account,),
        "aws:principalisawsservice": ("false",),
        "aws:securetransport": ("true",),
        "aws:sourcearn": (None,),
        "aws:sourceaccount": (None,),
    }
    names = frozenset((arn, session, account, f"arn:{partition}:iam::{account}:root"))
    return Request(names, action, resource, context)


def decide(request: Request, *policies: Policy) -> Verdict:
    """What policies say together; one that cannot be read is unclear, none at all denies."""
    found = _effects(request, policies)
    if ("Deny", True) in found:
        return Verdict.DENIED
    if ("Deny", None) not in found and ("Allow", True) in found:
        return Verdict.ALLOWED
    may_be_allowed = any(effect == "Allow" and applies is not False for effect, applies in found)
    return Verdict.UNCLEAR if may_be_allowed else Verdict.DENIED


def denies(request: Request, *policies: Policy) -> bool | None:
    """Whether a statement denies it, whatever else allows it; None when that is unclear."""
    found = _effects(request, policies)
    if ("Deny", True) in found:
        return True
    return None if ("Deny", None) in found else False


def _possible(value: str, *, told: bool | None) -> tuple[str | None, ...]:
    if told is None:
        return (value, None)
    return (value,) if told else (None,)


def _effects(request: Request, policies: Iterable[Policy]) -> set[tuple[str, bool | None]]:
    found: set[tuple[str, bool | None]] = set()
    for policy in filter(None, policies):
        try:
            document: Any = json.loads(policy) if isinstance(policy, str) else policy
            found |= {(one["Effect"], _and(_parts(one, request))) for one in _list(document["Statement"])}
        except (ValueError, KeyError, TypeError, AttributeError):
            found |= {("Allow", None), ("Deny", None)}
    return found


def _parts(statement: Mapping[str, Any], request: Request) -> Iterator[bool | None]:
    """Of each part of a statement whether it is about the request."""
    yield _is_named(statement.get("Principal", _EVERYBODY), request)
    if "Action" in statement:
        yield _any_like(request.action.lower(), map(str.lower, _list(statement["Action"])))
    if "Resource" in statement and request.resource:
        resources = _list(statement["Resource"])
        unclear = any(_VARIABLE in text for text in resources)
        yield _any_like(request.resource, resources) or (None if unclear else False)
    if statement.keys() & {"NotPrincipal", "NotAction", "NotResource"}:
        yield None
    for operator, keys in statement.get("Condition", {}).items():
        for key, expected in keys.items():
            yield _condition(operator, key.lower(), [_text(value) for value in _list(expected)], request)


def _is_named(principal: Any, request: Request) -> bool:
    if not isinstance(principal, Mapping):
        return bool(principal == _EVERYBODY)
    named = [name for kind in ("Service", "AWS") for name in _list(principal.get(kind, []))]
    return _EVERYBODY in named or not request.principals.isdisjoint(named)


def _condition(operator: str, key: str, expected: list[str], request: Request) -> bool | None:
    values = request.context.get(key)
    if values is None or any(_VARIABLE in text for text in expected):
        return None
    answers = {_holds(operator, value, expected) for value in values}
    return answers.pop() if len(answers) == 1 else None


def _holds(operator: str, value: str | None, expected: list[str]) -> bool | None:
    name = operator.removesuffix("IfExists")
    if name == "Null":
        return str(value is None).lower() in (text.lower() for text in expected)
    negated = "Not" in name
    compare = _COMPARISONS.get(name.replace("Not", ""))
    if compare is None:
        return None
    if value is None:
        return negated or name != operator
    return any(compare(value, text) for text in expected) is not negated


def _and(answers: Iterable[bool | None]) -> bool | None:
    found = list(answers)
    if False in found:
        return False
    return None if None in found else True


def _any_like(text: str, patterns: Iterable[str]) -> bool:
    return any(_like(text, pattern) for pattern in patterns)


def _like(text: str, pattern: str) -> bool:
    return _regex(pattern).fullmatch(text) is not None


def _arn_like(arn: str, pattern: str) -> bool:
    """Part by part: a wildcard ends at a colon (IAM user guide, "ARN condition operators")."""
    parts, patterns = arn.split(":", _ARN_PARTS - 1), pattern.split(":", _ARN_PARTS - 1)
    if not len(parts) == len(patterns) == _ARN_PARTS:
        return False
    return all(_like(part, wanted) for part, wanted in zip(parts, patterns, strict=True))


def _same(text: str, expected: str) -> bool:
    return text == expected


def _same_in_any_case(text: str, expected: str) -> bool:
    return text.lower() == expected.lower()


_COMPARISONS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "ArnEquals": _arn_like,
    "ArnLike": _arn_like,
    "Bool": _same_in_any_case,
    "StringEquals": _same,
    "StringEqualsIgnoreCase": _same_in_any_case,
    "StringLike": _like,
}


@lru_cache(maxsize=1024)
def _regex(pattern: str) -> re.Pattern[str]:
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(char) for char in pattern)
    return re.compile("".join(parts), re.DOTALL)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
