"""Conditions: patterns in EventBridge's event pattern language over an event's attributes and `data`.

The meaning is that of the EventBridge user guide ("Comparison operators for use in event patterns"); where
the guide is silent, that of the open engine, aws/event-ruler. On purpose stricter: what EventBridge would take
as a field name or match never (an empty prefix, an operator outside a list) is an error. Known difference:
`exists: false` below an array of objects means that no element has the field, while event-ruler looks at the
element that alphabetically earlier fields chose.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson

from oms_events._config import MAX_DEPTH, check_depth
from oms_events.events import EncodedEvent
from oms_events.routing.operators import OPERATORS, Leaf, Path, json_text, parse_leaf

OR: Final = "$or"

MAX_COMBINATIONS: Final = 1_000
"""EventBridge refuses patterns whose `$or` make more combinations (user guide, "Or" matching)."""

_ATTRIBUTE_NAME = re.compile(r"[a-z0-9]+")
_RESERVED_IN_OR: Final = frozenset((*OPERATORS, "=", "<", "<=", ">", ">=", "exactly", "regex"))
_MISSING: Final = object()
_SHOWN: Final = 80

Normal = dict[str, Any]
Tree = dict[str, Any]
"""Field name to `Leaf` or `Tree`; built by this module only."""


class DocumentPattern:
    """A compiled pattern over a JSON object."""

    __slots__ = ("_branches", "_normal", "fields")

    def __init__(self, normal: Normal) -> None:
        self._normal = normal
        self._branches = [_tree(branch) for branch in _branches(normal, ())]
        self.fields = tuple(dict.fromkeys(field for branch in self._branches for field in branch))

    def matches(self, document: Mapping[str, Any]) -> bool:
        """Whether the pattern matches the object."""
        return any(_matches(branch, document, document) for branch in self._branches)

    def why_not(self, document: Mapping[str, Any]) -> str | None:
        """The first field that does not match and why, or None when the pattern matches."""
        reasons = []
        for branch in self._branches:
            reason = _reason(branch, (), document, document)
            if reason is None:
                return None
            reasons.append(reason)
        distinct = list(dict.fromkeys(reasons))
        if len(distinct) == 1:
            return distinct[0]
        more = f" and {len(distinct) - 3} more" if len(distinct) > 3 else ""
        return f"no way through $or: {'; '.join(distinct[:3])}{more}"

    def to_pattern(self) -> dict[str, Any]:
        """The pattern in normal form: nested objects, a list of alternatives at every leaf."""
        return {field: _copy(value) for field, value in self._normal.items()}


class Condition:
    """A compiled condition on events: its root fields are attributes, extensions too, and `data`.

    `time` and other times are matched as their RFC 3339 text. Data that is bytes has no fields and does not
    exist; text is one string.
    """

    __slots__ = ("_pattern",)

    def __init__(self, pattern: DocumentPattern) -> None:
        self._pattern = pattern

    def matches(self, event: EncodedEvent) -> bool:
        """Whether the event fulfils the condition."""
        return self._pattern.matches(self._view(event))

    def why_not(self, event: EncodedEvent) -> str | None:
        """The first field that does not match and why, or None when the condition is fulfilled."""
        return self._pattern.why_not(self._view(event))

    def names(self, field: str) -> bool:
        """Whether the condition looks at that attribute, or at `data`."""
        return field in self._pattern.fields

    def to_pattern(self) -> dict[str, Any]:
        """The condition in EventBridge's JSON, relative to the event."""
        return self._pattern.to_pattern()

    def _view(self, event: EncodedEvent) -> dict[str, Any]:
        view = {}
        for field in self._pattern.fields:
            value = _data(event) if field == "data" else event.attributes.get(field, _MISSING)
            if value is not _MISSING:
                view[field] = value
        return view


def compile_condition(pattern: Mapping[str, Any]) -> Condition:
    """Compiles a condition: an EventBridge pattern, or its simple form.

    In the simple form a value without a list means exactly that value, and a key with dots is a path
    (`{"branch": "main", "data.status": "approved"}`). Raises `ValueError` that names path, value and remedy.
    """
    check_depth(pattern)
    return Condition(DocumentPattern(_normalize(pattern, (), _check_root, simple=True)))


def compile_document_pattern(pattern: Mapping[str, Any]) -> DocumentPattern:
    """Compiles a whole EventBridge rule pattern, without the simple forms. Raises `ValueError`."""
    check_depth(pattern)
    return DocumentPattern(_normalize(pattern, (), lambda path: None, simple=False))


def _normalize(
    pattern: object, path: Path, check: Callable[[Path], None], *, simple: bool, in_or: bool = False
) -> Normal:
    where = _name(path) or "conditions"
    if not isinstance(pattern, Mapping):
        raise ValueError(f"{where}: {pattern!r} is no object of fields")
    if not pattern:
        raise ValueError(f"{where}: an empty object says nothing; name at least one field")
    normal: Normal = {}
    for key, value in pattern.items():
        if not isinstance(key, str) or not key:
            raise ValueError(f"{where}: {key!r} is no field name; write text")
        if key == OR:
            normal[OR] = _normalize_or(value, path, check, simple=simple)
            continue
        steps = tuple(key.split(".")) if simple else (key,)
        here = (*path, *steps)
        if len(here) > MAX_DEPTH:
            raise ValueError(f"{where}: has a path of more than {MAX_DEPTH} names; make it shorter")
        _check_steps(steps, here, value, in_or=in_or)
        check(here)
        if isinstance(value, Mapping):
            content: Any = _normalize(value, here, check, simple=simple, in_or=in_or)
        elif isinstance(value, list | tuple):
            content = _copy(value)
        elif simple and (value is None or isinstance(value, str | int | float)):
            content = [value]
        else:
            raise ValueError(f"{_name(here)}: {value!r} is no list of values; write [{value!r}]")
        for step in reversed(steps):
            content = {step: content}
        _merge(normal, content, path)
    return normal


def _normalize_or(value: object, path: Path, check: Callable[[Path], None], *, simple: bool) -> list[Normal]:
    if not isinstance(value, list | tuple) or len(value) < 2:
        raise ValueError(f"{_name((*path, OR))}: {value!r} is no choice; write a list of at least two objects")
    return [_normalize(item, path, check, simple=simple, in_or=True) for item in value]


def _check_steps(steps: Path, here: Path, value: object, *, in_or: bool) -> None:
    if "" in steps or OR in steps:
        raise ValueError(f"{_name(here)}: a path has a name between its dots, and $or stands alone as a key")
    if in_or and not _RESERVED_IN_OR.isdisjoint(steps):
        raise ValueError(f"{_name(here)}: EventBridge reserves operator names below $or; put it outside")
    if len(steps) == 1 and steps[0] in OPERATORS:
        raise ValueError(
            f"{_name(here)}: operators stand in a list, write [{{{steps[0]!r}: {value!r}}}]; a field of that "
            f"name is tested by the dotted path {_name(here)!r}"
        )


def _check_root(path: Path) -> None:
    root = path[0]
    if _ATTRIBUTE_NAME.fullmatch(root) is None:
        raise ValueError(
            f"{_name(path)}: {root!r} is no attribute, whose names are lower-case letters and digits; "
            f"for a field of the data write 'data.{_name(path)}'"
        )
    if root != "data" and len(path) > 1:
        raise ValueError(
            f"{_name(path)}: attribute {root!r} has no fields, only 'data' has; "
            f"for a field of the data write 'data.{_name(path)}'"
        )


def _merge(into: Normal, more: Normal, path: Path) -> None:
    for key, value in more.items():
        if key not in into:
            into[key] = value
        elif isinstance(into[key], dict) and isinstance(value, dict):
            _merge(into[key], value, (*path, key))
        else:
            raise _twice((*path, key))


def _twice(path: Path) -> ValueError:
    return ValueError(
        f"{_name(path)}: stands twice, which EventBridge reads as the last alone; put all its alternatives "
        "into one list, or into every part of $or"
    )


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    return str(value) if isinstance(value, str) else value


def _name(path: Path) -> str:
    return ".".join(path)


def _branches(normal: Normal, path: Path) -> list[dict[Path, Leaf]]:
    """The ways through all `$or`: each is one conjunction of leaves, which arrays must fulfil together."""
    found: list[dict[Path, Leaf]] = [{}]
    for key, value in normal.items():
        here = (*path, key)
        if key == OR:
            options = [branch for item in value for branch in _branches(item, path)]
        elif isinstance(value, dict):
            options = _branches(value, here)
        else:
            options = [{here: parse_leaf(here, value)}]
        if len(found) * len(options) > MAX_COMBINATIONS:
            raise ValueError(
                f"$or makes more than {MAX_COMBINATIONS} combinations, which EventBridge refuses; "
                "split the rule in several"
            )
        found = [_join(first, second) for first in found for second in options]
    return found


def _join(first: dict[Path, Leaf], second: dict[Path, Leaf]) -> dict[Path, Leaf]:
    for path in second:
        if path in first:
            raise _twice(path)
    return first | second


def _tree(branch: dict[Path, Leaf]) -> Tree:
    tree: Tree = {}
    for path, leaf in branch.items():
        node = tree
        for step in path[:-1]:
            node = node.setdefault(step, {})
            if isinstance(node, Leaf):
                raise _twice(path)
        if path[-1] in node:
            raise _twice(path)
        node[path[-1]] = leaf
    return tree


def _matches(tree: Tree, value: Any, root: Mapping[str, Any]) -> bool:
    if isinstance(value, dict):
        return _fields_match(tree, value, root)
    return any(_fields_match(tree, element, root) for element in _elements(value))


def _fields_match(tree: Tree, element: Any, root: Mapping[str, Any]) -> bool:
    fields = element if isinstance(element, Mapping) else {}
    for key, child in tree.items():
        below = fields.get(key, _MISSING)
        if not (_leaf_matches if isinstance(child, Leaf) else _matches)(child, below, root):
            return False
    return True


def _leaf_matches(leaf: Leaf, value: Any, root: Mapping[str, Any]) -> bool:
    if isinstance(value, str):
        return leaf.matches(value)
    if any(leaf.matches(scalar) for scalar in _scalars(value)):
        return True
    return leaf.may_be_absent and not _exists(leaf.path, root)


def _exists(path: Path, root: Mapping[str, Any]) -> bool:
    values: list[Any] = [root]
    for step in path:
        values = [
            element[step]
            for value in values
            for element in _elements(value)
            if isinstance(element, Mapping) and step in element
        ]
    return any(True for value in values for _ in _scalars(value))


def _elements(value: Any) -> Iterator[Any]:
    """The value, or what is in it when it is an array, however nested; an empty array is like no field."""
    if not isinstance(value, list | tuple):
        yield _plain(value)
        return
    waiting = list(reversed(value)) or [_MISSING]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list | tuple):
            waiting.extend(reversed(item))
        else:
            yield _plain(item)


def _scalars(value: Any) -> Iterator[Any]:
    return (item for item in _elements(value) if item is not _MISSING and not isinstance(item, Mapping))


def _plain(value: Any) -> Any:
    """What JSON has for a value that JSON does not know: a time's text, a dataclass's fields."""
    if value is None or value is _MISSING or isinstance(value, str | int | float | Mapping):
        return value
    try:
        return orjson.loads(orjson.dumps(value, option=orjson.OPT_UTC_Z))
    except TypeError:
        return _MISSING


def _data(event: EncodedEvent) -> Any:
    data = event.data
    if not event.payload or isinstance(data, bytes | bytearray | memoryview):
        return "" if isinstance(data, str) else _MISSING
    return data


def _reason(tree: Tree, path: Path, value: Any, root: Mapping[str, Any]) -> str | None:
    if _matches(tree, value, root):
        return None
    if isinstance(value, list | tuple) and value:
        return f"{_name(path)}: no element matches"
    fields = next(_elements(value))
    for key, child in tree.items():
        here = (*path, key)
        below = fields.get(key, _MISSING) if isinstance(fields, Mapping) else _MISSING
        if not isinstance(child, Leaf):
            reason = _reason(child, here, below, root)
            if reason is not None:
                return reason
        elif not _leaf_matches(child, below, root):
            return f"{_name(here)}: {_shown(below)} is not {child.wanted}"
    return None


def _shown(value: Any) -> str:
    scalars = [
        repr(item) if isinstance(item, str) else json_text(item) for item in _scalars(value)
    ]  # fmt: skip
    if not scalars:
        return "an object" if isinstance(value, Mapping) else "missing, which"
    text = scalars[0] if len(scalars) == 1 else f"[{', '.join(scalars)}]"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
