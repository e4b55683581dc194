"""Whatever a model is made of: a marked value is encrypted or refused, and never written in clear text."""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Dict, Generic, NamedTuple, TypeVar  # noqa: UP035 - people write it

import pydantic
import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Json,
    PlainSerializer,
    PlainValidator,
    RootModel,
    SerializeAsAny,
    create_model,
    field_serializer,
    model_serializer,
)
from pydantic_core import core_schema
from typing_extensions import TypeAliasType, TypedDict

from oms_events.errors import ConfigurationError, EventUnreadableError, PersonalDataError
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.personal.marks import FORGOTTEN, Personal
from oms_events.eventstore.personal.walk import without_personal
from oms_events.eventstore.registry import EventName, EventRegistry
from oms_events.testing.forgetting import read_when_forgotten

SECRET = "Ann Secret"
Name = Annotated[str, Personal()]
T = TypeVar("T")
B = TypeVar("B", bound=Name)


class Person(BaseModel, frozen=True):
    name: Name


class Party(BaseModel):
    name: str


class Human(Party):
    name: Name


class Shown(Party):
    @model_serializer
    def _shown(self) -> dict[str, str]:
        return {"n": self.name}


class ShownHuman(Shown):
    name: Name


class Holding(BaseModel):
    party: Party


class HoldingMarked(Holding):
    party: Annotated[Party, Personal(forgotten=Party(name="-"))]


class Serialized(BaseModel):
    people: list[Party]

    @field_serializer("people")
    def _people(self, people: list[Party]) -> list[dict[str, str]]:
        return [{"name": "-", "full": person.name} for person in people]


class OwnSchema(BaseModel):
    name: Name

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        schema = handler(source)
        shown = core_schema.plain_serializer_function_ser_schema(lambda value: {"name": "-", "n": value.name})
        return core_schema.no_info_after_validator_function(lambda value: value, schema, serialization=shown)


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class OpenToNames(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Name]


class OpenToPeople(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Person]


class Root(RootModel[Any]):
    pass


@dataclass
class Box:
    inside: Any


@pydantic.dataclasses.dataclass(config=ConfigDict(extra="allow"))
class OpenBox:
    number: int


@dataclass
class Owned(Generic[T]):
    value: T
    owner: Name


class OwnedDict(TypedDict, Generic[T]):
    value: T
    owner: Name


class OwnedPair(NamedTuple):
    value: int
    owner: Name


class LooseDict(TypedDict):
    inside: Any


class Wrapper(BaseModel, Generic[T]):
    item: T


class Bound(BaseModel, Generic[B]):
    item: B


class Early(BaseModel):
    name: Later


Later = Annotated[str, Personal()]

Many = TypeAliasType("Many", list[T], type_params=(T,))
Tree = TypeAliasType("Tree", "dict[str, Tree] | list[Name]")
Names = TypeAliasType("Names", list[Name])


def shown(people: Any) -> Any:
    return json.loads(json.dumps(people, default=lambda person: {"name": "-", "full": person.name}))


WRITTEN_BY = PlainSerializer(shown)
PERSON, HUMAN = Person(name=SECRET), Human(name=SECRET)
CASES: dict[str, tuple[Any, Any]] = {
    "dataclass under Any": (Any, Box(PERSON)),
    "marked dataclass under Any": (Any, Owned(1, SECRET)),
    "named tuple under Any": (Any, OwnedPair(1, SECRET)),
    "deque under Any": (Any, deque([PERSON])),
    "subclass under Any": (Any, HUMAN),
    "key under Any": (Any, {PERSON: 1}),
    "named tuple as key": (dict[Any, int], {OwnedPair(1, SECRET): 1}),
    "open dataclass": (OpenBox, {"number": 1, "person": PERSON}),
    "dataclass with Any": (Box, Box(PERSON)),
    "list of them": (list[Box], [Box([PERSON])]),
    "typed dict with Any": (LooseDict, {"inside": PERSON}),
    "bare Sequence": (Sequence, [PERSON]),
    "bare Mapping": (Mapping, {"a": PERSON}),
    "bare Dict": (Dict, {"a": PERSON}),  # noqa: UP006
    "bare deque": (deque, deque([PERSON])),
    "bare OrderedDict": (OrderedDict, OrderedDict(a=PERSON)),
    "bare Iterable": (Iterable, [PERSON]),
    "Iterable": (Iterable[Party], [HUMAN]),
    "subclass": (Party, HUMAN),
    "subclass in a list": (list[Party], [HUMAN]),
    "subclass in a union": (Party | int, HUMAN),
    "subclass in a tuple": (tuple[Party, int], (HUMAN, 1)),
    "subclass in a dataclass": (Box, Box([HUMAN])),
    "subclass behind a serializer": (Serialized, Serialized(people=[HUMAN])),
    "subclass with a form of its own": (Shown, ShownHuman.model_construct(name=SECRET)),
    "subclass that marks a model": (Holding, HoldingMarked(party=Party(name=SECRET))),
    "union with a bare dict": (dict | list[Name], [SECRET]),
    "union with a bare list": (list | dict[str, Name], {"a": SECRET}),
    "union of lists": (list[int] | list[Person], [PERSON]),
    "union of tuples": (tuple[Name, ...] | tuple[int, Person], ("x", SECRET)),
    "union with a serializer": (Annotated[int, PlainSerializer(str)] | Person, PERSON),
    "generic dataclass": (Owned[int], Owned(1, SECRET)),
    "generic dataclass of marks": (Box | Owned[Name], Owned(SECRET, "x")),
    "generic typed dict": (OwnedDict[int], {"value": 1, "owner": SECRET}),
    "alias with parameters": (Many[Name], [SECRET]),
    "alias with models": (Many[Person], [PERSON]),
    "alias in itself": (Tree, {"a": {"b": [SECRET]}}),
    "generic model": (Wrapper, Wrapper(item=PERSON)),
    "generic model of marks": (Wrapper[Name], Wrapper[Name](item=SECRET)),
    "marked below a generic model": (Wrapper, Wrapper[Name](item=SECRET)),
    "bound type variable": (Bound, Bound(item=SECRET)),
    "serializer in Optional": (Annotated[Person, WRITTEN_BY] | None, PERSON),
    "serializer in a dict": (dict[str, Annotated[Person, WRITTEN_BY]], {"a": PERSON}),
    "serializer of a subclass": (list[Annotated[Party, WRITTEN_BY]], [HUMAN]),
    "serializer of anything": (Annotated[Any, WRITTEN_BY], [PERSON]),
    "validator of anything": (Annotated[int, PlainValidator(lambda value: value)], PERSON),
    "schema of its own": (OwnSchema, OwnSchema(name=SECRET)),
    "as any": (SerializeAsAny[Names], [SECRET]),
    "as any in a list": (list[SerializeAsAny[Party]], [HUMAN]),
    "JSON": (Json[Any], json.dumps([SECRET])),
    "JSON of marks": (Json[list[Name]], json.dumps([SECRET])),
    "JSON of models": (Json[list[Person]], json.dumps([{"name": SECRET}])),
    "extra": (Open, Open(person=PERSON)),
    "extra of marks": (OpenToNames, OpenToNames(name=SECRET)),
    "extra of models": (OpenToPeople, OpenToPeople(person=PERSON)),
    "root": (Root, Root([PERSON])),
    "name that is known later": (Early, {"name": SECRET}),
}
PLAIN_JSON = {"JSON"}
"""Where nothing is marked."""


@pytest.mark.parametrize("case", CASES)
def test_a_marked_value_is_never_written_in_clear_text(case: str) -> None:
    annotation, value = CASES[case]
    config = ConfigDict(arbitrary_types_allowed=True)
    event = create_model("Event", __config__=config, field=(annotation, ...))(field=value)
    data = event.model_dump(mode="json", by_alias=True, round_trip=True, warnings=False)
    assert case == "subclass behind a serializer" or SECRET in json.dumps(data)
    try:
        written = json.dumps(without_personal(event, data))
    except (ConfigurationError, PersonalDataError) as error:
        assert SECRET not in str(error)
    else:
        assert (SECRET in written) is (case in PLAIN_JSON)
