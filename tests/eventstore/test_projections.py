from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, RootModel, SecretBytes, SecretStr, computed_field

from oms_events.errors import ConfigurationError
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.projections.items import dump_row, read_row
from oms_events.eventstore.projections.projection import Projection
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.projections.read_models import MemoryReadModels
from oms_events.eventstore.registry import EventRegistry
from tests.eventstore.accounts import AccountClosed, AccountCreated, TransactionProcessed, registry
from tests.eventstore.ledgers import Total, summaries, totals

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Row(BaseModel):
    number: int = 0


class Taken(BaseModel):
    account: str = Field(alias="AccountId")


class TakenByAResult(BaseModel):
    @computed_field(alias="ProjectionRevision")  # type: ignore[prop-decorator]
    @property
    def revision(self) -> str:
        return "1"


class Forgetful(BaseModel):
    secret: str = Field(default="", exclude=True)


class Hiding(BaseModel):
    token: SecretStr | None = None


class Device(BaseModel):
    pin: SecretBytes
    others: list[Device] = []


class HidingBelow(BaseModel):
    devices: dict[str, list[Device]] = {}


class TwoNames(BaseModel):
    amount: int = Field(default=0, serialization_alias="Amount", validation_alias="sum")


class Numbers(RootModel[list[int]]):
    pass


def projection(row: Any = Row, **options: Any) -> Projection[Any]:
    return Projection("Rows", row, registry=registry, **options)


# ---------------------------------------------------------------------- what can be a projection


@pytest.mark.parametrize("name", ["", "a b", "Rows@1", "a#b", "é", "x" * 201, None, 7])
def test_a_name_that_is_no_key_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="letters, digits"):
        Projection(name, Row, registry=registry)


@pytest.mark.parametrize("version", [0, -1, 1.0, True, "1", None, 1_000_000])
def test_a_version_that_is_no_count_is_refused(version: Any) -> None:
    with pytest.raises(ConfigurationError, match="count versions from 1"):
        projection(version=version)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (dict, "give a pydantic model"),
        (None, "give a pydantic model"),
        (Row(), "give a pydantic model"),
        (Numbers, "give a pydantic model with named fields"),
        (Taken, "'account' is stored as 'AccountId', which the read model has itself"),
        (TakenByAResult, "'revision' is stored as 'ProjectionRevision', which the read model has itself"),
        (Forgetful, "'secret' is excluded"),
        (Hiding, "'token' is a secret"),
        (HidingBelow, "'devices' is a secret"),
        (TwoNames, "'amount' is stored as 'Amount', but read under another name"),
    ],
)
def test_rows_that_cannot_be_stored_and_read_back_are_refused(row: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        projection(row)


def test_all_problems_are_told_together() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Projection("a b", Taken, version=0, registry=registry)
    assert len(caught.value.problems) == 3


def test_its_full_name_has_the_version_and_its_types_are_those_it_handles() -> None:
    made = projection(version=12)
    assert (made.full_name, made.event_types, made.shares_rows) == ("Rows@12", frozenset(), False)
    assert summaries().event_types == {"AccountCreated", "TransactionProcessed", "AccountClosed"}
    assert not summaries().shares_rows
    assert totals().shares_rows
    assert "TransactionProcessed" in repr(totals())


# ---------------------------------------------------------------------- functions


def ignore(row: Row | None, event: Any, recorded: Any) -> Row | None:
    return row


async def ignore_later(row: Any, event: Any, recorded: Any) -> Any:
    return row


def two(row: Any, event: Any) -> Any:
    return row


def four(row: Any, event: Any, recorded: Any, more: Any) -> Any:
    return row


def named(row: Any, event: Any, *, recorded: Any) -> Any:
    return row


def no_key() -> str:
    return "a"


async def key_later(recorded: Any) -> str:
    return "a"


def own_key(recorded: Any) -> str:
    return "a"


@pytest.mark.parametrize(
    ("register", "problem"),
    [
        (lambda made: made.on()(ignore), "name the models of the events"),
        (lambda made: made.on(Row)(ignore), "Row'> is no domain event of the projection's registry"),
        (lambda made: made.on("AccountCreated")(ignore), "'AccountCreated' is no domain event"),
        (lambda made: made.on(AccountCreated)(ignore_later), "without `async`"),
        (lambda made: made.on(AccountCreated)(None), "without `async`"),
        (lambda made: made.on(AccountCreated)(two), r"two does not take three arguments: \(row, domain event"),
        (lambda made: made.on(AccountCreated)(four), "four does not take three"),
        (lambda made: made.on(AccountCreated)(named), "named does not take three"),
        (lambda made: made.on(AccountCreated, key=no_key)(ignore), "plain function of the recorded event"),
        (lambda made: made.on(AccountCreated, key=key_later)(ignore), "plain function of the recorded event"),
        (lambda made: made.on(AccountCreated, key="a")(ignore), "plain function of the recorded event"),
        (lambda made: (made.on(AccountCreated)(ignore), made.on(AccountCreated)(ignore)), "another key"),
        (
            lambda made: [made.on(AccountCreated, key=own_key)(ignore) for _ in range(2)],
            "AccountCreated has a function with this key already",
        ),
    ],
)
def test_what_handles_no_event_is_refused(register: Callable[[Any], Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        register(projection())


@pytest.mark.parametrize(
    "function",
    [lambda *arguments: None, lambda row, event, recorded, more=1: row, functools.partial(four, more=1), max],
)
def test_what_takes_three_arguments_in_another_way_is_a_function(function: Any) -> None:
    made = projection()
    made.on(AccountCreated)(function)
    assert made.event_types == {"AccountCreated"}


def test_a_refused_registration_changes_nothing() -> None:
    made = projection()
    with pytest.raises(ConfigurationError):
        made.on(AccountCreated, Row)(ignore)
    assert made.event_types == frozenset()


def test_several_functions_may_handle_a_type_under_different_keys() -> None:
    made = projection()
    made.on(AccountCreated)(ignore)
    made.on(AccountCreated, AccountClosed, key=own_key)(ignore)
    made.on(AccountCreated, key=lambda recorded: "b")(ignore)
    assert len(made.handlers("AccountCreated")) == 3
    assert [handler.key for handler in made.handlers("AccountClosed")] == [own_key]
    assert list(made.handlers("Unknown")) == []


def test_models_of_several_versions_are_one_type() -> None:
    own = EventRegistry()

    @own.event(type="Moved")
    class MovedOnce(BaseModel):
        pass

    @own.event(type="Moved", version=2)
    class Moved(BaseModel):
        pass

    made = Projection("Rows", Row, registry=own)
    made.on(MovedOnce, Moved)(ignore)
    assert len(made.handlers("Moved")) == 1


def test_a_function_can_still_be_called_by_its_name() -> None:
    assert projection().on(AccountCreated)(ignore) is ignore


# ---------------------------------------------------------------------- projectors of them


@pytest.mark.parametrize(
    ("projections", "problem"),
    [
        ([], "at least one"),
        ([projection()], "Rows@1 handles no events"),
        ([totals(), totals()], "Total@1 is there twice"),
    ],
)
def test_a_projector_refuses_what_cannot_work(projections: list[Projection[Any]], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        Projector(projections, MemoryEventStore(registry=registry), MemoryReadModels())


def test_a_projector_names_the_arguments_that_are_of_another_kind() -> None:
    store: Any = MemoryEventStore(registry=registry)
    read_models: Any = MemoryReadModels()
    projector: Any = Projector
    for projections in (totals(), [Row], None):
        with pytest.raises(ConfigurationError, match=r"projections = .*: give a list of projections") as caught:
            projector(projections, store, read_models)
        assert len(caught.value.problems) == 1
    with pytest.raises(
        ConfigurationError, match=r"(?s)store = <.*give an event store.*read_models = <.*give read"
    ):
        projector([totals()], read_models, store)


async def test_a_projector_refuses_what_is_no_recorded_event() -> None:
    projector: Any = Projector([totals()], MemoryEventStore(registry=registry), MemoryReadModels())
    with pytest.raises(ConfigurationError, match="it is of type str; give events as"):
        await projector.handle(["x"])


def test_a_projector_and_its_store_have_one_registry() -> None:
    with pytest.raises(ConfigurationError, match="Total@1 has another registry than the event store"):
        Projector([totals()], MemoryEventStore(), MemoryReadModels())


def test_two_versions_may_be_side_by_side() -> None:
    newer = projection(Total, version=2)
    newer.on(TransactionProcessed)(ignore)
    older = projection(Total)
    older.on(TransactionProcessed)(ignore)
    Projector([older, newer], MemoryEventStore(registry=registry), MemoryReadModels())


# ---------------------------------------------------------------------- rows as they are stored


class Rich(BaseModel):
    """What models have that does not come back by itself."""

    model_config = ConfigDict(strict=True, extra="forbid")

    exact: Decimal = Decimal("1.10")
    time: datetime = NOW
    half: float = 0.1
    whole: float = 3.0
    big: int = 2**80
    raw: bytes = b"raw"
    any: Any = None
    names: dict[int, float] = {1: 0.5}
    aliased: int = Field(default=1, alias="Aliased")
    chosen: int = Field(default=1, serialization_alias="b", validation_alias=AliasChoices("a", "b"))
    maybe: float | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> float:
        return self.half * 2


def test_rows_come_back_as_they_were() -> None:
    row = Rich(any=[1, 1.5, {"deep": [None, True, "x"]}], maybe=1e-7)
    attributes = dump_row(row)
    assert attributes["double"] == {"N": "0.2"}
    assert attributes["exact"] == {"S": "1.10"}
    assert attributes["Aliased"] == {"N": "1"}
    again = read_row(attributes, projection(Rich))
    assert again == row
    assert dump_row(again) == attributes


@pytest.mark.parametrize("number", [1e300, 5e-324, -1e-200, float("inf"), float("nan")])
def test_numbers_that_dynamodb_lacks_are_refused_with_their_place(number: float) -> None:
    with pytest.raises(ValueError, match=r"row\.half"):
        dump_row(Rich(half=number))
    with pytest.raises(ValueError, match=r"row\.names\.7"):
        dump_row(Rich(names={7: number}))


def test_a_field_that_came_by_itself_may_not_have_a_reserved_name() -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")

    with pytest.raises(ValueError, match="'ProjectionType', which the read model has itself"):
        dump_row(Open(ProjectionType="mine"))  # type: ignore[call-arg]
