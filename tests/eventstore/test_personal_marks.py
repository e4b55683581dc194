"""Where models are personal: found in annotations, and in the data that is written of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypeVar

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    RootModel,
    SerializeAsAny,
    create_model,
    field_serializer,
    field_validator,
    model_serializer,
)
from pydantic.alias_generators import to_camel
from typing_extensions import TypeAliasType, TypedDict

from oms_events.errors import ConfigurationError, PersonalDataError
from oms_events.eventstore.personal.marks import FORGOTTEN, Personal
from oms_events.eventstore.personal.parts import check_marks, marked_fields
from oms_events.eventstore.personal.walk import Found, rewritten, without_personal

Name = Annotated[str, Personal()]
T = TypeVar("T")


class Address(BaseModel):
    street: Name
    city: str = "Ulm"


class Company(BaseModel):
    number: str


class Box(BaseModel, Generic[T]):
    content: T


class Names(RootModel[list[Name]]):
    pass


class Person(BaseModel):
    name: Name
    friends: list[Person] = []


class Wide(Address):
    house: Name


Alias = TypeAliasType("Alias", Name)
Id = NewType("Id", Name)  # type: ignore[valid-newtype]  # mypy knows no marks


def data_of(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, round_trip=True)


def one(annotation: Any, value: Any, **config: Any) -> tuple[BaseModel, dict[str, Any]]:
    """An event with one field, and its data."""
    made = create_model("Event", __config__=ConfigDict(**config), field=(annotation, ...))
    event = made(field=value)
    return event, data_of(event)


def problems_of(annotation: Any) -> str:
    made = create_model("Event", field=(annotation, ...))
    with pytest.raises(ConfigurationError) as caught:
        check_marks(made)
    return str(caught.value)


FORGOTTEN_ADDRESS = {"street": FORGOTTEN, "city": "Ulm"}
STREET = Address(street="Main St")


@pytest.mark.parametrize(
    ("annotation", "value", "later"),
    [
        (Name, "Ann", FORGOTTEN),
        (Name | None, "Ann", FORGOTTEN),
        (Name | None, None, None),
        (Annotated[str | None, Personal()], "Ann", FORGOTTEN),
        (Annotated[str, Field(max_length=20), Personal(forgotten="")], "Ann", ""),
        (Annotated[date | None, Personal()], date(2000, 1, 1), None),
        (Annotated[int, Personal(forgotten=-1)], 41, -1),
        (Annotated[bool, Personal(forgotten=False)], True, False),
        (Annotated[bool, Personal(forgotten=False)], False, False),
        (Annotated[list[str], Personal(forgotten=[])], ["Ann"], []),
        (Annotated[Literal["m", "f", "x"], Personal(forgotten="x")], "m", "x"),
        (Annotated[Address, Personal(forgotten=Address(street="-"))], STREET, {"street": "-", "city": "Ulm"}),
        (Annotated[Any, Personal()], {"a": 1}, FORGOTTEN),
        (Alias, "Ann", FORGOTTEN),
        (list[Alias], ["Ann"], [FORGOTTEN]),
        (Id, "Ann", FORGOTTEN),
        (list[Name], ["Ann", "Bob"], [FORGOTTEN, FORGOTTEN]),
        (set[Name], {"Ann"}, [FORGOTTEN]),
        (deque[Name], ["Ann"], [FORGOTTEN]),
        (tuple[Name, ...], ("Ann",), [FORGOTTEN]),
        (tuple[int, Name], (1, "Ann"), [1, FORGOTTEN]),
        (dict[int, Name], {7: "Ann"}, {"7": FORGOTTEN}),
        (dict[str, list[Name | None]], {"a": ["Ann", None]}, {"a": [FORGOTTEN, None]}),
        (Address, STREET, FORGOTTEN_ADDRESS),
        (Address | None, STREET, FORGOTTEN_ADDRESS),
        (Address | None, None, None),
        (Company | Address, STREET, FORGOTTEN_ADDRESS),
        (Company | Address, Company(number="7"), {"number": "7"}),
        (Address | str, "nowhere", "nowhere"),
        (list[Address] | int, 3, 3),
        (list[Address | str], [STREET, "x"], [FORGOTTEN_ADDRESS, "x"]),
        (dict[str, Address], {"home": STREET}, {"home": FORGOTTEN_ADDRESS}),
        (Name | int, 5, FORGOTTEN),
        (list[Name] | list[int], [5], [FORGOTTEN]),
        (Person, Person(name="A", friends=[Person(name="B")]), {"name": FORGOTTEN, "friends": [
            {"name": FORGOTTEN, "friends": []}]}),
        (Box[Name], Box(content="Ann"), {"content": FORGOTTEN}),
        (Box[Address], Box[Address](content=STREET), {"content": FORGOTTEN_ADDRESS}),
        (Box, Box(content=STREET), {"content": FORGOTTEN_ADDRESS}),
        (Names, Names(["Ann"]), [FORGOTTEN]),
        (Any, {"deep": [STREET, (STREET, 1)]}, {"deep": [FORGOTTEN_ADDRESS, [FORGOTTEN_ADDRESS, 1]]}),
        (dict[str, object], {"a": STREET}, {"a": FORGOTTEN_ADDRESS}),
        (list, [STREET], [FORGOTTEN_ADDRESS]),
        (SerializeAsAny[Address], Wide(street="Main St", house="4b"), {**FORGOTTEN_ADDRESS, "house": FORGOTTEN}),
        (Address, Wide(street="Main St", house="4b"), FORGOTTEN_ADDRESS),
        (JsonValue, {"a": [1, None]}, {"a": [1, None]}),
        (Annotated[date, PlainSerializer(lambda day: day.year), Personal(forgotten=0)], date(2000, 1, 1), 0),
    ],
)  # fmt: skip
def test_it_is_found_wherever_it_stands(annotation: Any, value: Any, later: Any) -> None:
    event, data = one(annotation, value)
    before = data_of(event)
    assert without_personal(event, data) == {"field": later}
    assert data == before


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (str, "x"),
        (Company, Company(number="7")),
        (dict[str, JsonValue], {"a": [1]}),
        (type[int] | None, None),
        (Literal["a"], "a"),
        (Any, 1),
    ],
)
def test_what_has_no_marks_stays_the_same_object(annotation: Any, value: Any) -> None:
    event, data = one(annotation, value)
    assert without_personal(event, data) is data


def test_parts_without_marks_are_not_copied() -> None:
    event, data = one(dict[str, Any], {"a": {"b": [1]}, "c": STREET})
    later = without_personal(event, data)
    assert later["field"]["a"] is data["field"]["a"]


class Renamed(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    full_name: Name
    mail: Name = Field(serialization_alias="e-mail", default="")
    nick: Name = Field(alias="_nick", default="")
    note: Name = Field(exclude=True, default="")


def test_names_in_json_are_followed_and_what_is_not_written_is_nobodys() -> None:
    event = Renamed(fullName="Ann", mail="a@b.c", _nick="A", note="x")
    later = without_personal(event, data_of(event))
    assert later == {"fullName": FORGOTTEN, "e-mail": FORGOTTEN, "_nick": FORGOTTEN}


# ---------------------------------------------------------------------- subjects


class Line(BaseModel):
    text: Annotated[str, Personal(subject="author")]
    by: Annotated[str, Personal(subject="order_by")] = "-"


class Own(Line):
    author: int


class Order(BaseModel):
    author: str
    order_by: str = Field(alias="orderBy")
    lines: list[Line | Own] = []
    name: Name = "-"


def found_in(event: BaseModel) -> list[Found]:
    found: list[Found] = []
    rewritten(event, data_of(event), lambda one: found.append(one) or "")  # type: ignore[func-returns-value]
    return found


def test_the_nearest_field_of_that_name_says_whose_it_is() -> None:
    order = Order(author="a-1", orderBy="c-1", lines=[Line(text="x"), Own(text="y", author=7)])
    said = {found.where: found.subject("order-1") for found in found_in(order)}
    assert said == {
        "lines.0.text": "a-1", "lines.0.by": "c-1", "lines.1.text": "7", "lines.1.by": "c-1", "name": "order-1",
    }  # fmt: skip


def test_a_field_that_says_nothing_is_refused() -> None:
    (found,) = [
        one for one in found_in(Order(author="", orderBy="x", lines=[Line(text="x")])) if "text" in one.where
    ]
    with pytest.raises(PersonalDataError, match=r"lines\.0\.text: the field 'author' does not say whose it is"):
        found.subject("order-1")


class Stranger(BaseModel):
    text: Annotated[str, Personal(subject="nobody")]
    author: Name = "-"
    mine: Annotated[str, Personal(subject="author")] = "-"
    hidden: str = Field(exclude=True, default="x")
    theirs: Annotated[str, Personal(subject="hidden")] = "-"


def test_subjects_that_cannot_be_are_told_all_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_marks(create_model("Around", strangers=(list[Stranger], [])))
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "Stranger.text", "Stranger.mine", "Stranger.theirs",
    ]  # fmt: skip
    assert "subject = 'nobody' is no field of Stranger, nor of a model around it" in str(caught.value)
    assert "is personal itself" in str(caught.value)
    assert "is excluded" in str(caught.value)


# ---------------------------------------------------------------------- marks in error


@dataclass
class Plain:
    name: Name


@dataclass
class Loop:
    person: LoopModel


class LoopModel(BaseModel):
    name: Name
    loop: Loop | None = None


class Typed(TypedDict, total=False):
    name: Name


class Pair(NamedTuple):
    name: Name


@dataclass
class Fine:
    number: int


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (Annotated[int, Personal()], "Event.field: say what is read once it is forgotten"),
        (Annotated[str, Field(max_length=3), Personal()], "say what is read once it is forgotten"),
        (Annotated[int, Personal(forgotten="gone")], "forgotten = 'gone': Input should be a valid integer"),
        (Annotated[str, Personal(forgotten=object())], "forgotten has no JSON form"),
        (Annotated[str, Personal], "write Personal(), with parentheses"),
        (Annotated[str, Personal(), Personal()], "has two marks"),
        (Name | Annotated[int, Personal(forgotten=0)], "has two marks in one union"),
        (dict[Name, int], "the keys of a mapping cannot be personal"),
        (Iterable[Name], "marks inside Iterable are not found again"),
        (Plain, "Plain has marks; make it a pydantic model"),
        (list[Plain | None], "Plain has marks"),
        (Typed, "Typed has marks"),
        (Pair, "Pair has marks"),
        (Loop, "Loop has marks"),
        (Annotated[Address, PlainSerializer(lambda address: address.street)], "has a serializer; mark the whole"),
    ],
)
def test_what_would_not_be_found_again_is_refused(annotation: Any, text: str) -> None:
    assert text in problems_of(annotation)


class Around(BaseModel):
    plain: Plain


def test_it_is_refused_deep_inside_too() -> None:
    assert "Around.plain: Plain has marks" in problems_of(list[Around])


def test_a_dataclass_without_marks_is_fine() -> None:
    event, data = one(Fine, Fine(3))
    assert without_personal(event, data) is data


def test_a_mark_is_no_default() -> None:
    with pytest.raises(ConfigurationError, match=r"a mark is no default; write Annotated\[\.\.\., Personal\(\)\]"):
        check_marks(create_model("Event", field=(Any, Personal())))


class Short(BaseModel):
    address: Address

    @field_serializer("address")
    def _short(self, address: Address) -> str:
        return f"{address.street}, {address.city}"


class Flat(BaseModel):
    name: Name

    @model_serializer
    def _flat(self) -> dict[str, str]:
        return {"n": self.name}


class Loud(BaseModel):
    name: Name

    @field_serializer("name")
    def _loud(self, name: str) -> dict[str, str]:
        return {"loud": name.upper()}


@pytest.mark.parametrize("model", [Short, Flat])
def test_serializers_that_hide_marks_are_refused(model: type[BaseModel]) -> None:
    with pytest.raises(ConfigurationError, match="serializer"):
        check_marks(model)


def test_a_serializer_of_a_marked_field_is_fine() -> None:
    loud = Loud(name="Ann")
    assert [found.value for found in found_in(loud)] == [{"loud": "ANN"}]


def test_data_of_another_form_than_its_model_is_refused() -> None:
    event, data = one(list[Address], [STREET])
    for wrong in ("Main St", [], ["Main St"], [{}, {}]):
        with pytest.raises(PersonalDataError, match=r"field(\.0)? is written as \w+, and not as .*not found"):
            without_personal(event, {**data, "field": wrong})


class Elsewhere:
    """A class that pydantic knows only where it is allowed."""


class Custom(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    thing: Annotated[Elsewhere | None, Personal(forgotten=None)] = None
    name: Name = "-"

    @field_validator("name")
    @classmethod
    def _check(cls, name: str) -> str:
        return name


def test_types_that_only_the_model_knows_need_a_replacement() -> None:
    assert check_marks(Custom)
    made = create_model(
        "Event", __config__=ConfigDict(arbitrary_types_allowed=True), field=(Annotated[Elsewhere, Personal()], ...)
    )
    with pytest.raises(ConfigurationError, match="say what is read once it is forgotten"):
        check_marks(made)


def test_marked_fields_are_those_that_are_personal_themselves() -> None:
    made = create_model("Event", a=(Name, ...), b=(list[Name], []), c=(Address, ...), d=(str, ""), e=(Any, None))
    assert marked_fields(made) == {"a", "b"}
