"""The cipher: what it encrypts, whom it forgets, and what it refuses to be fooled by."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Collection, Mapping
from datetime import date
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, JsonValue, SecretBytes, field_serializer, field_validator

from oms_events.errors import ConfigurationError, InvalidEventError, PersonalDataError, StorageUnavailableError
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.personal.encryption import PersonalDataCipher
from oms_events.eventstore.personal.keys import MemorySubjectKeys, SubjectKey
from oms_events.eventstore.personal.marks import FORGOTTEN, Personal
from oms_events.eventstore.personal.sealed import MARK, masked
from oms_events.eventstore.registry import EventRegistry
from oms_events.testing.clock import ManualClock

ANN = "customer-1"


class Registered(BaseModel, frozen=True):
    customer_id: str = ANN
    name: Annotated[str, Personal(subject="customer_id")] = "Ann Smith"
    born: Annotated[date | None, Personal(subject="customer_id")] = date(1990, 2, 3)
    tags: Annotated[list[int], Personal(subject="customer_id", forgotten=[])] = [1, 2]
    plan: str = "basic"
    extra: dict[str, Any] = {}


class Told(BaseModel):
    story: Annotated[str, Personal()]


class Keys(MemorySubjectKeys):
    """Keys that say what they were asked for, and may be slow or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Collection[str]] = []
        self.created: list[str] = []
        self.fail = False
        self.gate: asyncio.Event | None = None
        self.has_read = asyncio.Event()

    async def get(self, subjects: Collection[str]) -> Mapping[str, SubjectKey]:
        self.asked.append(sorted(subjects))
        found = await super().get(subjects)
        self.has_read.set()
        if self.gate is not None:
            await self.gate.wait()
        return found

    async def get_or_create(self, subject: str) -> SubjectKey:
        self.created.append(subject)
        return await super().get_or_create(subject)

    async def delete(self, subject: str) -> None:
        await super().delete(subject)
        if self.fail:
            raise StorageUnavailableError("the answer was lost")


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def cipher(keys: Keys) -> PersonalDataCipher:
    return PersonalDataCipher(keys)


def data_of(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, round_trip=True)


async def protected(cipher: PersonalDataCipher, model: BaseModel, subject: str = "account-1") -> bytes:
    return json.dumps(await cipher.protect(model, data_of(model), subject=subject)).encode()


async def revealed(cipher: PersonalDataCipher, *payloads: bytes) -> list[Any]:
    return [json.loads(payload) for payload in await cipher.reveal(payloads)]


async def sealed(cipher: PersonalDataCipher, story: Any = "x", subject: str = ANN) -> dict[str, Any]:
    """The encrypted form of a story, to be tampered with."""
    data = json.loads(await protected(cipher, Told(story=story), subject))
    inside: dict[str, Any] = data["story"][MARK]
    return inside


def document(inside: Any) -> bytes:
    return json.dumps({"story": {MARK: inside}}).encode()


# ---------------------------------------------------------------------- there and back


async def test_it_comes_back_as_it_was_and_is_stored_in_no_clear_form(cipher: PersonalDataCipher) -> None:
    event = Registered(name='Ann "Ä" Smith\n12345678901234567890', tags=[2**70])
    data = data_of(event)
    stored = await protected(cipher, event)
    assert data == data_of(event)
    for clear in (b"Ann", b"Smith", b"1990", b"1180591620717411303424"):
        assert clear not in stored
    assert b'"plan": "basic"' in stored
    assert await revealed(cipher, stored) == [data]


class Anything(BaseModel):
    it: Annotated[JsonValue, Personal()]


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=8,
)


@given(values=st.lists(_JSON, min_size=1, max_size=4))
async def test_whatever_json_it_is_it_comes_back(values: list[Any]) -> None:
    cipher = PersonalDataCipher(MemorySubjectKeys())
    stored = [await protected(cipher, Anything(it=value)) for value in values]
    assert await revealed(cipher, *stored) == [{"it": value} for value in values]
    await cipher.forget("account-1")
    later = await revealed(cipher, *stored)
    assert later == [{"it": None if value is None else FORGOTTEN} for value in values]


async def test_the_form_is_as_documented(cipher: PersonalDataCipher) -> None:
    data = await cipher.protect(Registered(born=None), data_of(Registered(born=None)), subject="account-1")
    assert data["born"] is None
    assert list(data) == list(Registered.model_fields)
    assert data["name"] == {
        "$personal": {"s": ANN, "k": 1, "c": data["name"]["$personal"]["c"], "otherwise": FORGOTTEN}
    }


async def test_what_is_not_personal_stays_the_same_object(cipher: PersonalDataCipher, keys: Keys) -> None:
    class Plain(BaseModel):
        field: dict[str, Any]

    plain = Plain(field={"a": [1, "$personal"]})
    data = data_of(plain)
    assert await cipher.protect(plain, data, subject=ANN) is data
    payloads = [b"{}", json.dumps(data).encode(), b"", b'{"$personal": "yes"}', b'{"$personal": {}, "other": 1}']
    after = await cipher.reveal(payloads)
    assert all(new is old for new, old in zip(after, payloads, strict=True))
    assert keys.asked == keys.created == []


async def test_without_a_subject_of_its_own_it_is_the_aggregates(cipher: PersonalDataCipher, keys: Keys) -> None:
    stored = await protected(cipher, Told(story="x"), subject="account-7")
    assert keys.created == ["account-7"]
    await cipher.forget("account-7")
    assert await revealed(cipher, stored) == [{"story": FORGOTTEN}]


async def test_the_same_text_is_never_encrypted_the_same_way(cipher: PersonalDataCipher) -> None:
    contents = {(await sealed(cipher))["c"] for _ in range(50)}
    assert len(contents) == 50


async def test_its_length_does_not_tell_yes_from_no(cipher: PersonalDataCipher) -> None:
    class Answer(BaseModel):
        given: Annotated[bool | str, Personal()]

    lengths = [len(await protected(cipher, Answer(given=value))) for value in (True, False, "maybe", "x" * 20)]
    assert len(set(lengths)) == 1


async def test_a_value_like_its_replacement_is_encrypted_too(cipher: PersonalDataCipher) -> None:
    class Answer(BaseModel):
        given: Annotated[bool, Personal(forgotten=False)]

    assert MARK.encode() in await protected(cipher, Answer(given=False))


async def test_all_keys_of_many_documents_are_asked_for_at_once(cipher: PersonalDataCipher, keys: Keys) -> None:
    people = [f"person-{number}" for number in range(30)]
    stored = [await protected(cipher, Told(story=name), name) for name in people for _ in range(2)]
    fresh = PersonalDataCipher(keys)
    stories = [clear["story"] for clear in await revealed(fresh, b"{}", *stored) if clear]
    assert stories == [name for name in people for _ in range(2)]
    assert keys.asked == [sorted(people)]


# ---------------------------------------------------------------------- forgetting


async def test_who_is_forgotten_leaves_replacements_and_everybody_else_stays(cipher: PersonalDataCipher) -> None:
    ann, bob = Registered(), Registered(customer_id="customer-2", name="Bob")
    stored = [await protected(cipher, ann), await protected(cipher, bob)]
    await cipher.forget(ANN)
    await cipher.forget(ANN)
    later, other = await revealed(cipher, *stored)
    assert Registered.model_validate(later) == Registered(name=FORGOTTEN, born=None, tags=[])
    assert other == data_of(bob)


async def test_new_data_of_somebody_forgotten_is_refused(cipher: PersonalDataCipher) -> None:
    await cipher.forget(ANN)
    with pytest.raises(PersonalDataError, match=r"name: the person 'customer-1' was forgotten") as caught:
        await protected(cipher, Registered())
    assert caught.value.subject == ANN
    assert "Smith" not in str(caught.value)


async def test_what_was_read_after_forgetting_may_be_written_again(cipher: PersonalDataCipher) -> None:
    await protected(cipher, Registered())
    await cipher.forget(ANN)
    state = Registered(name=FORGOTTEN, born=None, tags=[])
    data = data_of(state)
    assert await cipher.protect(state, data, subject="account-1") == data


async def test_what_is_derived_is_replaced_where_its_person_was_forgotten(cipher: PersonalDataCipher) -> None:
    await cipher.forget(ANN)
    both = Registered(name="Dear Ann", extra={"greeting": "x"})
    later = await cipher.protect(both, data_of(both), subject="account-1", if_forgotten="replace")
    assert later == data_of(Registered(name=FORGOTTEN, born=None, tags=[], extra={"greeting": "x"}))
    told = Told(story="of Bob")
    assert MARK in str(await cipher.protect(told, data_of(told), subject="bob", if_forgotten="replace"))


async def test_who_comes_back_gets_a_new_key_and_the_old_data_stays_forgotten(
    cipher: PersonalDataCipher, keys: Keys
) -> None:
    before = await protected(cipher, Told(story="old"), ANN)
    other = PersonalDataCipher(keys)
    assert await revealed(other, before) == [{"story": "old"}]
    await cipher.forget(ANN)
    await cipher.allow_again(ANN)
    await cipher.allow_again(ANN)
    after = await protected(cipher, Told(story="new"), ANN)
    assert await revealed(cipher, before, after) == [{"story": FORGOTTEN}, {"story": "new"}]
    # This one still has the old key, and sees by the data that there is a newer one.
    assert await revealed(other, before, after) == [{"story": FORGOTTEN}, {"story": "new"}]


async def test_another_process_forgets_within_the_time_to_live(keys: Keys) -> None:
    clock = ManualClock()
    here, there = PersonalDataCipher(keys), PersonalDataCipher(keys, key_ttl=60, clock=clock)
    stored = await protected(there, Told(story="x"), ANN)
    await here.forget(ANN)
    assert await revealed(here, stored) == [{"story": FORGOTTEN}]
    await clock.advance(59.9)
    assert await revealed(there, stored) == [{"story": "x"}]
    late = await protected(there, Told(story="y"), ANN)
    await clock.advance(0.1)
    assert await revealed(there, stored, late) == [{"story": FORGOTTEN}] * 2
    with pytest.raises(PersonalDataError, match="was forgotten"):
        await protected(there, Told(story="y"), ANN)


async def test_a_key_that_was_on_its_way_while_its_person_was_forgotten_is_not_kept(keys: Keys) -> None:
    stored = await protected(PersonalDataCipher(keys), Told(story="x"), ANN)
    cipher = PersonalDataCipher(keys)
    keys.gate = asyncio.Event()
    reading = asyncio.create_task(revealed(cipher, stored))
    await keys.has_read.wait()
    await cipher.forget(ANN)
    keys.gate.set()
    assert await reading == [{"story": "x"}]
    assert await revealed(cipher, stored) == [{"story": FORGOTTEN}]


async def test_after_a_deletion_without_an_answer_the_key_is_not_used_here(
    cipher: PersonalDataCipher, keys: Keys
) -> None:
    stored = await protected(cipher, Told(story="x"), ANN)
    keys.fail = True
    with pytest.raises(StorageUnavailableError):
        await cipher.forget(ANN)
    assert await revealed(cipher, stored) == [{"story": FORGOTTEN}]


async def test_keys_are_kept_up_to_a_number_the_least_used_go_first(keys: Keys) -> None:
    cipher = PersonalDataCipher(keys, max_keys=2)
    stored = {name: await protected(cipher, Told(story=name), name) for name in "abc"}
    # The key of c was put last, that of b is used last.
    await cipher.reveal([stored["b"]])
    assert keys.asked == []
    await cipher.reveal([stored["a"]])
    await cipher.reveal([stored["b"], stored["a"]])
    assert keys.asked == [["a"]]
    assert await revealed(cipher, *stored.values()) == [{"story": name} for name in "abc"]
    assert keys.asked == [["a"], ["c"]]


async def test_keys_need_not_be_kept_at_all(keys: Keys) -> None:
    cipher = PersonalDataCipher(keys, key_ttl=0)
    stored = await protected(cipher, Told(story="x"), ANN)
    for _ in range(2):
        assert await revealed(cipher, stored) == [{"story": "x"}]
    assert keys.asked == [[ANN]] * 2


# ---------------------------------------------------------------------- what is refused


async def test_what_would_be_unreadable_later_is_refused_before_it_is_stored(
    cipher: PersonalDataCipher, keys: Keys
) -> None:
    class Strict(BaseModel):
        mail: Annotated[str, Personal()]

        @field_validator("mail")
        @classmethod
        def _check(cls, mail: str) -> str:
            if "@" not in mail:
                raise ValueError("is no address")
            return mail

    with pytest.raises(
        PersonalDataError, match=r"Strict could not be read any more .* mail: .*is no address"
    ) as caught:
        await protected(cipher, Strict(mail="ann@example.com"))
    assert "ann@" not in str(caught.value)
    assert keys.created == []


async def test_a_model_that_cannot_be_read_at_all_is_not_this_ones_concern(cipher: PersonalDataCipher) -> None:
    class OneWay(BaseModel):
        name: Annotated[str, Personal()]
        size: int

    odd = OneWay.model_construct(name="Ann", size="large")
    data = {"name": "Ann", "size": "large"}
    assert (await cipher.protect(odd, data, subject=ANN))["size"] == "large"


@pytest.mark.parametrize("where", [{MARK: {}}, {"a": [{"b": {MARK: 1}}]}, {MARK: "x", "b": 1}])
async def test_data_that_looks_encrypted_is_refused(cipher: PersonalDataCipher, where: dict[str, Any]) -> None:
    class Free(BaseModel):
        data: dict[str, Any]

    for event in (Free(data=where), Registered(extra=where)):
        with pytest.raises(PersonalDataError, match=r"a member named '\$personal' is how encrypted data looks"):
            await protected(cipher, event)


async def test_marks_in_error_are_told_at_the_first_use(cipher: PersonalDataCipher) -> None:
    class Wrong(BaseModel):
        age: Annotated[int, Personal()]

    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"Wrong\.age: say what is read once it is forgotten"):
            await protected(cipher, Wrong(age=3))


@pytest.mark.parametrize("subject", ["", "x" * 2049, "\ud800"])
async def test_what_no_key_can_have_as_its_name_is_refused(cipher: PersonalDataCipher, subject: str) -> None:
    for act in (cipher.forget, cipher.allow_again, lambda name: protected(cipher, Told(story="x"), name)):
        with pytest.raises(PersonalDataError, match="subject"):
            await act(subject)


async def test_what_json_lacks_is_refused(cipher: PersonalDataCipher) -> None:
    class Number(BaseModel):
        number: Annotated[float, Personal(forgotten=0.0)]

    with pytest.raises(InvalidEventError):
        await protected(cipher, Number(number=math.nan))


@pytest.mark.parametrize("options", [{"key_ttl": -1}, {"key_ttl": math.inf}, {"max_keys": 0}])
def test_settings_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        PersonalDataCipher(MemorySubjectKeys(), **options)


# ---------------------------------------------------------------------- damage and deceit


async def test_damage_is_told_with_place_and_person_and_no_clear_text(cipher: PersonalDataCipher) -> None:
    inside = await sealed(cipher, "a secret")
    content = inside["c"]
    for wrong in (content[:-8], content[:10] + ("A" if content[10] != "A" else "B") + content[11:], "", "AAAA"):
        with pytest.raises(
            PersonalDataError, match=r"story of subject 'customer-1': .* was changed, or moved"
        ) as caught:
            await cipher.reveal([b"{}", document({**inside, "c": wrong})])
        assert (caught.value.subject, caught.value.index) == (ANN, 1)
        assert caught.value.__cause__ is None
        assert "secret" not in repr(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"c": "not base64!"},
        {"c": None},
        {"k": 0},
        {"k": "1"},
        {"s": 3},
        {"c": ...},
        {"s": ...},
        {"otherwise": ...},
    ],
)
async def test_a_broken_form_is_told(cipher: PersonalDataCipher, change: dict[str, Any]) -> None:
    inside = {**await sealed(cipher), **change}
    broken = {name: value for name, value in inside.items() if value is not ...}
    with pytest.raises(PersonalDataError, match="story: the encrypted data is damaged") as caught:
        await cipher.reveal([document(broken)])
    assert caught.value.index == 0


async def test_what_is_encrypted_cannot_be_passed_off_as_another_persons(cipher: PersonalDataCipher) -> None:
    inside = await sealed(cipher, "of Ann")
    await sealed(cipher, "of Bob", "bob")
    with pytest.raises(PersonalDataError, match="subject 'bob'"):
        await cipher.reveal([document({**inside, "s": "bob"})])


async def test_not_even_by_who_gives_the_other_person_the_same_key() -> None:
    cipher = PersonalDataCipher(MemorySubjectKeys(random_bytes=bytes))
    inside = await sealed(cipher, "of Ann")
    await sealed(cipher, "of Bob", "bob")
    await cipher.forget(ANN)
    await cipher.allow_again(ANN)
    for moved in ({"s": "bob"}, {"k": 2}):
        with pytest.raises(PersonalDataError, match="was changed, or moved"):
            await cipher.reveal([document({**inside, **moved})])


async def test_a_key_that_nobody_made_nor_deleted_is_an_error(cipher: PersonalDataCipher) -> None:
    stored = await protected(cipher, Told(story="x"), ANN)
    stranger = PersonalDataCipher(MemorySubjectKeys())
    with pytest.raises(PersonalDataError, match="its key is not there, and it was not deleted either"):
        await stranger.reveal([stored])
    await stranger.forget(ANN)
    assert await revealed(stranger, stored) == [{"story": FORGOTTEN}]


async def test_keys_of_an_older_backup_are_told(cipher: PersonalDataCipher, keys: Keys) -> None:
    await cipher.forget(ANN)
    await cipher.allow_again(ANN)
    await cipher.forget(ANN)
    await cipher.allow_again(ANN)
    stored = await protected(cipher, Told(story="x"), ANN)
    older = MemorySubjectKeys()
    await older.get_or_create(ANN)
    with pytest.raises(PersonalDataError, match="or of an older backup"):
        await PersonalDataCipher(older).reveal([stored])


async def test_a_key_of_another_length_is_told_with_the_document(keys: Keys) -> None:
    class Wrapped(MemorySubjectKeys):
        async def get(self, subjects: Collection[str]) -> Mapping[str, SubjectKey]:
            return {name: SubjectKey(1, SecretBytes(b"x" * 70)) for name in subjects}

    stored = await protected(PersonalDataCipher(keys), Told(story="x"), ANN)
    with pytest.raises(
        PersonalDataError, match="has 70 bytes instead of 32; was it stored with another"
    ) as caught:
        await PersonalDataCipher(Wrapped()).reveal([b"{}", stored])
    assert (caught.value.index, caught.value.subject) == (1, ANN)


async def test_what_is_no_json_is_told_with_its_index(cipher: PersonalDataCipher) -> None:
    with pytest.raises(PersonalDataError, match="the data is no JSON") as caught:
        await cipher.reveal([b"{}", b'{"$personal": '])
    assert caught.value.index == 1


async def test_lists_in_lists_without_end_are_refused(cipher: PersonalDataCipher) -> None:
    inside = json.dumps(await sealed(cipher))
    deep = b"[" * 1000 + b'{"$personal": ' + inside.encode() + b"}" + b"]" * 1000
    with pytest.raises(PersonalDataError, match="in each other without end"):
        await cipher.reveal([deep])


# ---------------------------------------------------------------------- secrets


async def test_keys_are_in_no_repr_and_no_log(keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    cipher = PersonalDataCipher(keys)
    await protected(cipher, Told(story="x"), ANN)
    key = await keys.get_or_create(ANN)
    assert key.secret is not None
    raw = key.secret.get_secret_value()
    told = repr([key, str(key), cipher, keys, vars(cipher), list(cipher._cache._values.values())]) + caplog.text
    assert repr(raw)[2:-1] not in told
    assert raw.hex() not in told


async def test_what_is_encrypted_can_be_shown_as_that(cipher: PersonalDataCipher) -> None:
    stored = json.loads(await protected(cipher, Registered()))
    assert masked(stored) == {
        "customer_id": ANN, "name": "[encrypted]", "born": "[encrypted]", "tags": "[encrypted]", "plan": "basic",
        "extra": {},
    }  # fmt: skip
    assert masked([stored, 1], "***")[0]["name"] == "***"
    assert masked({"a": {MARK: {"s": 1}}}) == {"a": "[encrypted]"}


# ---------------------------------------------------------------------- without a cipher


async def test_a_store_without_a_cipher_refuses_events_with_marks() -> None:
    registry = EventRegistry()

    class Reader(BaseModel):
        name: Annotated[str | None, Personal()] = None

    class Loan(BaseModel):
        readers: list[Reader] = []
        loans: list[Loan] = []

    @registry.event
    class Lent(BaseModel):
        loan: Loan = Loan()

    @registry.event
    class Returned(BaseModel):
        notes: dict[str, Any] = {}

    store = MemoryEventStore(registry=registry)
    # Not even without a value: the next event has one.
    with pytest.raises(
        ConfigurationError,
        match=r"Lent: Reader\.name is marked .*: give the store a cipher \(PersonalDataCipher\), or take",
    ):
        await store.append("a", [Returned(), Lent()], expected_sequence=0)
    assert await store.last_sequence("a") == 0
    await store.append("a", [Returned(notes={"by": "post"})], expected_sequence=0)

    with_cipher = MemoryEventStore(registry=registry, cipher=PersonalDataCipher(MemorySubjectKeys()))
    await with_cipher.append("a", [Lent()], expected_sequence=0)


async def test_what_a_serializer_says_of_a_value_is_not_told_where_values_are_personal() -> None:
    registry = EventRegistry()

    @registry.event
    class Named(BaseModel):
        name: str

        @field_serializer("name")
        def _write(self, name: str) -> str:
            raise ValueError(f"bad name {name}")

    for cipher, tells in ((None, True), (PersonalDataCipher(MemorySubjectKeys()), False)):
        store = MemoryEventStore(registry=registry, cipher=cipher)
        with pytest.raises(InvalidEventError, match="Named has no JSON form") as raised:
            await store.append("a", [Named(name="Ann")], expected_sequence=0)
        assert ("Ann" in str(raised.value)) is tells
