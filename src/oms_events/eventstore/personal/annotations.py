"""Looks for marks in annotations. What it does not know for certain may be anything. Pure."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections import OrderedDict, abc, defaultdict, deque
from collections.abc import Iterable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from inspect import get_annotations
from typing import (
    Annotated,
    Any,
    Final,
    ForwardRef,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Discriminator,
    PlainSerializer,
    PlainValidator,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    WrapSerializer,
    WrapValidator,
)
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, from_json, to_json

from oms_events.eventstore.personal.marks import (
    FORGOTTEN,
    UNSAID,
    Anything,
    Choice,
    Items,
    Leaf,
    Nested,
    Node,
    NotPersonal,
    Personal,
    Places,
    Unreachable,
    flat,
)

EXTRAS: Final = "__pydantic_extra__"
"""Where a model has what is given beyond its fields."""

PLAIN: Final = (
    str, bytes, bytearray, int, float, complex, Decimal, date, time, timedelta, UUID, Enum, type, types.NoneType
)  # fmt: skip
"""Types in whose values nothing else is."""

_LISTS: Final = (
    list, tuple, set, frozenset, deque, abc.Collection, abc.Sequence, abc.MutableSequence, abc.Set, abc.MutableSet
)  # fmt: skip
_MAPPINGS: Final = (dict, defaultdict, OrderedDict, abc.Mapping, abc.MutableMapping)
_AS_ANY: Final[Any] = SerializeAsAny
# Metadata that may make a schema of its own, but leaves the form in JSON as it is.
_SAME_FORM: Final = (BeforeValidator, AfterValidator, WrapValidator, Discriminator, _AS_ANY)


class Search:
    """Looks for marks; what is wrong with them goes to `problems`."""

    def __init__(self, where: str, names: Mapping[str, Any] | None = None) -> None:
        self.problems: list[str] = []
        self._where = where
        # Of the function in which the model is defined.
        self._names = names or {}
        self._within: list[Any] = []
        self._again: set[Any] = set()

    def inside(self, annotation: Any) -> Node | None:
        """Where in such a value something may be personal; None for nowhere."""
        bare, metadata = _unwrapped(annotation)
        if Personal in metadata:
            self._problem("write Personal(), with parentheses")
        marks = [item for item in metadata if isinstance(item, Personal)]
        if len(marks) > 1:
            self._problem("has two marks; keep one")
        if NotPersonal in metadata:
            self._problem("write NotPersonal(), with parentheses")
        if says_not_personal(metadata):
            if marks:
                self._problem("is said to be personal and not to be; keep one")
            return None
        if marks:
            return Leaf(marks[0].subject, self._otherwise(marks[0], annotation))
        node = self._in_type(bare)
        if any(map(_has_own_form, metadata)):
            return in_own_form(node, "has a serializer; mark the whole field")
        if any(isinstance(item, _AS_ANY) for item in metadata):
            return by_value(node)
        return node

    def _in_type(self, bare: Any) -> Node | None:
        origin, arguments = get_origin(bare), get_args(bare)
        kind = origin or bare
        if kind is None or kind is Literal:
            return None
        if kind in (Union, types.UnionType):
            return self._joined([self.inside(each) for each in arguments if each is not types.NoneType])
        if isinstance(kind, str | ForwardRef):
            return self._in_name(kind)
        if isinstance(kind, TypeVar):
            return by_value(self._joined([Anything(), *map(self.inside, _bounds(kind))]))
        if hasattr(kind, "__value__"):
            return self._in_alias(kind, arguments)
        if not isinstance(kind, type):
            return _unreachable(map(self.inside, arguments), str(kind))
        if issubclass(kind, BaseModel):
            return Anything() if kind.model_config.get("polymorphic_serialization") else Nested(kind)
        if issubclass(kind, PLAIN):
            return None
        if has_members(kind):
            return self._in_members(kind, arguments)
        return self._in_container(kind, arguments) if arguments else Anything()

    def _in_name(self, name: str | ForwardRef) -> Node | None:
        text = name if isinstance(name, str) else name.__forward_arg__
        for alias in self._within:
            if alias.__name__ == text:
                self._again.add(alias)
                return Anything()
        self._problem(f"the name {text!r} leads nowhere yet; give the type itself, or call model_rebuild() first")
        return None

    def _in_alias(self, alias: Any, arguments: tuple[Any, ...]) -> Node | None:
        if alias in self._within:
            self._again.add(alias)
            return Anything()
        self._within.append(alias)
        node = self.inside(self._value_of(alias))
        self._within.pop()
        if arguments:
            return _unreachable([node, *map(self.inside, arguments)], str(alias))
        # Within itself it is found by value.
        return by_value(node) if alias in self._again else node

    def _value_of(self, alias: Any) -> Any:
        names = {parameter.__name__: parameter for parameter in alias.__type_params__}
        if getattr(sys.modules.get(alias.__module__), alias.__name__, None) is not alias:
            names = {**self._names, **names, alias.__name__: alias}
        try:
            return _read(alias.__value__, alias.__module__, names)
        except NameError:
            return alias.__value__

    def _in_container(self, kind: type, arguments: tuple[Any, ...]) -> Node | None:
        nodes = [None if each is Ellipsis else self.inside(each) for each in arguments]
        if kind is tuple and arguments[-1] is not Ellipsis:
            return None if nodes.count(None) == len(nodes) else Places(tuple(nodes))
        if kind in _MAPPINGS:
            keys, values = nodes
            if keys is None:
                return None if values is None else Items(values, of_mapping=True)
            if isinstance(keys, Anything):
                return Items(values or Anything(), of_mapping=True)
            problem = "the keys of a mapping cannot be personal; use a list of models"
            return Unreachable(Choice((keys, values or Anything())), problem)
        if kind in _LISTS:
            return None if nodes[0] is None else Items(nodes[0], of_mapping=False)
        return _unreachable(nodes, kind.__name__)

    def _in_members(self, kind: type, arguments: tuple[Any, ...]) -> Node:
        if kind in self._within:
            return Anything()
        self._within.append(kind)
        hints, unread = members_of(kind, self._names)
        for name, text in unread.items():
            # Typed dictionaries are not known by their values, as the others are: see `is_clear`.
            if "Personal" in text or hasattr(kind, "__total__"):
                self._problem(
                    f"the annotation of {kind.__name__}.{name} cannot be read ({text}); make it a pydantic model"
                )
        found = [node for each in (*hints.values(), *arguments) if (node := self.inside(each)) is not None]
        self._within.pop()
        problem = f"{kind.__name__} has marks; make it a pydantic model, or mark the field"
        return Unreachable(Choice(tuple(found)), problem)

    def _joined(self, nodes: Iterable[Node | None]) -> Node | None:
        """Of a union; None for a part that has nothing personal."""
        found = [*nodes]
        is_open = None in found
        known: list[Node] = []
        for node in found:
            known += node.nodes if isinstance(node, Choice) else [] if node is None else [node]
        if not known:
            return None
        leaves = [node for node in known if isinstance(node, Leaf)]
        if len(leaves) > 1:
            self._problem("has two marks in one union; mark the union as a whole")
        if leaves:
            return leaves[0]
        lists = [node for node in known if isinstance(node, Places) or (isinstance(node, Items) and not node[1])]
        hidden = [node.problem for node in known if isinstance(node, Unreachable)]
        if len(lists) > 1 and any(isinstance(node, Places) for node in lists):
            hidden.append("tuples are not told from other lists in a union; mark the whole field")
        if hidden:
            # What a serializer in a union is given may be any of its values: not even marks beside it are found.
            return Unreachable(Choice(tuple(known)), hidden[0])
        is_open = is_open or any(isinstance(node, Anything) for node in known)
        # Lists of different kinds cannot be told apart when they are walked: a mark in one holds for all.
        joined: list[Node] = [node for node in known if isinstance(node, Nested | Places)]
        for of_mapping in (False, True):
            inner: list[Node | None] = [
                node.node for node in known if isinstance(node, Items) and node.of_mapping is of_mapping
            ]
            if (node := self._joined([*inner, None] if inner and is_open else inner)) is not None:
                joined.append(Items(node, of_mapping))
        return Choice((*joined, Anything()) if is_open else tuple(joined))

    def _otherwise(self, mark: Personal, annotation: Any) -> Any:
        """The replacement as JSON."""
        adapter = _adapter(annotation)
        if mark.forgotten is UNSAID:
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


def whole_of(field: FieldInfo) -> Any:
    """The annotation of a field, with what stands around it, which pydantic has taken off."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def extras_hint(model: type[BaseModel]) -> Any:
    """The type of what is given beyond the fields. Raises `NameError` for one that cannot be read."""
    for base in model.__mro__[: model.__mro__.index(BaseModel)]:
        if (hint := get_annotations(base).get(EXTRAS)) is not None:
            return _read(hint, base.__module__, {})
    return Any


def members_of(kind: type, names: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The types of a class's members, and the annotations that cannot be read, with what only a function knows.

    `names` are such a function's.
    """
    # For a class of a module they would hide the module's own.
    names = {**names, kind.__name__: kind} if "<locals>" in kind.__qualname__ else {}
    try:
        return get_type_hints(kind, localns=dict(names), include_extras=True), {}
    except NameError:
        pass
    hints: dict[str, Any] = {}
    unread: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        for name, annotation in get_annotations(base).items():
            hints.pop(name, None)
            unread.pop(name, None)
            try:
                hints[name] = _read(annotation, base.__module__, names)
            except NameError:
                unread[name] = str(annotation)
    return hints, unread


def says_not_personal(metadata: Iterable[Any]) -> bool:
    """Whether what stands around a type says that nothing in it is personal."""
    return any(isinstance(item, NotPersonal) for item in metadata)


def _read(annotation: Any, module: str, names: Mapping[str, Any]) -> Any:
    """An annotation without text in it. Raises `NameError`."""
    holder = type("Holder", (), {"__annotations__": {"it": annotation}, "__module__": module})
    return get_type_hints(holder, localns=dict(names), include_extras=True)["it"]


def has_members(kind: type) -> bool:
    """Whether it is a dataclass, a typed dictionary or a named tuple."""
    # Of typed dictionaries there are two, Python's own and that of typing_extensions.
    return dataclasses.is_dataclass(kind) or hasattr(kind, "__total__") or is_named_tuple(kind)


def is_named_tuple(kind: type) -> bool:
    """Whether its elements are fields, which may be marked."""
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def in_own_form(node: Node | None, problem: str) -> Node:
    """Of what is written by a serializer: what is personal as a whole is encrypted in whatever form it has."""
    return node if isinstance(node, Leaf) else Unreachable(node or Anything(), problem)


def by_value(node: Node | None) -> Node:
    """Of what is found by its value alone, as models are: other marks are not."""
    if node is None or isinstance(node, Leaf):
        return node or Anything()
    if any(isinstance(inner, Leaf | Unreachable) for inner in flat(node)):
        return Unreachable(node, "its type is not known when it is written; make it a pydantic model")
    return Anything()


def _unreachable(nodes: Iterable[Node | None], name: str) -> Node:
    found = tuple(node for node in nodes if node is not None and not isinstance(node, Anything))
    problem = f"marks inside {name} are not found again; mark the whole field"
    return Unreachable(Choice(found), problem) if found else Anything()


def _has_own_form(item: Any) -> bool:
    """Whether what stands around a type may be written in another form than the type's; so it is with `Json`."""
    if isinstance(item, PlainSerializer | WrapSerializer | PlainValidator):
        return True
    return hasattr(item, "__get_pydantic_core_schema__") and not isinstance(item, _SAME_FORM)


def _bounds(variable: TypeVar) -> list[Any]:
    bounds = [variable.__bound__, *variable.__constraints__, getattr(variable, "__default__", None)]
    return [bound for bound in bounds if bound is not None and getattr(bound, "__name__", "") != "NoDefault"]


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
