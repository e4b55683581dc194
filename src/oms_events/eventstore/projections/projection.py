"""Projections: which events change which rows of a read model, and how. Pure."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar, get_args

from pydantic import AliasChoices, BaseModel, RootModel

from oms_events.errors import ConfigurationError
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.registry import EventRegistry, default_registry
from oms_events.eventstore.schema import ACCOUNT_ID, PROJECTION_TYPE

R = TypeVar("R", bound=BaseModel)
Handling = Callable[[Any, Any, RecordedEvent], BaseModel | None]
"""Gives the row after an event, of the row before it (None: there is none), the domain event and its record."""
HandlerT = TypeVar("HandlerT", bound=Callable[..., BaseModel | None])
Key = Callable[[RecordedEvent], str]

REVISION: Final = "ProjectionRevision"
"""The position of the event that the row was made of last: another at each change, also of a row made anew."""
UPDATED: Final = "ProjectionUpdated"
RESERVED: Final = frozenset((ACCOUNT_ID, PROJECTION_TYPE, REVISION, UPDATED))
"""The attributes of a row that are not its model's."""

MAX_KEY_BYTES: Final = 2048
"""Of a row's key in UTF-8 (DynamoDB developer guide, "Quotas": a partition key)."""

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_MAX_VERSION: Final = 999_999


class RowHandler(NamedTuple):
    """What to do with events of one type, and the key of the row that it is done to; None: the aggregate's id."""

    handle: Handling
    key: Key | None

    def key_of(self, event: RecordedEvent) -> str:
        """The key of the event's row. Raises `ValueError` for what is none, and what the `key` function raises."""
        key = event.aggregate_id if self.key is None else self.key(event)
        if not isinstance(key, str) or not key:
            raise ValueError(f"the row's key is {key!r}; give it some text")
        if len(key.encode()) > MAX_KEY_BYTES:
            raise ValueError(f"the row's key has {len(key.encode())} bytes of UTF-8; at most {MAX_KEY_BYTES} fit")
        return key


class Projection(Generic[R]):
    """A read model's rows, and the pure functions that make them of events; see `on`.

    `row` is the pydantic model of a row. Raise `version` when the row's shape or a function changes: the new one
    is built beside the old. Raises `ConfigurationError` for a name that is no key, and for a model whose rows
    cannot be stored and read back.
    """

    def __init__(
        self, name: str, row: type[R], *, version: int = 1, registry: EventRegistry = default_registry
    ) -> None:
        problems = []
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            problems.append(f"name = {name!r}: 1 to 200 letters, digits, '_', '.' and '-' are needed")
        if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= _MAX_VERSION:
            problems.append(f"version = {version!r}: count versions from 1")
        problems += _row_problems(row)
        if problems:
            raise ConfigurationError(f"projection {name!r}", problems)
        self.name = name
        self.row = row
        self.version = version
        self.registry = registry
        self._handlers: dict[str, tuple[RowHandler, ...]] = {}
        self.computed = frozenset((field.alias or own) for own, field in row.model_computed_fields.items())
        """The names of what the model computes: stored for those who look, and not read back."""

    @property
    def full_name(self) -> str:
        """The name with the version, as rows and checkpoints are stored under."""
        return f"{self.name}@{self.version}"

    @property
    def event_types(self) -> frozenset[str]:
        """The types of the events that it handles."""
        return frozenset(self._handlers)

    @property
    def shares_rows(self) -> bool:
        """Whether events of several aggregates may change one row."""
        return any(handler.key is not None for handlers in self._handlers.values() for handler in handlers)

    def on(self, *events: type[BaseModel], key: Key | None = None) -> Callable[[HandlerT], HandlerT]:
        """Registers a pure function (row, domain event, recorded event) -> row for events of these models.

        The row is None when there is none yet; giving None deletes it. `key` gives the key of the event's row,
        the aggregate's id unless given; several functions may handle one type under different keys. Raises
        `ConfigurationError` for what is no registered event, no plain function of three arguments (`key`: of
        one), or registered already.
        """

        def register(function: HandlerT) -> HandlerT:
            problems, types = [], []
            if inspect.iscoroutinefunction(function) or not callable(function):
                problems.append(f"{function!r} is no plain function; give a pure one, without `async`")
            elif not _takes(function, 3):
                name = getattr(function, "__qualname__", repr(function))
                problems.append(f"{name} does not take three arguments: (row, domain event, recorded event)")
            if key is not None and (inspect.iscoroutinefunction(key) or not callable(key) or not _takes(key, 1)):
                problems.append(f"key = {key!r}: give a plain function of the recorded event")
            if not events:
                problems.append("no event is given; name the models of the events: @projection.on(AccountCreated)")
            for model in events:
                event_type = self.registry.type_of(model) if isinstance(model, type) else None
                if event_type is None:
                    problems.append(
                        f"{model!r} is no domain event of the projection's registry; register it there"
                    )
                elif any(known.key is key for known in self._handlers.get(event_type, ())):
                    problems.append(f"{event_type} has a function with this key already; give another key")
                elif event_type not in types:
                    # Models of several versions are one type.
                    types.append(event_type)
            if problems:
                raise ConfigurationError(f"projection {self.full_name!r}", problems)
            for event_type in types:
                known = self._handlers.get(event_type, ())
                self._handlers[event_type] = (*known, RowHandler(function, key))
            return function

        return register

    def handlers(self, event_type: str) -> Sequence[RowHandler]:
        """What is done with events of a type; nothing for one that it does not subscribe to."""
        return self._handlers.get(event_type, ())

    def __repr__(self) -> str:
        return f"<Projection {self.full_name} of {', '.join(sorted(self._handlers)) or 'no events'}>"


def check_projections(projections: Sequence[Projection[Any]], registry: EventRegistry) -> None:
    """Raises `ConfigurationError` for none, two of one name and version, and one that can never have events."""
    problems = []
    if not projections:
        problems.append("give at least one projection")
    names = [projection.full_name for projection in projections]
    problems += [
        f"{name} is there twice; give each its own name" for name in sorted(set(names)) if names.count(name) > 1
    ]
    problems += [
        f"{projection.full_name} handles no events; decorate a function with @projection.on(...)"
        for projection in projections
        if not projection.event_types
    ]
    problems += [
        f"{projection.full_name} has another registry than the event store; give both the same"
        for projection in projections
        if projection.registry is not registry
    ]
    if problems:
        raise ConfigurationError("projector", problems)


def projection_of(projections: Sequence[Projection[Any]], wanted: Projection[Any] | str) -> Projection[Any]:
    """The one that is meant, by name or full name. Raises `ConfigurationError` for none and for several."""
    found = [one for one in projections if wanted in (one, one.full_name, one.name)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(one.full_name for one in projections)
    problem = (
        "is none of this projector's" if not found else "is several of this projector's: give one's full name"
    )
    raise ConfigurationError(f"projection {wanted!r}", [f"it {problem}; they are {known}"])


def _takes(function: Callable[..., Any], arguments: int) -> bool:
    """Whether it may be called with so many; True where it does not say."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*[None] * arguments)
    except TypeError:
        return False
    return True


def _row_problems(row: Any) -> Iterator[str]:
    if not (isinstance(row, type) and issubclass(row, BaseModel)) or issubclass(row, RootModel):
        yield f"row = {row!r}: give a pydantic model with named fields"
        return
    for name, field in row.model_fields.items():
        stored = field.serialization_alias or field.alias or name
        if stored in RESERVED:
            yield f"row field {name!r} is stored as {stored!r}, which the read model has itself; rename it"
        if _holds_secret(field.annotation, set()):
            yield f"row field {name!r} is a secret, of which only '**********' would be stored; use plain text"
        if field.exclude:
            yield f"row field {name!r} is excluded from what is stored: it would be lost; store it or remove it"
        by_name = bool(row.model_config.get("populate_by_name")) or bool(row.model_config.get("validate_by_name"))
        if stored not in _read_as(name, field.validation_alias, by_name=by_name):
            yield f"row field {name!r} is stored as {stored!r}, but read under another name; give it one alias"
    for name, computed in row.model_computed_fields.items():
        stored = computed.alias or name
        if stored in RESERVED:
            yield f"row field {name!r} is stored as {stored!r}, which the read model has itself; rename it"


def _holds_secret(annotation: Any, seen: set[Any]) -> bool:
    """Whether a value of this type may be, or hold, one of pydantic's secrets."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation in seen:
            return False
        seen.add(annotation)
        return any(_holds_secret(field.annotation, seen) for field in annotation.model_fields.values())
    return hasattr(annotation, "get_secret_value") or any(
        _holds_secret(argument, seen) for argument in get_args(annotation)
    )


def _read_as(name: str, alias: Any, *, by_name: bool) -> set[str]:
    names = {name} if alias is None or by_name else set()
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return names | {choice for choice in choices if isinstance(choice, str)}
