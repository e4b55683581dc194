"""Whatever a model is made of: a marked value is encrypted or refused, and never written in clear text."""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Dict, Generic, NamedTuple, TypeVar  # noqa: UP035 - people write it
from uuid import UUID

import pytest
from pydantic import (
    AfterValidator,
    AnyUrl,
    BaseModel,
    ConfigDict,
    Json,
    JsonValue,
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

Many: Any = TypeAliasType("Many", list[T], type_params=(T,))
Tree: Any = TypeAliasType("Tree", Dict[str, "Tree"] | list[Name])  # noqa: UP006
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
    "union of tuples": (tuple[Name, ...] | tuple[str, Person | str], (SECRET, "x")),
    "union with a serializer": (Annotated[int, WRITTEN_BY] | Person, PERSON),
    "generic dataclass": (Owned[int], Owned(1, SECRET)),
    "generic dataclass of marks": (Owned[Name] | Box, Owned(SECRET, "x")),
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
    assert SECRET in json.dumps(data)
    try:
        written = json.dumps(without_personal(event, data))
    except (ConfigurationError, PersonalDataError) as error:
        written = str(error)
    assert (SECRET in written) is (case in PLAIN_JSON)


class Token:
    """A class that nobody knows."""

    def __str__(self) -> str:
        return "token"


@dataclass
class Fine:
    number: Decimal
    inside: Any = None


PARTY = Party(name="Ulm Ltd")


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Party | None, PARTY),
        (list[Party], [PARTY]),
        (Fine, Fine(Decimal(1), [PARTY, {"a": 1}])),
        (Any, {"a": [Fine(Decimal(1)), Path("a"), UUID(int=1), None, 1.5, PARTY]}),
        (Json[Any], '{"a": [1]}'),
        (Json[list[int]], "[1]"),
        (JsonValue, {"a": [1, None, "x"]}),
        (AnyUrl, "https://example.com"),
        (Annotated[Token, PlainSerializer(str)], Token()),
        (list[Annotated[Decimal, PlainSerializer(str)]], [Decimal(1)]),
        (Annotated[dict[str, int], PlainSerializer(lambda counts: sorted(counts.items()))], {"a": 1}),
        (Annotated[int, AfterValidator(abs)] | Person, 5),
        (Many[int], [1]),
        (Open, Open(a=1, b=PARTY)),
        (list[int] | list[Person], [5]),
        (tuple[int, Decimal], (1, Decimal(1))),
    ],
)
def test_what_is_certainly_not_personal_is_written_as_it_is(annotation: Any, value: Any) -> None:
    config = ConfigDict(arbitrary_types_allowed=True)
    event = create_model("Event", __config__=config, field=(annotation, ...))(field=value)
    data = event.model_dump(mode="json", by_alias=True, round_trip=True)
    assert without_personal(event, data) is data


class Inner(Human):
    more: str = "x"


@pytest.mark.parametrize("annotation", [Party | Human, Human, Human | Inner, list[Human]])
def test_in_a_union_the_class_itself_comes_first(annotation: Any) -> None:
    value = Inner(name=SECRET) if annotation in (Human, Human | Inner) else HUMAN
    field = [value] if annotation == list[Human] else value
    event = create_model("Event", field=(annotation, ...))(field=field)
    data = event.model_dump(mode="json")
    assert SECRET in json.dumps(data)
    assert SECRET not in json.dumps(without_personal(event, data))


def test_a_field_that_is_not_where_it_should_be_is_no_reason_to_go_on() -> None:
    event = create_model("Event", field=(Person, ...))(field=PERSON)
    with pytest.raises(PersonalDataError, match="not as the object of a Person with 'name'"):
        without_personal(event, {"field": {"renamed": SECRET}})


# ---------------------------------------------------------------------- around the walk


class Noted(BaseModel):
    note: Any


async def test_what_looks_encrypted_is_refused_without_a_cipher_too() -> None:
    registry = EventRegistry()
    registry.event(Noted)
    store = MemoryEventStore(registry=registry)
    sealed = {"$personal": {"s": "victim", "k": 1, "c": "AAAA", "otherwise": None}}
    with pytest.raises(PersonalDataError, match="is how encrypted data looks"):
        await store.append("attacker", [Noted(note=[sealed])], expected_sequence=0)
    assert await store.last_sequence("attacker") == 0


class NamedV1(BaseModel):
    name: Name


class Named(BaseModel):
    first: Name
    last: Name


def test_upcasters_can_be_tried_with_what_is_read_after_forgetting() -> None:
    registry, mended, secret = EventRegistry(), EventRegistry(), NamedV1(name=SECRET)
    for each in (registry, mended):
        each.event(type="Named", version=2)(Named)

    @registry.upcaster("Named", from_version=1)
    def split(data: dict[str, Any]) -> dict[str, Any]:
        first, last = data["name"].split(" ")
        return {"first": first, "last": last}

    @mended.upcaster("Named", from_version=1)
    def parted(data: dict[str, Any]) -> dict[str, Any]:
        first, _, last = data["name"].partition(" ")
        return {"first": first, "last": last}

    name = EventName("Named", 1)
    with pytest.raises(EventUnreadableError, match="the upcaster of Named version 1 failed: ValueError") as caught:
        read_when_forgotten(secret, registry, name)
    assert FORGOTTEN not in str(caught.value)
    assert read_when_forgotten(secret, mended, name) == Named(first=FORGOTTEN, last="")
    new = Named(first="Ann", last="S")
    assert read_when_forgotten(new, mended) == Named(first=FORGOTTEN, last=FORGOTTEN)
