from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, create_model

from oms_events.errors import ConfigurationError, EventUnreadableError
from oms_events.eventstore.registry import (
    MAX_TYPE_BYTES,
    EventName,
    EventRegistry,
    default_registry,
    domain_event,
    version_of,
)


class Paid(BaseModel):
    amount: Decimal
    currency: str = "EUR"


class Other(BaseModel):
    text: str = ""


@pytest.fixture
def registry() -> EventRegistry:
    return EventRegistry()


def json_of(**data: Any) -> bytes:
    return orjson.dumps(data)


# ---------------------------------------------------------------------- registering


def test_a_model_is_registered_under_its_name_or_another(registry: EventRegistry) -> None:
    assert registry.event(Paid) is Paid
    assert registry.event(type="shop.noted", version=3)(Other) is Other
    assert registry.name_of(Paid(amount=Decimal(1))) == EventName("Paid", 1)
    assert registry.name_of(Other()) == ("shop.noted", 3)
    assert registry.types() == ("Paid", "shop.noted")
    assert (registry.type_of(Other), registry.type_of(BaseModel)) == ("shop.noted", None)
    assert (registry.model_of("Paid"), registry.model_of("Nobody")) == (Paid, None)


def test_the_newest_version_is_the_model_of_a_type(registry: EventRegistry) -> None:
    registry.event(type="Paid", version=10)(Paid)
    registry.event(type="Paid", version=9)(Other)
    assert registry.model_of("Paid") is Paid


def test_a_model_may_read_older_types_and_versions(registry: EventRegistry) -> None:
    registry.event(type="Payed")(registry.event(Paid))
    registry.event(version=2)(Paid)
    assert registry.name_of(Paid(amount=Decimal(1))) == ("Paid", 2)
    for event_type, version in (("Payed", 1), ("Paid", 1), ("Paid", 2)):
        assert registry.read(event_type, version, json_of(amount="1")) == Paid(amount=Decimal(1))


def test_a_module_may_be_loaded_again(registry: EventRegistry) -> None:
    def load() -> type[BaseModel]:
        @registry.event
        class Again(BaseModel):
            pass

        @registry.upcaster("Again", from_version=7)
        def _up(data: dict[str, Any]) -> dict[str, Any]:
            return data

        return Again

    load()
    again = load()
    assert registry.model_of("Again") is again


@pytest.mark.parametrize(
    ("options", "model", "problem"),
    [
        ({}, dict, "derive it from pydantic.BaseModel"),
        ({}, Paid(amount=Decimal(1)), "derive it from pydantic.BaseModel"),
        ({"type": ""}, Paid, "type = '': give it some text"),
        ({"type": "a#b"}, Paid, "without '#'"),
        ({"type": "\ud800"}, Paid, "give it some text"),
        ({"type": "ü" * (MAX_TYPE_BYTES // 2) + "x"}, Paid, "at most 1024 bytes"),
        ({"version": 0}, Paid, "version = 0: count versions from 1"),
        ({"version": True}, Paid, "version = True"),
        ({"version": "1"}, Paid, "version = '1'"),
        ({"version": 10**9}, Paid, "version = 1000000000"),
    ],
)
def test_what_cannot_be_registered_is_refused(
    registry: EventRegistry, options: dict[str, Any], model: Any, problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        registry.event(**options)(model)
    assert registry.types() == ()


def test_one_version_has_one_model(registry: EventRegistry) -> None:
    registry.event(Paid)
    with pytest.raises(ConfigurationError, match=r"Paid version 1 is .*test_registry.Paid already; raise the ver"):
        registry.event(type="Paid")(Other)
    assert registry.model_of("Paid") is Paid


@pytest.mark.parametrize("base", ["", "urn with spaces", "urn:ü", "urn:\n"])
def test_a_schema_base_begins_a_uri(base: str) -> None:
    with pytest.raises(ConfigurationError, match="schema_base"):
        EventRegistry(schema_base=base)


@pytest.mark.parametrize("event_type", ["Paid", "shop.order/ü paid", "a:b:7"])
def test_a_dataschema_says_type_and_version(event_type: str) -> None:
    registry = EventRegistry(schema_base="https://example.com/schemas")
    schema = registry.dataschema(EventName(event_type, 12))
    assert schema.startswith("https://example.com/schemas:")
    assert schema.isascii()
    assert version_of(schema) == 12


@pytest.mark.parametrize(
    ("dataschema", "version"),
    [(None, 1), ("", 1), ("urn:x:Paid:2", 2), ("urn:x:Paid", 1), ("x:²", 1), ("x:" + "9" * 5000, 1)],
)
def test_without_a_version_it_is_the_first(dataschema: object, version: int) -> None:
    assert version_of(dataschema) == version


def test_there_is_a_registry_for_those_who_need_only_one() -> None:
    @domain_event(type="test-registry.noted")
    class Noted(BaseModel):
        pass

    assert default_registry.model_of("test-registry.noted") is Noted


# ---------------------------------------------------------------------- what is no event of it


def test_only_registered_classes_are_domain_events(registry: EventRegistry) -> None:
    registry.event(Paid)

    class PaidLater(Paid):
        pass

    for event in (Other(), PaidLater(amount=Decimal(1)), "text", None):
        with pytest.raises(ConfigurationError, match="is no domain event of this registry"):
            registry.name_of(event)  # type: ignore[arg-type]


def test_what_is_wrong_with_an_event_is_told(registry: EventRegistry) -> None:
    def module(registry: EventRegistry) -> type[BaseModel]:
        @registry.event(type="test-registry.wrong")
        class Noted(BaseModel):
            pass

        return Noted

    before, elsewhere = module(EventRegistry()), module(default_registry)
    for event, hint in (
        (before, "Noted: .* it is a class; give one of it, Noted\\(...\\)"),
        ({"text": ""}, "dict: .* give one of a pydantic model that is registered"),
        (elsewhere(), "Noted: .* its class is in default_registry"),
        (before(), "Noted: .* decorate its class with this registry's `event`, or use the registry that has it"),
    ):
        with pytest.raises(ConfigurationError, match=f"(?s){hint}"):
            registry.name_of(event)  # type: ignore[arg-type]
    registry.event(create_model("Noted", __module__="shop.events"))
    hint = (
        r"it is of tests\.eventstore\.test_registry\..*Noted, but registered is shop\.events\.Noted, another class"
    )
    with pytest.raises(ConfigurationError, match=hint):
        registry.name_of(before())


def test_a_version_with_an_upcaster_is_not_written_any_more(registry: EventRegistry) -> None:
    registry.event(Paid)
    registry.upcaster("Paid", from_version=1)(dict)
    with pytest.raises(ConfigurationError, match=r"version 1 has an upcaster: register the model as version 2"):
        registry.name_of(Paid(amount=Decimal(1)))


# ---------------------------------------------------------------------- upcasters


def test_upcasters_are_applied_one_after_the_other(registry: EventRegistry) -> None:
    registry.event(version=4)(Paid)
    registry.upcaster("Paid", from_version=1)(lambda data: {"euros": data["amount"]})
    registry.upcaster("Paid", from_version=3)(lambda data: {**data, "currency": "USD"})
    registry.upcaster("Paid", from_version=2)(lambda data: {"amount": Decimal(data["euros"]) / 4})
    assert registry.read("Paid", 1, json_of(amount="5")) == Paid(amount=Decimal("1.25"), currency="USD")
    assert registry.read("Paid", 3, '{"amount":"5"}') == Paid(amount=Decimal(5), currency="USD")
    assert registry.read("Paid", 4, '{"amount":"5"}') == Paid(amount=Decimal(5))


def test_an_upcaster_may_change_what_it_is_given_and_give_what_pydantic_writes(registry: EventRegistry) -> None:
    class Thing(BaseModel):
        number: int
        at: datetime
        paid: Paid

    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    registry.event(version=2)(Thing)

    @registry.upcaster("Thing", from_version=1)
    def _changed(data: dict[str, Any]) -> dict[str, Any]:
        data |= {"at": noon, "paid": Paid(amount=Decimal("0.1"))}
        return data

    # Also an integer of more than 64 bits stays what it is.
    found = registry.read("Thing", 1, b'{"number":%d}' % 2**70)
    assert found == Thing(number=2**70, at=noon, paid=Paid(amount=Decimal("0.1")))


def test_a_type_may_be_split_in_time(registry: EventRegistry) -> None:
    """Versions may go on without a model of their own in between."""
    registry.event(type="Paid", version=1)(Other)
    registry.upcaster("Paid", from_version=1)(lambda data: data)
    registry.event(type="Paid", version=3)(Paid)
    with pytest.raises(EventUnreadableError, match=r"version 2 has neither a model nor an upcaster") as refused:
        registry.read("Paid", 1, b"{}")
    assert refused.value.version == 1
    registry.upcaster("Paid", from_version=2)(lambda data: {"amount": 2})
    assert registry.read("Paid", 1, b"{}") == Paid(amount=Decimal(2))


@pytest.mark.parametrize(
    ("options", "function", "problem"),
    [
        ({"from_version": 0}, dict, "from_version = 0"),
        ({"event_type": "a#b", "from_version": 1}, dict, "without '#'"),
        ({"from_version": 1}, None, "no plain function"),
    ],
)
def test_what_is_no_upcaster_is_refused(
    registry: EventRegistry, options: dict[str, Any], function: Any, problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        registry.upcaster(**{"event_type": "Paid", **options})(function)


def test_an_upcaster_does_not_wait(registry: EventRegistry) -> None:
    async def later(data: dict[str, Any]) -> dict[str, Any]:
        return data

    with pytest.raises(ConfigurationError, match="no plain function"):
        registry.upcaster("Paid", from_version=1)(later)  # type: ignore[arg-type]


def test_a_version_has_one_upcaster(registry: EventRegistry) -> None:
    registry.upcaster("Paid", from_version=1)(lambda data: data)
    with pytest.raises(ConfigurationError, match="version 1 has an upcaster already"):
        registry.upcaster("Paid", from_version=1)(lambda data: {**data})


# ---------------------------------------------------------------------- what cannot be read


@pytest.mark.parametrize(
    ("event_type", "version", "payload", "text"),
    [
        ("Nobody", 1, b"{}", r"the event type 'Nobody' is not registered; import its model"),
        ("Paid", 6, b"{}", r"Paid version 6 is newer than this code, which knows up to 5; deploy the newer code"),
        (
            "Paid",
            4,
            b"{}",
            r"Paid version 4 has neither a model nor an upcaster; register upcaster\('Paid', from_v",
        ),
        ("Paid", 5, b"{}", r"Paid version 5 does not fit Paid: amount: Field required$"),
        ("Paid", 5, b'{"amount":"x","currency":7}', r"Paid: amount: .* \(and 1 more\)$"),
        ("Paid", 5, b"no json", r"Paid version 5 does not fit Paid: data: Invalid JSON"),
        ("Paid", 5, b"", r"Paid version 5 does not fit Paid: data: Invalid JSON"),
        ("Paid", 1, b"{}", r"the upcaster of Paid version 1 failed: KeyError \(test_registry\.py:\d+\)$"),
        ("Paid", 1, b"[]", r"the upcaster of Paid version 1 failed: TypeError"),
        ("Paid", 1, b"no json", r"the upcaster of Paid version 1 failed: JSONDecodeError"),
        ("Paid", 1, b'{"amount":1}', r"the upcaster of Paid version 2 failed: ZeroDivisionError"),
        ("Paid", 3, b'{"amount":1}', r"what the upcaster of Paid version 3 gives has no JSON form$"),
        (
            "Late",
            1,
            b"{}",
            r"upcasters make version 3 of Late version 1, but no model has it: register the model a",
        ),
    ],
)
def test_an_event_that_cannot_be_read_says_why(
    registry: EventRegistry, event_type: str, version: int, payload: bytes, text: str
) -> None:
    registry.event(version=5)(Paid)
    registry.upcaster("Paid", from_version=1)(lambda data: {"amount": data["amount"]})
    registry.upcaster("Paid", from_version=2)(lambda data: {"amount": 1 / 0})
    registry.upcaster("Paid", from_version=3)(lambda data: {"amount": object()})
    registry.event(type="Late", version=2)(Other)
    registry.upcaster("Late", from_version=1)(lambda data: data)
    registry.upcaster("Late", from_version=2)(lambda data: data)
    with pytest.raises(EventUnreadableError, match=text) as refused:
        registry.read(event_type, version, payload)
    assert (refused.value.event_type, refused.value.version) == (event_type, version)


def test_what_does_not_fit_is_not_repeated(registry: EventRegistry) -> None:
    """It may be somebody's personal data."""
    registry.event(Paid)
    with pytest.raises(EventUnreadableError) as refused:
        registry.read("Paid", 1, json_of(amount="Alice's secret"))
    assert "Alice" not in str(refused.value)
    assert refused.value.__cause__ is None


@given(st.integers(1, 6), st.integers(1, 6))
def test_from_any_version_upcasters_lead_to_the_newest(start: int, newest: int) -> None:
    class Stepped(BaseModel):
        steps: list[int]

    registry = EventRegistry()
    registry.event(version=newest)(Stepped)
    for version in range(1, newest):
        registry.upcaster("Stepped", from_version=version)(
            lambda data, version=version: {"steps": [*data["steps"], version]}  # type: ignore[misc]
        )
    if start <= newest:
        assert registry.read("Stepped", start, b'{"steps":[]}') == Stepped(steps=list(range(start, newest)))
    else:
        with pytest.raises(EventUnreadableError, match="newer than this code"):
            registry.read("Stepped", start, b'{"steps":[]}')


@pytest.mark.parametrize("with_upcaster", [False, True])
def test_encrypted_data_that_nobody_revealed_is_told(registry: EventRegistry, with_upcaster: bool) -> None:
    registry.event(version=1 + with_upcaster)(Paid)
    if with_upcaster:
        registry.upcaster("Paid", from_version=1)(lambda data: {**data, "currency": data["currency"].lower()})
    stored = {"amount": 1, "currency": {"$personal": {"s": "ann", "k": 1, "c": "", "otherwise": ""}}}
    for payload in (json_of(**stored), json_of(**stored).decode()):
        with pytest.raises(
            EventUnreadableError, match=r"is encrypted, and was not revealed: give the store a cipher"
        ):
            registry.read("Paid", 1, payload)
    with pytest.raises(EventUnreadableError) as caught:
        registry.read("Paid", 1, json_of(amount="much", currency="$personal"))
    assert "encrypted" not in str(caught.value)
