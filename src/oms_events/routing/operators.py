"""The operators of EventBridge's event pattern language, each compiled to a test of one JSON value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from ipaddress import ip_address, ip_network
from math import isfinite
from typing import Any, Final

from oms_events.routing.patterns import Pattern
from oms_events.routing.wildcards import compile_ignoring_case, compile_wildcard, parse_wildcard

NUMERIC_LIMIT: Final = 5.0e9
"""EventBridge compares numbers from -5.0e9 to 5.0e9 (user guide, comparison operators: numeric matching)."""

OPERATORS: Final = (
    "prefix",
    "suffix",
    "equals-ignore-case",
    "anything-but",
    "numeric",
    "cidr",
    "exists",
    "wildcard",
)

Path = tuple[str, ...]
Test = Callable[[Any], bool]

_ADDRESS = re.compile(r"[0-9a-fA-F:.]+")
_COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "=": lambda value, bound: value == bound,
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
}


@dataclass(frozen=True, slots=True)
class Leaf:
    """The alternatives for one field: exact values and tests, and whether the field may be absent."""

    path: Path
    strings: frozenset[str]
    others: frozenset[str]
    tests: tuple[Test, ...]
    may_be_absent: bool
    wanted: str

    def matches(self, value: Any) -> bool:
        """Whether one scalar of the event is among the alternatives."""
        if isinstance(value, str):
            if value in self.strings:
                return True
        elif json_text(value) in self.others:
            return True
        return any(test(value) for test in self.tests) if self.tests else False


def json_text(value: Any) -> str:
    """A number, boolean or null as JSON writes it: 300 and 300.0 are different texts, as in EventBridge."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return int.__repr__(value) if isinstance(value, int) else float.__repr__(value)


def parse_leaf(steps: Path, alternatives: Sequence[Any]) -> Leaf:
    """Compiles the list of alternatives for one field. Raises `ValueError` that names the field."""
    path = ".".join(steps)
    if not alternatives:
        raise ValueError(f"{path}: an empty list matches nothing; list at least one value")
    strings: set[str] = set()
    others: set[str] = set()
    tests: list[Test] = []
    may_be_absent = False
    for alternative in alternatives:
        if isinstance(alternative, Mapping):
            operator, operand = _only_operator(path, alternative)
            if operator == "exists":
                may_be_absent |= _check_exists(path, operand) is False
                if operand:
                    tests.append(_anything)
            else:
                try:
                    tests.append(_BUILDERS[operator](operand))
                except ValueError as error:
                    raise ValueError(f"{path}: {error}") from None
        elif isinstance(alternative, str):
            strings.add(str(alternative))
        elif alternative is None or (isinstance(alternative, int | float) and isfinite(alternative)):
            others.add(json_text(alternative))
        else:
            raise ValueError(
                f"{path}: {alternative!r} is no value to match; list strings, numbers, true, false, null or "
                f"operators such as {{'prefix': 'a'}}"
            )
    return Leaf(steps, frozenset(strings), frozenset(others), tuple(tests), may_be_absent, _describe(alternatives))


def _describe(alternatives: Sequence[Any]) -> str:
    return " or ".join(repr(item) if isinstance(item, str | Mapping) else json_text(item) for item in alternatives)


def _only_operator(path: str, alternative: Mapping[str, Any]) -> tuple[str, Any]:
    if len(alternative) != 1:
        raise ValueError(
            f"{path}: {dict(alternative)!r} has {len(alternative)} operators; write one in each object, "
            "as list items of their own"
        )
    operator, operand = next(iter(alternative.items()))
    if operator not in OPERATORS:
        raise ValueError(f"{path}: unknown operator {operator!r}; {_hint(operator)}")
    return operator, operand


def _hint(operator: object) -> str:
    near = get_close_matches(str(operator), OPERATORS, n=1)
    known = ", ".join(OPERATORS)
    return f"did you mean {near[0]!r}? (known: {known})" if near else f"known: {known}"


def _check_exists(path: str, operand: object) -> bool:
    if not isinstance(operand, bool):
        raise ValueError(f"{path}: 'exists' takes true or false, not {operand!r}")
    return operand


def _anything(_value: Any) -> bool:
    return True


def _text(operator: str, operand: object) -> str:
    if not isinstance(operand, str):
        raise ValueError(f"{operator!r} takes text, not {operand!r}")
    if not operand and operator != "equals-ignore-case":
        raise ValueError(
            f"{operator!r} of an empty text; write {{'exists': true}} for any value, or '' for the empty text"
        )
    return str(operand)


def _on_text(pattern: Pattern, value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _prefix(operand: object) -> Test:
    if isinstance(operand, Mapping):
        return partial(_on_text, compile_ignoring_case("", ".*", _ignored_case("prefix", operand)))
    text = _text("prefix", operand)
    return lambda value: isinstance(value, str) and value.startswith(text)


def _suffix(operand: object) -> Test:
    if isinstance(operand, Mapping):
        return partial(_on_text, compile_ignoring_case(".*", "", _ignored_case("suffix", operand)))
    text = _text("suffix", operand)
    return lambda value: isinstance(value, str) and value.endswith(text)


def _ignored_case(operator: str, operand: Mapping[str, Any]) -> str:
    if list(operand) != ["equals-ignore-case"]:
        raise ValueError(f"{operator!r} takes text or {{'equals-ignore-case': text}}, not {dict(operand)!r}")
    return _text(operator, operand["equals-ignore-case"])


def _equals_ignore_case(operand: object) -> Test:
    return partial(_on_text, compile_ignoring_case("", "", _text("equals-ignore-case", operand)))


def _wildcard(operand: object) -> Test:
    return partial(_on_text, compile_wildcard(parse_wildcard(_text("wildcard", operand))))


def _cidr(operand: object) -> Test:
    text = _text("cidr", operand)
    remedy = "write an address, a slash and mask bits, 0 to 31 (IPv4) or 0 to 127 (IPv6), as '10.0.0.0/24'"
    address, slash, bits = text.partition("/")
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        network = None
    if network is None or not slash or not bits.isdigit() or network.prefixlen == network.max_prefixlen:
        raise ValueError(f"cidr {text!r} is no range of addresses; {remedy}")
    if not _ADDRESS.fullmatch(address):
        raise ValueError(f"cidr {text!r} has a zone; {remedy}")

    def in_network(value: Any) -> bool:
        if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
            return False
        try:
            return ip_address(value) in network
        except ValueError:
            return False

    return in_network


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numeric(operand: object) -> Test:
    remedy = "write ['=', 5], ['>', 0] or a range from low to high, ['>', 0, '<=', 5]"
    if not isinstance(operand, list | tuple) or len(operand) not in (2, 4):
        raise ValueError(f"numeric {operand!r} is no comparison; {remedy}")
    signs, bounds = list(operand[::2]), list(operand[1::2])
    for sign, bound in zip(signs, bounds, strict=True):
        if not isinstance(sign, str) or sign not in _COMPARISONS:
            raise ValueError(f"numeric: {sign!r} is no comparison; known: {', '.join(_COMPARISONS)}")
        if not _is_number(bound) or not -NUMERIC_LIMIT <= bound <= NUMERIC_LIMIT:
            raise ValueError(f"numeric: {bound!r} is no number from -5.0e9 to 5.0e9, all that are compared")
    if len(signs) == 2 and (signs[0] not in (">", ">=") or signs[1] not in ("<", "<=")):
        raise ValueError(f"numeric {operand!r} is no range; {remedy}")
    if len(signs) == 2 and bounds[0] >= bounds[1]:
        raise ValueError(f"numeric {operand!r} is an empty range; put the lower bound first")
    tests = tuple((_COMPARISONS[sign], bound) for sign, bound in zip(signs, bounds, strict=True))

    def in_range(value: Any) -> bool:
        return (
            _is_number(value)
            and -NUMERIC_LIMIT <= value <= NUMERIC_LIMIT
            and all(compare(value, bound) for compare, bound in tests)
        )

    return in_range


def _anything_but(operand: object) -> Test:
    if isinstance(operand, Mapping):
        return _anything_but_text(operand)
    values = list(operand) if isinstance(operand, list | tuple) else [operand]
    if values and all(isinstance(value, str) for value in values):
        texts = frozenset(map(str, values))
        return lambda value: not (isinstance(value, str) and value in texts)
    if values and all(map(_is_number, values)):
        numbers = frozenset(values)
        return lambda value: not (_is_number(value) and value in numbers)
    raise ValueError(f"'anything-but' takes text or numbers, or a list of one kind, not {operand!r}")


def _anything_but_text(operand: Mapping[str, Any]) -> Test:
    operators = ("prefix", "suffix", "equals-ignore-case", "wildcard")
    operator = next(iter(operand), None)
    if len(operand) != 1 or operator not in operators:
        raise ValueError(f"'anything-but' takes one of {', '.join(operators)}, not {dict(operand)!r}")
    given = operand[operator]
    values = list(given) if isinstance(given, list | tuple) else [given]
    if not values or not all(isinstance(value, str) for value in values):
        raise ValueError(f"'anything-but' with {operator!r} takes text or a list of texts, not {given!r}")
    excluded = tuple(_BUILDERS[operator](value) for value in values)
    return lambda value: not any(test(value) for test in excluded)


_BUILDERS: Final[Mapping[str, Callable[[object], Test]]] = {
    "prefix": _prefix,
    "suffix": _suffix,
    "equals-ignore-case": _equals_ignore_case,
    "anything-but": _anything_but,
    "numeric": _numeric,
    "cidr": _cidr,
    "wildcard": _wildcard,
}
