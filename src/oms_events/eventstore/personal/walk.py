"""Goes through a model's data, and puts something else where it is personal. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import repeat
from typing import Any, NamedTuple

from pydantic import BaseModel, RootModel

from oms_events.errors import PersonalDataError
from oms_events.eventstore.personal.annotations import EXTRAS, is_named_tuple
from oms_events.eventstore.personal.marks import (
    Anything,
    Choice,
    Items,
    Leaf,
    Nested,
    Node,
    Places,
    Unreachable,
)
from oms_events.eventstore.personal.parts import (
    check_marks,
    has_own_form,
    hidden_fields,
    is_clear,
    key_of,
    parts_of,
    why_unclear,
)

Path = tuple[str | int, ...]


class Around(NamedTuple):
    """A model and its data, and the ones around it."""

    model: type[BaseModel]
    data: Any
    outer: Around | None


class Found(NamedTuple):
    """A personal value: where it is, its JSON and its replacement's, and the field that says whose it is."""

    where: str
    value: Any
    otherwise: Any
    subject_field: str | None
    around: Around

    def subject(self, default: str) -> str:
        """Whose data it is. Raises `PersonalDataError` when the field does not say it."""
        if self.subject_field is None:
            return default
        scope: Around | None = self.around
        while scope is not None:
            if self.subject_field in scope.model.model_fields and isinstance(scope.data, dict):
                subject = scope.data.get(key_of(scope.model, self.subject_field))
                if isinstance(subject, int) and not isinstance(subject, bool):
                    subject = str(subject)
                if isinstance(subject, str) and subject:
                    return subject
                break
            scope = scope.outer
        field = self.subject_field
        raise PersonalDataError(
            f"{self.where}: the field {field!r} does not say whose it is; give it text or a number"
        )


Replace = Callable[[Found], Any]


def rewritten(model: BaseModel, data: dict[str, Any], replace: Replace) -> dict[str, Any]:
    """The model's data with other values where it is personal; the same object when nothing is.

    `data` is what `model_dump(mode="json", by_alias=True)` gives, and stays as it is. None is nothing personal.
    Raises `ConfigurationError` for marks in error, `PersonalDataError` for data of another form than its model and
    for values in which personal data would not be found.
    """
    if not check_marks(type(model)):
        return data
    changed: dict[str, Any] = _Rewriting(replace).of_model(model, type(model), data, (), None)
    return changed


def without_personal(model: BaseModel, data: dict[str, Any]) -> dict[str, Any]:
    """The model's data as it is read once the keys are deleted. Raises as `rewritten` does."""
    return rewritten(model, data, lambda found: found.otherwise)


class _Rewriting:
    def __init__(self, replace: Replace) -> None:
        self._replace = replace

    def of_model(
        self, value: BaseModel, model: type[BaseModel], data: Any, path: Path, outer: Around | None
    ) -> Any:
        """Of a value that is written as `model` says, which is its own class or one above it."""
        kind = type(value)
        if kind is not model and (hidden := hidden_fields(kind, model)):
            text = f"is a {kind.__name__}, whose field {hidden[0]!r} is not marked in {model.__name__}"
            raise PersonalDataError(f"{_said(path) or 'data'} {text}; mark it there")
        if has_own_form(model) and not isinstance(value, RootModel):
            # In what a serializer writes nothing is found again: what it is given must be clear, all of it.
            for part in parts_of(kind):
                written = data.get(part.key, {}) if isinstance(data, dict) else {}
                _clear(getattr(value, part.name), written, (*path, part.name))
            return data
        around = Around(model, data, outer)
        changed: dict[str, Any] = {}
        for part in parts_of(model):
            if isinstance(value, RootModel):
                return self._of(part.node, value.root, data, path, around)
            if not isinstance(data, dict):
                raise _another_form(path, data, f"the object of a {model.__name__}")
            if part.name == EXTRAS:
                keys = {key_of(model, name) for name in model.model_fields}
                extras = {key: each for key, each in (value.__pydantic_extra__ or {}).items() if key not in keys}
            elif part.key in data:
                extras = {part.key: getattr(value, part.name)}
            elif _may_be_left_out(model, part.name):
                # What is not written is nobody's to protect.
                continue
            else:
                raise _another_form(path, data, f"the object of a {model.__name__} with {part.key!r}")
            for key, each in extras.items():
                before = data[key]
                after = self._of(part.node, each, before, (*path, key), around)
                if after is not before:
                    changed[key] = after
        return {**data, **changed} if changed else data

    def _of(self, node: Node, value: Any, data: Any, path: Path, around: Around) -> Any:
        if data is None:
            return None
        match node:
            case Leaf():
                return self._replace(Found(_said(path), data, node.otherwise, node.subject, around))
            case Nested(model):
                if not isinstance(value, model):
                    raise _another_form(path, data, f"a {model.__name__}")
                return self.of_model(value, model, data, path, around)
            case Items(inner, of_mapping):
                if of_mapping:
                    return self._of_mapping(inner, value, data, path, around)
                return self._of_list(repeat(inner), value, data, path, around)
            case Places(nodes):
                if not isinstance(value, tuple) or len(value) != len(nodes):
                    raise _another_form(path, data, f"a list of {len(nodes)}")
                return self._of_list(nodes, value, data, path, around)
            case Choice(nodes):
                return self._of(_chosen(nodes, value, data, path), value, data, path, around)
            case Unreachable():
                return _clear(value, data, path)
            case Anything():
                return self._of_anything(node, value, data, path, around)

    def _of_anything(self, node: Anything, value: Any, data: Any, path: Path, around: Around) -> Any:
        if isinstance(value, BaseModel):
            return self.of_model(value, type(value), data, path, around)
        if isinstance(value, Mapping) and isinstance(data, dict):
            return self._of_mapping(node, value, data, path, around)
        is_list = isinstance(value, list | tuple | set | frozenset | deque) and not is_named_tuple(type(value))
        if is_list and isinstance(data, list):
            return self._of_list(repeat(node), value, data, path, around)
        return _clear(value, data, path)

    def _of_mapping(self, node: Node, value: Any, data: Any, path: Path, around: Around) -> Any:
        if not (isinstance(value, Mapping) and isinstance(data, dict) and len(data) == len(value)):
            raise _another_form(path, data, "an object of as many members")
        changed = {}
        for (key, inner), (name, before) in zip(value.items(), data.items(), strict=True):
            _clear(key, name, path)
            after = self._of(node, inner, before, (*path, name), around)
            if after is not before:
                changed[name] = after
        return {**data, **changed} if changed else data

    def _of_list(self, nodes: Iterable[Node | None], value: Any, data: Any, path: Path, around: Around) -> Any:
        if not (isinstance(value, Collection) and isinstance(data, list) and len(data) == len(value)):
            raise _another_form(path, data, "a list of as many elements")
        after = [
            before if node is None else self._of(node, inner, before, (*path, index), around)
            for index, (node, inner, before) in enumerate(zip(nodes, value, data, strict=False))
        ]
        return data if all(new is old for new, old in zip(after, data, strict=True)) else after


def _chosen(nodes: tuple[Node, ...], value: Any, data: Any, path: Path) -> Node:
    # As pydantic does: first the very class, then the classes above it.
    for node in nodes:
        if isinstance(node, Nested) and type(value) is node.model:
            return node
    for node in nodes:
        if _fits(node, value):
            return node
    raise _another_form(path, data, "one of its union")


def _fits(node: Node, value: Any) -> bool:
    match node:
        case Nested(model):
            return isinstance(value, model)
        case Items(_, of_mapping):
            is_some = isinstance(value, Collection) and not isinstance(value, BaseModel | str | bytes)
            return is_some and isinstance(value, Mapping) is of_mapping
        case Places(nodes):
            return isinstance(value, tuple) and len(value) == len(nodes)
        case _:
            return isinstance(node, Anything)


def _clear(value: Any, data: Any, path: Path) -> Any:
    """The data of a value that has nothing personal. Raises `PersonalDataError` for others.

    Values of unknown classes may be one text or number in JSON: no mark says anything of them.
    """
    if is_clear(value, others=not isinstance(data, dict | list)):
        return data
    text = f"{_said(path) or 'data'} {why_unclear(value)}"
    raise PersonalDataError(f"{text}, or mark the whole field: with NotPersonal() when nothing in it is personal")


def _may_be_left_out(model: type[BaseModel], name: str) -> bool:
    field = model.model_fields[name]
    return bool(field.exclude) or getattr(field, "exclude_if", None) is not None


def _another_form(path: Path, data: Any, expected: str) -> PersonalDataError:
    text = (
        f"{_said(path) or 'data'} is written as {type(data).__name__}, and not as {expected}, so that what is "
        "personal in it is not found; mark the whole field, or leave its serializer out"
    )
    return PersonalDataError(text)


def _said(path: Path) -> str:
    return ".".join(map(str, path))
