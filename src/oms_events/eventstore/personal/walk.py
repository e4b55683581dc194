"""Goes through a model's data, and puts something else where it is personal. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, RootModel

from oms_events.errors import PersonalDataError
from oms_events.eventstore.personal.marks import (
    Anything,
    Choice,
    Items,
    Leaf,
    Nested,
    Node,
    Places,
    check_marks,
    key_of,
    parts_of,
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
    Raises `ConfigurationError` for marks in error, `PersonalDataError` for data of another form than its model.
    """
    if not check_marks(type(model)):
        return data
    changed: dict[str, Any] = _Rewriting(replace).of_model(model, data, (), None)
    return changed


def without_personal(model: BaseModel, data: dict[str, Any]) -> dict[str, Any]:
    """The model's data as it is read once the keys are deleted. Raises as `rewritten` does."""
    return rewritten(model, data, lambda found: found.otherwise)


class _Rewriting:
    def __init__(self, replace: Replace) -> None:
        self._replace = replace

    def of_model(self, value: BaseModel, data: Any, path: Path, outer: Around | None) -> Any:
        model = type(value)
        around = Around(model, data, outer)
        changed: dict[str, Any] = {}
        for part in parts_of(model):
            if isinstance(value, RootModel):
                return self._of(part.node, value.root, data, path, around)
            if not isinstance(data, dict):
                raise _another_form(path, data, f"the object of a {model.__name__}")
            # A field that is not written, as it is excluded, is nobody's to protect.
            if part.key in data:
                before = data[part.key]
                after = self._of(part.node, getattr(value, part.name), before, (*path, part.key), around)
                if after is not before:
                    changed[part.key] = after
        return {**data, **changed} if changed else data

    def _of(self, node: Node, value: Any, data: Any, path: Path, around: Around) -> Any:
        if data is None:
            return None
        match node:
            case Leaf():
                return self._replace(Found(_said(path), data, node.otherwise, node.subject, around))
            case Nested():
                if not isinstance(value, BaseModel):
                    raise _another_form(path, data, f"a {node.model.__name__}")
                return self.of_model(value, data, path, around)
            case Items(inner, of_mapping):
                if of_mapping:
                    return self._of_mapping(inner, value, data, path, around)
                return self._of_list([inner] * len(value), value, data, path, around)
            case Places(nodes):
                return self._of_list(nodes, value, data, path, around)
            case Choice(nodes):
                fitting = next((inner for inner in nodes if _fits(inner, value)), None)
                return data if fitting is None else self._of(fitting, value, data, path, around)
            case Anything():
                return self._of_anything(value, data, path, around)
            case _:
                return data

    def _of_anything(self, value: Any, data: Any, path: Path, around: Around) -> Any:
        anything = Anything()
        if isinstance(value, BaseModel):
            return self.of_model(value, data, path, around)
        if isinstance(value, Mapping):
            return self._of_mapping(anything, value, data, path, around)
        if isinstance(value, list | tuple | set | frozenset):
            return self._of_list([anything] * len(value), value, data, path, around)
        return data

    def _of_mapping(self, node: Node, value: Any, data: Any, path: Path, around: Around) -> Any:
        if not isinstance(data, dict) or len(data) != len(value):
            raise _another_form(path, data, "an object of as many members")
        changed = {}
        for inner, (name, before) in zip(value.values(), data.items(), strict=True):
            after = self._of(node, inner, before, (*path, name), around)
            if after is not before:
                changed[name] = after
        return {**data, **changed} if changed else data

    def _of_list(self, nodes: Iterable[Node | None], value: Any, data: Any, path: Path, around: Around) -> Any:
        if not isinstance(data, list) or len(data) != len(value):
            raise _another_form(path, data, "a list of as many elements")
        after = [
            before if node is None else self._of(node, inner, before, (*path, index), around)
            for index, (node, inner, before) in enumerate(zip(nodes, value, data, strict=True))
        ]
        return data if all(new is old for new, old in zip(after, data, strict=True)) else after


def _fits(node: Node, value: Any) -> bool:
    match node:
        case Nested(model):
            return isinstance(value, model)
        case Items(_, of_mapping):
            is_some = isinstance(value, Collection) and not isinstance(value, str | bytes)
            return is_some and isinstance(value, Mapping) is of_mapping
        case Places(nodes):
            return isinstance(value, tuple) and len(value) == len(nodes)
        case _:
            return isinstance(node, Anything)


def _another_form(path: Path, data: Any, expected: str) -> PersonalDataError:
    text = (
        f"{_said(path) or 'data'} is written as {type(data).__name__}, and not as {expected}, so that what is "
        "personal in it is not found; mark the whole field, or leave its serializer out"
    )
    return PersonalDataError(text)


def _said(path: Path) -> str:
    return ".".join(map(str, path))
