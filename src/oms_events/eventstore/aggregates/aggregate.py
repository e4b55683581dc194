"""Aggregates as pure functions: what a command leads to, and what an event does to a state. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from oms_events.errors import (
    ConfigurationError,
    EventUnreadableError,
    IdempotencyArgumentError,
    InvalidEventError,
    PersonalDataError,
    RequestError,
)
from oms_events.eventstore.personal.annotations import is_named_tuple
from oms_events.eventstore.personal.parts import is_clear, marked_fields, why_unclear
from oms_events.eventstore.personal.sealed import json_bytes
from oms_events.eventstore.registry import EventRegistry
from oms_events.idempotency.records import fingerprint

S = TypeVar("S", bound=BaseModel)
C = TypeVar("C", bound=BaseModel)
E = TypeVar("E", bound=BaseModel)

_MAX_NAME: Final = 255


# No slots: with them `Aggregate[...](...)` fails in Python 3.11.
@dataclass(frozen=True, kw_only=True)
class Aggregate(Generic[S, C, E]):
    """A kind of aggregate: its state S, the commands C that it takes, and the domain events E that they lead to.

    `decide` and `evolve` are pure: the same arguments give the same result, and what they are given is not changed
    (frozen models see to that). Both may be called several times for one command. Raises `ConfigurationError`.
    """

    name: str
    """Of the kind of aggregate, such as `Account`; it marks snapshots."""
    state: type[S]
    """The model of the state; it survives being written as JSON and read again."""
    initial: Callable[[str], S]
    """Gives the state before the first event, of an aggregate's id."""
    decide: Callable[[S, C], Sequence[E]]
    """Gives the events that a command leads to, none when it changes nothing; `CommandRejectedError` is a no."""
    evolve: Callable[[S, E], S]
    """Gives the state after an event; it refuses none, as what has happened has happened."""
    snapshot_version: int = 1
    """Of the state's shape and of `evolve`: raise it when one changes, and older snapshots are ignored."""

    def __post_init__(self) -> None:
        problems = []
        name: Any = self.name
        state: Any = self.state
        version: Any = self.snapshot_version
        if not (isinstance(name, str) and 0 < len(name) <= _MAX_NAME):
            problems.append(f"name = {name!r}: give it up to {_MAX_NAME} characters")
        if not (isinstance(state, type) and issubclass(state, BaseModel)):
            problems.append(f"state = {state!r} is no pydantic model; derive it from pydantic.BaseModel")
        for function in ("initial", "decide", "evolve"):
            given = getattr(self, function)
            if not callable(given) or iscoroutinefunction(given):
                problems.append(f"{function} = {given!r} is no plain function; give one that does no I/O")
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            problems.append(f"snapshot_version = {version!r}: count versions from 1")
        if problems:
            raise ConfigurationError(f"aggregate {name!r}", problems)

    def decided(self, state: S, command: C) -> list[E]:
        """The events that a command leads to. Raises what `decide` does, and `InvalidEventError` for no list."""
        events: Any = self.decide(state, command)
        if isinstance(events, BaseModel | str | bytes | Mapping) or not isinstance(events, Iterable):
            given = type(events).__name__
            text = f"`decide` of {self.name} gave {given}: give a list of domain events, or an empty list"
            raise InvalidEventError(text, field="data")
        return list(events)

    def fold(self, state: S, events: Iterable[E]) -> S:
        """The state after the events. Raises what `evolved` does."""
        for event in events:
            state = self.evolved(state, event)
        return state

    def evolved(self, state: S, event: E) -> S:
        """The state after an event. Raises what `evolve` does, and `ConfigurationError` when it gives no state."""
        try:
            after = self.evolve(state, event)
        except Exception as error:
            error.add_note(f"`evolve` of {self.name} was given {type(event).__name__}")
            raise
        if not isinstance(after, self.state):
            given = type(after).__name__
            problem = f"`evolve` gave {given} for {type(event).__name__}: give the state, of {self.state.__name__}"
            raise ConfigurationError(f"aggregate {self.name!r}", [problem])
        return after


def as_stored(event: BaseModel, registry: EventRegistry) -> BaseModel:
    """The domain event as it will be read, which may be otherwise than it was given: a date in a `dict` is text.

    Raises `ConfigurationError` for one that is not registered, `InvalidEventError` for one that cannot be read.
    """
    name = registry.name_of(event)
    try:
        return registry.read(name.type, name.version, json_of(event))
    except (EventUnreadableError, PydanticSerializationError) as error:
        text = f"{name.type} could not be read back: {error}; mend the event, or how its model writes and reads it"
        raise InvalidEventError(text, field="data") from error


def json_of(model: BaseModel) -> bytes:
    """A model as JSON, to be read again. Raises `InvalidEventError` and `PydanticSerializationError`."""
    # Values that do not fit their fields are found when it is read.
    return json_bytes(model.model_dump(mode="json", by_alias=True, round_trip=True, warnings=False))


def command_fingerprint(command: BaseModel) -> str:
    """A digest of a command: the name of its type, and the fields that were given and are no defaults.

    So it stays as it is when the model gets a field that may be left out. Personal fields are not in it: it is
    kept for ever, and what they say could be guessed from it. Raises `RequestError` for what JSON lacks, and for
    values in which personal fields would not be found.
    """
    kind = type(command).__name__
    try:
        return fingerprint({"type": kind, "data": _plain(command)})
    except (IdempotencyArgumentError, PersonalDataError, PydanticSerializationError, RecursionError) as error:
        raise RequestError(f"the command {kind} cannot be written as JSON: {error}") from error


def _plain(value: object) -> Any:
    match value:
        case BaseModel():
            return {name: _plain(getattr(value, name)) for name in _telling_fields(value)}
        case Mapping():
            return {str(_one(name)): _plain(item) for name, item in value.items()}
        case list() | tuple() if not is_named_tuple(type(value)):
            return [_plain(item) for item in value]
        case Set():
            # Its order is another in each process.
            return sorted(map(_plain, value), key=lambda item: json.dumps(item, sort_keys=True))
        case _:
            return _one(value)


def _one(value: object) -> Any:
    """As JSON. Raises `PersonalDataError` for a value in which personal data would not be found."""
    plain = to_jsonable_python(value, bytes_mode="base64")
    if is_clear(value, others=not isinstance(plain, dict | list)):
        return plain
    raise PersonalDataError(f"it has what {why_unclear(value)}")


def _telling_fields(model: BaseModel) -> Iterator[str]:
    kind = type(model)
    for name in model.model_fields_set - marked_fields(kind):
        field = kind.model_fields.get(name)
        if field is None or field.is_required() or getattr(model, name) != field.default:
            yield name
