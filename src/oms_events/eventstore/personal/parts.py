"""Which fields of models are personal data, and which values have none for certain. Pure."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from pydantic import BaseModel

from oms_events.errors import ConfigurationError
from oms_events.eventstore.personal.annotations import (
    EXTRAS,
    PLAIN,
    Search,
    by_value,
    extras_hint,
    has_members,
    in_own_form,
    members_of,
    says_not_personal,
    whole_of,
)
from oms_events.eventstore.personal.marks import Leaf, Nested, Node, Personal, Unreachable, flat, is_marked


class Part(NamedTuple):
    """A field in which something may be personal: its name, its name in JSON, and where in it to look.

    What a model has beyond its fields is one part, named `EXTRAS`.
    """

    name: str
    key: str
    node: Node


@cache
def parts_of(model: type[BaseModel]) -> tuple[Part, ...]:
    """The fields of a model in which something may be personal. Raises `ConfigurationError` for marks in error."""
    parts = _all_parts(model)
    problems = [
        f"{model.__name__}.{part.name}: {node.problem}"
        for part in parts
        for node in flat(part.node)
        if isinstance(node, Unreachable) and _is_personal(node.node)
    ]
    if problems:
        raise ConfigurationError(f"personal data of {model.__name__}", dict.fromkeys(problems))
    return parts


@cache
def check_marks(model: type[BaseModel]) -> bool:
    """Whether something in the model may be personal. Raises `ConfigurationError` with all that is wrong.

    Looks also at the subjects, which may be fields of the models around.
    """
    if problems := list(dict.fromkeys(_wrong_subjects(model, ()))):
        raise ConfigurationError(f"personal data of {model.__name__}", problems)
    return bool(parts_of(model))


@cache
def marked_fields(model: type[BaseModel]) -> frozenset[str]:
    """The names of the fields that are personal, wholly or in parts; models in them have marks of their own."""
    return frozenset(part.name for part in parts_of(model) if is_marked(part.node))


@cache
def hidden_fields(kind: type[BaseModel], declared: type[BaseModel]) -> tuple[str, ...]:
    """The fields that are marked in a model, but not in the one above it that says how it is written."""
    parts = parts_of(declared)
    return tuple(
        part.name
        for part in parts_of(kind)
        if is_marked(part.node) and part.name in declared.model_fields and part not in parts
    )


def key_of(model: type[BaseModel], name: str) -> str:
    """The name of a field in JSON."""
    return model.model_fields[name].serialization_alias or name


def is_clear(value: object, *, others: bool = False, unread: bool = False) -> bool:
    """Whether a value has nothing personal in it, however it is written. `others` says it of unknown classes.

    `unread`: its annotation cannot be read, so that texts and numbers in it may be marked.
    Raises `ConfigurationError` for marks in error.
    """
    inner: Any
    kind: Any = type(value)
    match value:
        case BaseModel():
            if marked_fields(kind):
                return False
            extras = value.__pydantic_extra__ or {}
            inner = (*(getattr(value, name, None) for name in _looked_at(kind)), *extras.values())
            unread = False
        case Mapping():
            inner = (*value, *value.values())
        case _ if isinstance(value, PLAIN):
            return value is None or not unread
        case _ if has_members(kind):
            if not _has_no_marks(kind):
                return False
            is_class = dataclasses.is_dataclass(kind)
            names = [each.name for each in dataclasses.fields(kind)] if is_class else kind._fields
            without = _unread(kind)
            return all(
                is_clear(getattr(value, name, None), others=others, unread=name in without) for name in names
            )
        case list() | tuple() | set() | frozenset() | deque():
            inner = value
        case _:
            return others and not unread
    return all(is_clear(each, others=others, unread=unread) for each in inner)


def why_unclear(value: object) -> str:
    """What to say of a value that is not clear."""
    text = f"is a {type(value).__name__}, in which personal data would not be found"
    if isinstance(value, Iterator):
        return f"{text}; give list[...] or Sequence[...] instead of Iterable[...] or Generator[...]"
    return f"{text}; make it a pydantic model"


@cache
def _looked_at(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(name for name, field in model.model_fields.items() if not says_not_personal(field.metadata))


@cache
def _unread(kind: type) -> Iterable[str]:
    return members_of(kind, {})[1]


@cache
def _has_no_marks(kind: type) -> bool:
    search = Search(kind.__name__)
    node = search.inside(kind)
    return not search.problems and (node is None or not _is_personal(node))


def _is_personal(node: Node) -> bool:
    return any(isinstance(inner, Leaf) for inner in _all_inside(node, set()))


def _all_inside(node: Node, seen: set[type[BaseModel]]) -> Iterator[Node]:
    """The nodes in a node and in the models that it leads to; each model once."""
    for inner in flat(node):
        yield inner
        if isinstance(inner, Nested) and inner.model not in seen:
            seen.add(inner.model)
            for part in _all_parts(inner.model):
                yield from _all_inside(part.node, seen)


def _wrong_subjects(model: type[BaseModel], around: tuple[type[BaseModel], ...]) -> Iterator[str]:
    if model in around:
        return
    around = (model, *around)
    for part in parts_of(model):
        for node in flat(part.node):
            if isinstance(node, Nested):
                yield from _wrong_subjects(node.model, around)
            elif isinstance(node, Leaf) and node.subject is not None:
                yield from _wrong_subject(f"{model.__name__}.{part.name}", node.subject, around)


def _wrong_subject(where: str, name: str, around: tuple[type[BaseModel], ...]) -> Iterator[str]:
    owner = next((model for model in around if name in model.model_fields), None)
    if owner is None:
        yield f"{where}: subject = {name!r} is no field of {around[0].__name__}, nor of a model around it"
    elif owner.model_fields[name].exclude:
        yield f"{where}: its subject {name!r} is excluded from what is written; leave `exclude` out"
    elif any(part.name == name and _is_personal(part.node) for part in parts_of(owner)):
        yield f"{where}: its subject {name!r} is personal itself; name a field that is not"


@cache
def _all_parts(model: type[BaseModel]) -> tuple[Part, ...]:
    problems: list[str] = []
    nodes = {name: _in_field(model, name, problems) for name in model.model_fields}
    if model.model_config.get("extra") == "allow":
        nodes[EXTRAS] = _in_extras(model, problems)
    if problems:
        raise ConfigurationError(f"personal data of {model.__name__}", problems)
    if has_own_form(model):
        problem = "its model has a serializer of its own; give serializers to fields instead"
        nodes = {name: None if node is None else Unreachable(node, problem) for name, node in nodes.items()}
    return tuple(
        Part(name, name if name == EXTRAS else key_of(model, name), node)
        for name, node in nodes.items()
        if node is not None
    )


def _in_field(model: type[BaseModel], name: str, problems: list[str]) -> Node | None:
    field = model.model_fields[name]
    search = Search(f"{model.__name__}.{name}", _names_around(model))
    if isinstance(field.default, Personal):
        problems.append(f"{model.__name__}.{name}: a mark is no default; write Annotated[..., Personal()]")
    node = search.inside(whole_of(field))
    problems += search.problems
    serializers = model.__pydantic_decorators__.field_serializers.values()
    if any(not {name, "*"}.isdisjoint(serializer.info.fields) for serializer in serializers):
        return in_own_form(node, "has a serializer; mark the whole field")
    return node


def _in_extras(model: type[BaseModel], problems: list[str]) -> Node | None:
    search = Search(f"{model.__name__}.{EXTRAS}")
    try:
        node = by_value(search.inside(extras_hint(model)))
    except NameError as error:
        problems.append(f"{model.__name__}.{EXTRAS}: its annotation cannot be read ({error})")
        return None
    problems += search.problems
    return node


def _names_around(model: type[BaseModel]) -> dict[str, Any]:
    """Those of the function in which it is defined, as pydantic reads its annotations."""
    names = {}
    for name, held in (model.__pydantic_parent_namespace__ or {}).items():
        # Classes are held there by weak references of pydantic's own.
        value = held() if type(held).__module__.startswith("pydantic._internal") else held
        if value is not None:
            names[name] = value
    return names


@cache
def has_own_form(model: type[BaseModel]) -> bool:
    """Whether it is written by a serializer or schema of its own, in whatever form."""
    own: Any = model.__get_pydantic_core_schema__
    usual: Any = BaseModel.__get_pydantic_core_schema__
    is_root = model.__pydantic_root_model__
    return bool(model.__pydantic_decorators__.model_serializers) or (
        not is_root and own.__func__ is not usual.__func__
    )
