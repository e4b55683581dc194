"""Which fields of a model are personal data: the mark, and how it is found in annotations. Pure."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, PlainSerializer, SerializeAsAny, TypeAdapter, ValidationError, WrapSerializer
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, from_json, to_json

from oms_events.errors import ConfigurationError

FORGOTTEN: Final = "[forgotten]"
"""What stands in a text whose key was deleted, unless its mark says otherwise."""

_UNSAID: Final[Any] = object()
_AS_ANY: Final[Any] = SerializeAsAny


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Personal:
    """Marks a field as personal data: `name: Annotated[str, Personal()]`, also inside lists and mappings.

    `subject` names the field that says whose data it is, of the same model or of one around it; without it, it is
    the aggregate's. `forgotten` is what is read once the key is deleted: "[forgotten]" for text unless given, else
    None where the field takes it; for all others it must be given, as a value that the field takes. None itself is
    not encrypted. In a union the mark holds for every value but None.
    """

    subject: str | None = None
    forgotten: Any = _UNSAID


class Leaf(NamedTuple):
    """A value that is personal; `otherwise` is its replacement, as JSON."""

    subject: str | None
    otherwise: Any


class Nested(NamedTuple):
    """A model, which may have personal fields."""

    model: type[BaseModel]


class Items(NamedTuple):
    """The elements of a list or set, or the values of a mapping."""

    node: Node
    of_mapping: bool


class Places(NamedTuple):
    """The elements of a tuple, each of its own kind."""

    nodes: tuple[Node | None, ...]


class Choice(NamedTuple):
    """One of several."""

    nodes: tuple[Node, ...]


class Anything(NamedTuple):
    """Whatever the value is when it is written; a model in it has its own marks."""


class Unreachable(NamedTuple):
    """What cannot be found again when it is written: it must not be personal. `problem` says so."""

    node: Node
    problem: str


Node = Leaf | Nested | Items | Places | Choice | Anything | Unreachable


class Part(NamedTuple):
    """A field in which something may be personal: its name, its name in JSON, and where in it to look."""

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
        for node in _flat(part.node)
        if isinstance(node, Unreachable) and _is_personal(node.node)
    ]
    if problems:
        raise ConfigurationError(f"personal data of {model.__name__}", dict.fromkeys(problems))
    return tuple(part for part in parts if _is_personal(part.node) or _is_open(part.node, set()))


@cache
def check_marks(model: type[BaseModel]) -> bool:
    """Whether something in the model may be personal. Raises `ConfigurationError` with all that is wrong.

    Looks also at the subjects, which may be fields of the models around.
    """
    if problems := list(dict.fromkeys(_wrong_subjects(model, ()))):
        raise ConfigurationError(f"personal data of {model.__name__}", problems)
    return bool(parts_of(model))


def marked_fields(model: type[BaseModel]) -> frozenset[str]:
    """The names of the fields that are personal, wholly or in parts; models in them have marks of their own."""
    return frozenset(
        part.name for part in parts_of(model) if any(isinstance(node, Leaf) for node in _flat(part.node))
    )


def key_of(model: type[BaseModel], name: str) -> str:
    """The name of a field in JSON."""
    return model.model_fields[name].serialization_alias or name


def _is_personal(node: Node) -> bool:
    return any(isinstance(inner, Leaf) for inner in _all_inside(node, set()))


def _is_open(node: Node, seen: set[type[BaseModel]]) -> bool:
    return any(isinstance(inner, Anything) for inner in _all_inside(node, seen))


def _all_inside(node: Node, seen: set[type[BaseModel]]) -> Iterator[Node]:
    """The nodes in a node and in the models that it leads to; each model once."""
    for inner in _flat(node):
        yield inner
        if isinstance(inner, Nested) and inner.model not in seen:
            seen.add(inner.model)
            for part in _all_parts(inner.model):
                yield from _all_inside(part.node, seen)


def _flat(node: Node) -> Iterator[Node]:
    yield node
    match node:
        case Items() | Unreachable():
            yield from _flat(node.node)
        case Places() | Choice():
            for inner in node.nodes:
                if inner is not None:
                    yield from _flat(inner)
        case _:
            pass


def _wrong_subjects(model: type[BaseModel], around: tuple[type[BaseModel], ...]) -> Iterator[str]:
    if model in around:
        return
    around = (model, *around)
    for part in parts_of(model):
        for node in _flat(part.node):
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


# ---------------------------------------------------------------------- annotations


@cache
def _all_parts(model: type[BaseModel]) -> tuple[Part, ...]:
    search = _Search(model)
    nodes = {name: search.in_field(name, field) for name, field in model.model_fields.items()}
    if search.problems:
        raise ConfigurationError(f"personal data of {model.__name__}", search.problems)
    return tuple(Part(name, key_of(model, name), node) for name, node in nodes.items() if node is not None)


class _Search:
    """Looks for marks in the fields of one model."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.problems: list[str] = []
        self._model = model
        self._where = ""
        self._within: list[Any] = []
        decorators = model.__pydantic_decorators__
        self._has_own_form = bool(decorators.model_serializers)
        self._own_forms = {
            name for serializer in decorators.field_serializers.values() for name in serializer.info.fields
        }

    def in_field(self, name: str, field: FieldInfo) -> Node | None:
        self._where = f"{self._model.__name__}.{name}"
        if isinstance(field.default, Personal):
            self._problem("a mark is no default; write Annotated[..., Personal()]")
        # What stands around a whole field, pydantic has taken off its type.
        whole: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        node = self._inside(whole)
        if node is None:
            return None
        if self._has_own_form:
            return Unreachable(node, "its model has a serializer of its own; give serializers to fields instead")
        has_own_form = any(isinstance(item, PlainSerializer | WrapSerializer) for item in field.metadata)
        if has_own_form or not self._own_forms.isdisjoint((name, "*")):
            # A whole field is encrypted in whatever form it has.
            return node if isinstance(node, Leaf) else Unreachable(node, "has a serializer; mark the whole field")
        return node

    def _inside(self, annotation: Any) -> Node | None:
        """Where in such a value something may be personal."""
        bare, metadata = _unwrapped(annotation)
        if Personal in metadata:
            self._problem("write Personal(), with parentheses")
        marks = [item for item in metadata if isinstance(item, Personal)]
        if len(marks) > 1:
            self._problem("has two marks; keep one")
        if marks:
            return Leaf(marks[0].subject, self._otherwise(marks[0], annotation))
        if any(isinstance(item, _AS_ANY) for item in metadata):
            return Anything()
        origin, arguments = get_origin(bare), get_args(bare)
        kind = origin or bare
        if kind in (Union, types.UnionType):
            return self._joined([node for each in arguments if (node := self._inside(each)) is not None])
        if hasattr(kind, "__value__"):
            return self._in_alias(kind)
        if origin is None and not isinstance(kind, type):
            # A type variable, a name that leads back to itself.
            return Anything()
        if not isinstance(kind, type):
            nodes = [self._inside(each) for each in arguments]
            return self._unreachable(nodes, f"marks inside {kind} are not found again; mark the whole field")
        if issubclass(kind, BaseModel):
            return Anything() if kind.model_config.get("polymorphic_serialization") else Nested(kind)
        if not arguments:
            is_open = kind in (Any, object, list, tuple, set, frozenset, dict)
            return Anything() if is_open else self._in_members(kind)
        return self._in_container(kind, arguments)

    def _in_alias(self, alias: Any) -> Node | None:
        if alias in self._within:
            return Anything()
        self._within.append(alias)
        try:
            return self._inside(alias.__value__)
        finally:
            self._within.pop()

    def _in_container(self, kind: type, arguments: tuple[Any, ...]) -> Node | None:
        nodes = [None if each is Ellipsis else self._inside(each) for each in arguments]
        if issubclass(kind, tuple) and arguments[-1] is not Ellipsis:
            return None if nodes.count(None) == len(nodes) else Places(tuple(nodes))
        if issubclass(kind, Mapping) and len(nodes) == 2:
            keys, values = nodes
            if keys is not None and not isinstance(keys, Anything):
                return Unreachable(keys, "the keys of a mapping cannot be personal; use a list of models")
            return None if values is None else Items(values, of_mapping=True)
        if issubclass(kind, Collection):
            return None if nodes[0] is None else Items(nodes[0], of_mapping=False)
        return self._unreachable(nodes, f"marks inside {kind.__name__} are not found again; mark the whole field")

    def _in_members(self, kind: type) -> Node | None:
        """Of a dataclass, a typed dictionary or a named tuple."""
        is_named = issubclass(kind, tuple) and hasattr(kind, "_fields")
        # Of typed dictionaries there are two, Python's own and that of typing_extensions.
        has_members = is_named or dataclasses.is_dataclass(kind) or hasattr(kind, "__total__")
        if kind in self._within or not has_members:
            return None
        self._within.append(kind)
        try:
            hints = get_type_hints(kind, include_extras=True)
        except NameError as error:
            self._problem(f"the annotations of {kind.__name__} cannot be read ({error}); make it a pydantic model")
            hints = {}
        nodes = [self._inside(hint) for hint in hints.values()]
        self._within.pop()
        return self._unreachable(nodes, f"{kind.__name__} has marks; make it a pydantic model, or mark the field")

    def _joined(self, nodes: list[Node]) -> Node | None:
        if not nodes:
            return None
        leaves = [node for node in nodes if isinstance(node, Leaf)]
        if len(leaves) > 1:
            self._problem("has two marks in one union; mark the union as a whole")
        if leaves:
            return leaves[0]
        # Lists of different kinds cannot be told apart when they are walked: a mark in one holds for all.
        joined: list[Node] = [node for node in nodes if not isinstance(node, Items)]
        for of_mapping in (False, True):
            inner = [node.node for node in nodes if isinstance(node, Items) and node.of_mapping is of_mapping]
            if (node := self._joined(inner)) is not None:
                joined.append(Items(node, of_mapping))
        return Choice(tuple(joined))

    def _unreachable(self, nodes: Iterable[Node | None], problem: str) -> Node | None:
        found = tuple(node for node in nodes if node is not None and not isinstance(node, Anything))
        return Unreachable(Choice(found), problem) if found else None

    def _otherwise(self, mark: Personal, annotation: Any) -> Any:
        """The replacement as JSON."""
        adapter = _adapter(annotation)
        if mark.forgotten is _UNSAID:
            for candidate in (FORGOTTEN, None):
                if adapter is not None and _refusal(adapter, to_json(candidate)) is None:
                    return candidate
            self._problem("say what is read once it is forgotten: Personal(forgotten=...), or allow None")
            return None
        try:
            text = to_json(mark.forgotten, by_alias=True)
        except PydanticSerializationError as error:
            self._problem(f"forgotten has no JSON form: {error}")
            return None
        if adapter is not None and (why := _refusal(adapter, text)) is not None:
            self._problem(f"forgotten = {mark.forgotten!r}: {why}")
        return from_json(text)

    def _problem(self, text: str) -> None:
        self.problems.append(f"{self._where}: {text}")


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    """None for a type that pydantic knows only within its model: its replacement is checked with the data."""
    try:
        return TypeAdapter(annotation)
    except (PydanticUserError, NameError):
        return None


def _refusal(adapter: TypeAdapter[Any], text: bytes) -> str | None:
    """Why the field does not take this JSON; None when it does."""
    try:
        adapter.validate_json(text)
    except ValidationError as error:
        return str(error.errors(include_url=False, include_input=False)[0]["msg"])
    return None


def _unwrapped(annotation: Any) -> tuple[Any, list[Any]]:
    """A type without what is written around it, and that."""
    metadata: list[Any] = []
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *around = get_args(annotation)
            metadata += around
        elif (supertype := getattr(annotation, "__supertype__", None)) is not None:
            annotation = supertype
        else:
            return annotation, metadata
