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

from oms_events.errors import ConfigurationError, EventUnreadableError, PersonalDataError, RequestError
from oms_events.eventstore.aggregates.aggregate import command_fingerprint
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.personal.encryption import PersonalDataCipher
from oms_events.eventstore.personal.keys import MemorySubjectKeys
from oms_events.eventstore.personal.marks import FORGOTTEN, NotPersonal, Personal
from oms_events.eventstore.personal.parts import check_marks
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


@pytest.mark.parametrize("cipher", [None, PersonalDataCipher(MemorySubjectKeys())])
async def test_what_looks_encrypted_is_refused_without_a_cipher_too(cipher: PersonalDataCipher | None) -> None:
    registry = EventRegistry()
    registry.event(Noted)
    store = MemoryEventStore(registry=registry, cipher=cipher)
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


# ---------------------------------------------------------------------- what must not be refused


JsonText = TypeAliasType("JsonText", "dict[str, JsonText] | list[JsonText] | str | int | None")
NamesText = TypeAliasType("NamesText", "dict[str, NamesText] | list[NamesText] | Name")


class Json2(BaseModel):
    payload: JsonText


def written(event: BaseModel) -> Any:
    data = event.model_dump(mode="json", by_alias=True, round_trip=True)
    return data, without_personal(event, data)


def test_an_alias_may_be_text_that_names_itself() -> None:
    event = Json2(payload={"a": [1, "b", {"c": None}]})
    data, later = written(event)
    assert later is data
    assert command_fingerprint(event) == command_fingerprint(Json2(payload={"a": [1, "b", {"c": None}]}))


def test_marks_in_an_alias_that_is_text_are_not_lost() -> None:
    event = create_model("Event", field=(NamesText, ...))(field={"a": [SECRET]})
    # It holds for the whole union.
    assert written(event)[1] == {"field": FORGOTTEN}


class Lines(BaseModel):
    lines: list[Party]
    meta: Any = None

    @model_serializer
    def _short(self) -> dict[str, str]:
        return {"names": ",".join(line.name for line in self.lines)}


class LinesOf(Lines):
    owner: Name = ""


def test_a_model_with_its_own_serializer_is_written_when_its_values_are_clear() -> None:
    data, later = written(create_model("Event", field=(Lines, ...))(field=Lines(lines=[PARTY], meta={"a": 1})))
    assert later is data


@pytest.mark.parametrize("value", [Lines(lines=[HUMAN]), Lines(lines=[], meta=[PERSON])])
def test_a_model_with_its_own_serializer_is_refused_when_they_are_not(value: Lines) -> None:
    event = create_model("Event", field=(Lines, ...))(field=value)
    with pytest.raises(PersonalDataError, match="would not be found"):
        written(event)


class LinesAndMore(Lines):
    more: Any = None


def test_serializers_get_nothing_personal_in_classes_below() -> None:
    event = create_model("Event", field=(Lines, ...))(field=LinesAndMore(lines=[], more=HUMAN))
    with pytest.raises(PersonalDataError, match=r"field\.more is a Human, in which personal data would not"):
        written(event)


def test_serializers_get_no_marked_fields_of_classes_below() -> None:
    event = create_model("Event", field=(Lines, ...)).model_construct(field=LinesOf.model_construct(lines=[]))
    data = {"field": {"names": ""}}
    with pytest.raises(ConfigurationError, match=r"LinesOf\.owner: its model has a serializer of its own"):
        without_personal(event, data)


class Money:
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        write = core_schema.plain_serializer_function_ser_schema(lambda value: {"amount": 1})
        return core_schema.is_instance_schema(cls, serialization=write)


class Priced(BaseModel):
    price: Annotated[Money, NotPersonal()]


def test_what_nobody_knows_can_be_said_not_to_be_personal() -> None:
    with pytest.raises(PersonalDataError, match=r"field is a Money, .* with NotPersonal\(\) when"):
        written(create_model("Event", field=(Money, ...))(field=Money()))
    annotation = dict[str, Annotated[Money, NotPersonal()]]
    cases: list[tuple[Any, Any]] = [(annotation, {"a": Money()}), (Any, Priced(price=Money()))]
    cases.append((Any, Fine(Decimal(1), Priced(price=Money()))))
    for said, value in cases:
        data, later = written(create_model("Event", field=(said, ...))(field=value))
        assert later is data


def test_it_must_be_said_rightly() -> None:
    for said, text in (
        (Annotated[Money, NotPersonal], "with parentheses"),
        (Annotated[str, NotPersonal(), Personal()], "keep one"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            check_marks(create_model("Event", field=(said, ...)))


def test_what_can_be_read_only_once_is_told() -> None:
    event = create_model("Event", field=(Iterable[int], ...))(field=[1])
    for call in (lambda: without_personal(event, {"field": [1]}), lambda: command_fingerprint(event)):
        with pytest.raises((PersonalDataError, RequestError), match=r"give list\[\.\.\.\] or Sequence"):
            call()


def test_classes_of_a_function_are_read() -> None:
    class Price(BaseModel):
        amount: int

    @dataclass
    class Sold:
        price: Price
        more: list[Price]

    class SoldDict(TypedDict):
        price: Price

    class SoldPair(NamedTuple):
        price: Price

    class Event(BaseModel):
        sold: Sold
        typed: SoldDict
        pair: SoldPair
        other: Any

    price = Price(amount=1)
    event = Event(sold=Sold(price, [price]), typed={"price": price}, pair=SoldPair(price), other=Sold(price, []))
    data, later = written(event)
    assert later is data
    assert command_fingerprint(event)


def test_marks_in_classes_of_a_function_are_not_lost() -> None:
    Mine = Name  # noqa: N806 - a type

    class Price(BaseModel):
        amount: int

    @dataclass
    class Known:
        price: Price | None
        name: Name

    @dataclass
    class Unknown:
        name: Mine  # type: ignore[valid-type]  # mypy knows no marks

    @dataclass
    class Said:
        price: Price | None
        name: Annotated[str, Personal()]

    for value in (Known(None, SECRET), Unknown(SECRET), Said(None, SECRET)):
        event = create_model("Event", field=(Any, ...))(field=value)
        with pytest.raises(PersonalDataError, match="would not be found"):
            written(event)
        with pytest.raises(RequestError, match="would not be found"):
            command_fingerprint(event)
