from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, Field

from oms_events.errors import ConfigurationError, InvalidEventError, RequestError
from oms_events.eventstore.aggregates.aggregate import Aggregate, as_stored, command_fingerprint
from oms_events.eventstore.personal.marks import Personal
from oms_events.eventstore.registry import EventRegistry
from tests.eventstore.banking import ACCOUNT, Account, decide, deposited, evolve, folded, initial


async def decide_later(state: Account, command: Any) -> list[Any]:
    return []


def test_what_cannot_work_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Aggregate[Any, Any, Any](
            name="",
            state=dict,
            initial=None,  # type: ignore[arg-type]
            decide=decide_later,  # type: ignore[arg-type]
            evolve=evolve,
            snapshot_version=0,
        )
    assert [problem.split(" ")[0] for problem in caught.value.problems] == [
        "name",
        "state",
        "initial",
        "decide",
        "snapshot_version",
    ]


def test_folds_events_in_their_order() -> None:
    events = [event for amount in (5, 7) for event in decide(initial("a"), deposited(amount))]
    state = folded("a", events)
    assert state.balance == 12
    assert folded("a", reversed(events)) != state


@pytest.mark.parametrize("given", [None, deposited(), "text", b"bytes", {"a": 1}, 5])
def test_a_decision_that_is_no_list_is_refused(given: Any) -> None:
    aggregate = Aggregate[Any, Any, Any](
        name="A", state=Account, initial=initial, decide=lambda state, command: given, evolve=evolve
    )
    with pytest.raises(
        InvalidEventError, match=rf"`decide` of A gave {type(given).__name__}: give a list .* or an empty list"
    ):
        aggregate.decided(initial("a"), deposited())


def test_a_decision_may_be_any_run_of_events() -> None:
    events = ACCOUNT.decide(initial("a"), deposited(parts=2))
    decisions: Any = iter([tuple(events), iter(events), list(events)])
    aggregate = Aggregate[Any, Any, Any](
        name="A", state=Account, initial=initial, decide=lambda state, command: next(decisions), evolve=evolve
    )
    for _ in range(3):
        assert aggregate.decided(initial("a"), deposited()) == events


@pytest.mark.parametrize("given", [None, {"balance": 1}, deposited()])
def test_what_is_no_state_is_refused(given: Any) -> None:
    aggregate = Aggregate[Any, Any, Any](
        name="A", state=Account, initial=initial, decide=decide, evolve=lambda state, event: given
    )
    text = rf"aggregate 'A': `evolve` gave {type(given).__name__} for Deposit: give the state, of Account"
    with pytest.raises(ConfigurationError, match=text):
        aggregate.fold(initial("a"), [deposited()])


def test_an_event_is_as_it_will_be_read() -> None:
    registry = EventRegistry()

    @registry.event
    class Noted(BaseModel, frozen=True):
        data: dict[str, Any]

    given = Noted(data={"day": date(2026, 1, 31), "amount": Decimal("1.50")})
    assert as_stored(given, registry) == Noted(data={"day": "2026-01-31", "amount": "1.50"})


def test_an_event_that_cannot_be_read_back_is_refused() -> None:
    registry = EventRegistry()

    @registry.event
    class OneWay(BaseModel):
        amount: int = Field(serialization_alias="sum")

    @registry.event
    class NoJson(BaseModel, arbitrary_types_allowed=True):
        thing: object

    with pytest.raises(InvalidEventError, match=r"OneWay could not be read back: .*amount: Field required"):
        as_stored(OneWay(amount=1), registry)
    with pytest.raises(InvalidEventError, match=r"NoJson could not be read back"):
        as_stored(NoJson(thing=object()), registry)
    with pytest.raises(ConfigurationError, match=r"Account: is no domain event"):
        as_stored(initial("a"), registry)


# ---------------------------------------------------------------------- fingerprints


class Tag(BaseModel, frozen=True):
    name: str
    weight: float = 1.0


class Import(BaseModel):
    """A command with all that commands may have."""

    key: str
    tags: frozenset[Tag] = frozenset()
    names: set[str] = set()
    at: datetime | None = None
    raw: bytes = b""
    sums: dict[int, Decimal] = {}
    request: UUID = Field(default_factory=uuid4)
    inner: Tag | None = None
    parts: list[Any] = []


def test_the_same_command_has_the_same_fingerprint_however_it_was_made() -> None:
    given = Import(
        key="a",
        tags=frozenset({Tag(name="x"), Tag(name="y", weight=2)}),
        names={"n", "m"},
        at=datetime(2026, 1, 31, tzinfo=UTC),
        raw=b"\xff\x00",
        sums={1: Decimal("1.50")},
        inner=Tag(name="z"),
        parts=[1, "two", None],
    )
    again = Import.model_validate(
        {
            "parts": [1, "two", None],
            "inner": {"weight": 1, "name": "z"},
            "sums": {"1": "1.50"},
            "raw": b"\xff\x00",
            "at": "2026-01-31T00:00:00Z",
            "names": ["m", "n", "m"],
            "tags": [{"name": "y", "weight": 2.0}, {"name": "x", "weight": 1}],
            "key": "a",
        }
    )
    assert command_fingerprint(again) == command_fingerprint(given)


def test_what_is_left_out_and_what_is_given_as_the_default_is_the_same() -> None:
    plain = command_fingerprint(Import(key="a"))
    assert command_fingerprint(Import(key="a", names=set(), inner=None, raw=b"")) == plain
    # Its default is another each time: only when it is given it says something.
    assert command_fingerprint(Import(key="a", request=uuid4())) != plain

    class Older(BaseModel):
        key: str

    Older.__name__ = "Import"
    assert command_fingerprint(Older(key="a")) == plain


@pytest.mark.parametrize(
    "other",
    [
        Import(key="b"),
        Import(key="a", names={"a"}),
        Import(key="a", parts=[1, 2]),
        Import(key="a", parts=[2, 1]),
        Import(key="a", parts=["1", 2]),
        Import(key="a", inner=Tag(name="a")),
        Import(key="a", inner=Tag(name="a", weight=2)),
        Import(key="a", sums={1: Decimal(1)}),
        Tag(name="a"),
    ],
)
def test_another_command_has_another_fingerprint(other: BaseModel) -> None:
    others = [Import(key="a"), Import(key="a", names={"b"}), Import(key="a", parts=[1, 2, 3])]
    assert command_fingerprint(other) not in set(map(command_fingerprint, others))


def test_the_order_of_sets_in_other_processes_does_not_matter() -> None:
    program = """if True:
        from pydantic import BaseModel
        from oms_events.eventstore.aggregates.aggregate import command_fingerprint

        class Import(BaseModel):
            names: set[str]

        print(command_fingerprint(Import(names={f"name-{number}" for number in range(20)})))
    """
    prints = [
        subprocess.Popen(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, stdout=subprocess.PIPE
        )
        for seed in ("1", "2")
    ]
    first, second = (process.communicate(timeout=30)[0] for process in prints)
    assert first == second != b""


def test_personal_fields_are_not_in_it() -> None:
    class Register(BaseModel):
        customer: str
        name: Annotated[str, Personal()]
        emails: list[Annotated[str, Personal()]] = []
        friend: Register | None = None

    def of(name: str, *emails: str, customer: str = "c", friend: Register | None = None) -> str:
        return command_fingerprint(Register(customer=customer, name=name, emails=[*emails], friend=friend))

    assert of("Ann") == of("Bob", "bob@example.com")
    assert of("Ann", customer="d") != of("Ann")
    friend = Register(customer="f", name="Fay")
    assert of("Ann", friend=friend) == of("Ann", friend=friend.model_copy(update={"name": "Flo"}))
    assert of("Ann", friend=friend) != of("Ann", friend=friend.model_copy(update={"customer": "g"}))


class Weekday(Enum):
    SUNDAY = 7


@dataclass
class Holder:
    person: Any


class Someone(BaseModel):
    name: Annotated[str, Personal()]


class Pair(NamedTuple):
    name: Annotated[str, Personal()]


@dataclass
class Marked:
    name: Annotated[str, Personal()]


@pytest.mark.parametrize(
    "value",
    [Holder(Someone(name="Ann")), Pair("Ann"), Marked("Ann"), {Pair("Ann"): 1}, [Holder([Someone(name="A")])]],
)
def test_personal_data_that_would_not_be_found_is_refused_and_not_repeated(value: Any) -> None:
    with pytest.raises(RequestError, match="personal data would not be found; make it a pydantic model") as caught:
        command_fingerprint(Import(key="a", parts=[value]))
    assert "Ann" not in str(caught.value)


@pytest.mark.parametrize(
    "value", [Holder(1), Holder([Tag(name="x")]), deque([1, "two"]), Path("a"), Weekday.SUNDAY]
)
def test_values_of_other_classes_are_in_it_when_nothing_personal_is_in_them(value: Any) -> None:
    assert command_fingerprint(Import(key="a", parts=[value])) != command_fingerprint(Import(key="a", parts=[2]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_a_command_that_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(RequestError, match=r"the command Import cannot be written as JSON: "):
        command_fingerprint(Import(key="a", parts=[value]))
