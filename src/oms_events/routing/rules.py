"""Routing rules: which events go to which platforms, how, and the registry that decides by first match."""

from __future__ import annotations

import re
from bisect import insort
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from functools import cached_property
from typing import Any, Self

from pydantic import Field, ModelWrapValidatorHandler, PrivateAttr, field_validator, model_validator

from oms_events._config import ConfigModel
from oms_events.errors import RuleError
from oms_events.events import EncodedEvent
from oms_events.publishing import ROUTER
from oms_events.routing.conditions import Condition, compile_condition
from oms_events.routing.export import event_pattern
from oms_events.routing.patterns import Pattern, PatternSet, compile_pattern

DEFAULT_PRIORITY = 500
"""Above all default rules, so that a user's rule goes before them."""

_PLATFORM_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


class RoutingStrategy(StrEnum):
    """How the platforms of a rule share its events."""

    ALL = "all"
    PRIMARY_ONLY = "primary_only"
    FAILOVER = "failover"
    CONDITIONAL = "conditional"


class RoutingRule(ConfigModel):
    """Which events (by a regular expression that matches the whole event type) go to which platforms, and how.

    The pattern is RE2's, whose time is linear in the text. A sequence of platforms keeps its order; a set
    means the order in which the router's platforms were registered. `conditions` is a pattern in EventBridge's
    event pattern language over the event's attributes and `data`, with plain equality as its simple form.
    Higher `priority` goes first; `name` defaults to the pattern. Raises `RuleError` with all its problems.
    """

    _error_class = RuleError
    _ordered: bool = PrivateAttr(default=True)

    event_type_pattern: str
    platforms: tuple[str, ...]
    strategy: RoutingStrategy = RoutingStrategy.ALL
    conditions: Mapping[str, Any] | None = None
    priority: int = Field(default=DEFAULT_PRIORITY, strict=True)
    name: str = ""

    def __hash__(self) -> int:
        return hash((self.name, self.event_type_pattern, self.platforms, self.priority))

    @property
    def ordered(self) -> bool:
        """Whether `platforms` came as a sequence, whose order counts."""
        return self._ordered

    @cached_property
    def pattern(self) -> Pattern:
        """The compiled pattern."""
        return compile_pattern(self.event_type_pattern)

    @cached_property
    def condition(self) -> Condition | None:
        """The compiled conditions."""
        return None if self.conditions is None else compile_condition(self.conditions)

    def matches(self, event: EncodedEvent) -> bool:
        """Whether the rule would take the event, were it alone."""
        return self.why_not(event) is None

    def why_not(self, event: EncodedEvent) -> str | None:
        """Why the rule would not take the event, or None when it would."""
        if self.pattern.fullmatch(event.type) is None:
            return "pattern does not match"
        reason = None if self.condition is None else self.condition.why_not(event)
        return None if reason is None else f"condition {reason}"

    def to_event_pattern(self) -> dict[str, Any]:
        """The rule as the pattern of an EventBridge rule on the `wrapped` mapping (`detail.cloudEvents`).

        An event matches it exactly when it matches this rule. Raises `RuleError` that names the part which
        EventBridge cannot say.
        """
        try:
            return event_pattern(self.event_type_pattern, self.condition)
        except ValueError as error:
            raise RuleError(self.name, (str(error),)) from None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields changed, checked as a new rule is."""
        values = {name: getattr(self, name) for name in self.model_fields_set}
        values["platforms"] = self.platforms if self._ordered else frozenset(self.platforms)
        return type(self)(**(values | dict(update or {})))

    @classmethod
    def _subject(cls, values: dict[str, Any]) -> str:
        return str(values.get("name") or values.get("event_type_pattern") or "rule without a name")

    @field_validator("event_type_pattern")
    @classmethod
    def _check_pattern(cls, text: str) -> str:
        if not text:
            raise ValueError("an empty pattern matches no event type; write '.*' to match all")
        compile_pattern(text)
        return text

    @field_validator("platforms", mode="before")
    @classmethod
    def _check_platforms(cls, platforms: object) -> tuple[str, ...]:
        if isinstance(platforms, str | bytes | Mapping) or not isinstance(platforms, Iterable):
            raise ValueError(f"{platforms!r} is no set of platform names; write {{'nats'}} or ['nats']")
        names = tuple(platforms)
        if not names:
            raise ValueError("no platform; name at least one, such as {'nats'}")
        for name in names:
            check_platform_name(name)
        plain = tuple(str(name) for name in names)
        if len(set(plain)) < len(plain):
            raise ValueError(f"a platform stands twice in {list(plain)}; name each once")
        return tuple(sorted(plain)) if isinstance(platforms, set | frozenset) else plain

    @field_validator("conditions")
    @classmethod
    def _check_conditions(cls, conditions: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        if conditions is None:
            return None
        compile_condition(conditions)
        return deepcopy(dict(conditions))

    @model_validator(mode="after")
    def _check_strategy(self) -> Self:
        if self.strategy is RoutingStrategy.CONDITIONAL and self.conditions is None:
            raise ValueError("strategy = 'conditional' without conditions: give conditions, or use strategy 'all'")
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _complete(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        rule = handler(values)
        if isinstance(values, Mapping):
            is_set = isinstance(values["platforms"], set | frozenset)
            rule._ordered = not is_set  # noqa: SLF001 - its own, in a classmethod
            # Not through `model_fields_set`: a copy with another pattern gets that pattern as its name.
            rule.__dict__["name"] = rule.name or rule.event_type_pattern
            # Compiled now, so that what happens to the caller's own objects later changes nothing.
            _ = rule.pattern, rule.condition
        return rule


def check_platform_name(name: object) -> None:
    """Raises `ValueError` for what no platform can be called."""
    if not isinstance(name, str):
        raise ValueError(f"platform {name!r} is no name; write text, such as 'nats'")
    if _PLATFORM_NAME.fullmatch(name) is None:
        raise ValueError(
            f"platform {str(name)!r} is no name that a platform can have; write lower-case letters, digits "
            "and hyphens, at most 63, a letter first"
        )
    if name == ROUTER:
        raise ValueError(f"platform {ROUTER!r} is reserved for the router itself; choose another name")


def unknown_platforms(rule: RoutingRule, known: Collection[str]) -> tuple[str, ...]:
    """The rule's platforms that are not among `known`, in the rule's order."""
    return tuple(name for name in rule.platforms if name not in known)


def unknown_platforms_error(rule: RoutingRule, known: Collection[str]) -> RuleError:
    """The error for a rule whose platforms are not all among `known`, with the nearest known name of each."""
    problems = []
    for name in unknown_platforms(rule, known):
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "register a publisher of that name first"
        problems.append(f"platforms: nobody knows {name!r}; {hint} (known: {', '.join(sorted(known))})")
    return RuleError(rule.name, problems)


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """What one rule says to one event: whether it took it, and why or why not."""

    rule: RoutingRule
    taken: bool
    reason: str


@dataclass(slots=True, order=True)
class _Entry:
    precedence: int
    inserted: int
    rule: RoutingRule = field(compare=False)


Candidates = tuple[tuple[RoutingRule, Condition | None], ...]


class RuleSet:
    """Rules in order of precedence: descending priority, ties by insertion. The first that matches decides.

    Decisions are memoized for the `memo_size` event types used last; conditions are evaluated per event. It
    belongs to one event loop: changes take effect with the next decision. Raises `RuleError` for a name that
    is taken or unknown.
    """

    def __init__(self, rules: Iterable[RoutingRule] = (), *, memo_size: int = 10_000) -> None:
        if memo_size < 1:
            raise ValueError(f"memo_size = {memo_size}: give at least 1")
        self._memo_size = memo_size
        self._entries: list[_Entry] = []
        self._by_name: dict[str, _Entry] = {}
        self._inserted = 0
        self._memo: OrderedDict[str, Candidates] = OrderedDict()
        self._patterns: PatternSet | None = None
        self.replace_all(rules)

    def __iter__(self) -> Iterator[RoutingRule]:
        return iter([entry.rule for entry in self._entries])

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def get(self, name: str) -> RoutingRule | None:
        """The rule of that name, or None."""
        entry = self._by_name.get(name)
        return None if entry is None else entry.rule

    def add(self, rule: RoutingRule, *, replace: bool = False) -> None:
        """Adds a rule; with `replace` it takes the place of one of the same name, if there is one.

        A rule that replaces another keeps its place among rules of equal priority.
        """
        before = self._by_name.get(rule.name)
        if before is not None:
            if not replace:
                raise _taken(rule)
            self._entries.remove(before)
            inserted = before.inserted
        else:
            self._inserted += 1
            inserted = self._inserted
        entry = _Entry(-rule.priority, inserted, rule)
        insort(self._entries, entry)
        self._by_name[rule.name] = entry
        self._forget()

    def remove(self, name: str) -> RoutingRule:
        """Removes the rule of that name and returns it."""
        entry = self._by_name.pop(name, None)
        if entry is None:
            known = ", ".join(repr(known) for known in self._by_name) or "none"
            raise RuleError(name, (f"no rule of this name to remove; rules: {known}",))
        self._entries.remove(entry)
        self._forget()
        return entry.rule

    def replace_all(self, rules: Iterable[RoutingRule]) -> None:
        """Puts these rules in the place of all others, or changes nothing when two have the same name."""
        by_name: dict[str, _Entry] = {}
        for inserted, rule in enumerate(rules):
            if rule.name in by_name:
                raise _taken(rule)
            by_name[rule.name] = _Entry(-rule.priority, inserted, rule)
        self._by_name = by_name
        self._entries = sorted(by_name.values())
        self._inserted = len(by_name)
        self._forget()

    def decide(self, event: EncodedEvent) -> RoutingRule | None:
        """The first rule that takes the event, or None."""
        try:
            candidates = self._memo[event.type]
            self._memo.move_to_end(event.type)
        except KeyError:
            candidates = self._remember(event.type)
        for rule, condition in candidates:
            if condition is None or condition.matches(event):
                return rule
        return None

    def explain(self, event: EncodedEvent) -> tuple[RuleVerdict, ...]:
        """What each rule says to the event, in order of precedence."""
        verdicts = []
        taker: RoutingRule | None = None
        for entry in self._entries:
            reason = entry.rule.why_not(event)
            if reason is not None:
                verdicts.append(RuleVerdict(entry.rule, False, reason))
            elif taker is not None:
                verdicts.append(RuleVerdict(entry.rule, False, f"an earlier rule took it: {taker.name!r}"))
            else:
                taker = entry.rule
                verdicts.append(RuleVerdict(taker, True, "the first rule that matches"))
        return tuple(verdicts)

    def _remember(self, event_type: str) -> Candidates:
        if self._patterns is None:
            self._patterns = PatternSet(entry.rule.pattern for entry in self._entries)
        candidates = _up_to_first_unconditional(
            [self._entries[at].rule for at in self._patterns.matches(event_type)]
        )
        self._memo[event_type] = candidates
        if len(self._memo) > self._memo_size:
            self._memo.popitem(last=False)
        return candidates

    def _forget(self) -> None:
        self._memo.clear()
        self._patterns = None


def _up_to_first_unconditional(rules: Sequence[RoutingRule]) -> Candidates:
    candidates = []
    for rule in rules:
        candidates.append((rule, rule.condition))
        if rule.condition is None:
            break
    return tuple(candidates)


def _taken(rule: RoutingRule) -> RuleError:
    return RuleError(rule.name, ("another rule has this name; give it a name of its own, or replace that rule",))
