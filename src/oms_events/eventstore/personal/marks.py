"""The mark of personal data, and where in a value it may be. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

FORGOTTEN: Final = "[forgotten]"
"""What stands in a text whose key was deleted, unless its mark says otherwise."""

UNSAID: Final[Any] = object()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Personal:
    """Marks a field as personal data: `name: Annotated[str, Personal()]`, also inside lists and mappings.

    `subject` names the field that says whose data it is, of the same model or of one around it; without it, it is
    the aggregate's. `forgotten` is what is read once the key is deleted: "[forgotten]" for text unless given, else
    None where the field takes it; for all others it must be given, as a value that the field takes. None itself is
    not encrypted. In a union the mark holds for every value but None.
    """

    subject: str | None = None
    forgotten: Any = UNSAID


@dataclass(frozen=True, slots=True, eq=False)
class NotPersonal:
    """Says that nothing in a value is personal: `price: Annotated[Money, NotPersonal()]`, around the whole field.

    For values of classes that are no models and are written as lists or objects, which are refused otherwise.
    Nothing is looked for there: marks inside are not heeded.
    """


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


def flat(node: Node | None) -> Iterator[Node]:
    """A node and those in it; models are not entered."""
    if node is None:
        return
    yield node
    match node:
        case Items() | Unreachable():
            yield from flat(node.node)
        case Places() | Choice():
            for inner in node.nodes:
                yield from flat(inner)
        case _:
            pass


def is_marked(node: Node) -> bool:
    """Whether a mark stands in it; models in it have marks of their own."""
    return any(isinstance(inner, Leaf) for inner in flat(node))
