"""Domain events by type and schema version, and how old versions are read. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol, TypeVar, overload
from urllib.parse import quote

import orjson
from pydantic import BaseModel, ValidationError

from oms_events.errors import ConfigurationError, EventUnreadableError
from oms_events.events import load_json

Model = TypeVar("Model", bound=type[BaseModel])
Upcaster = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Gives the data of the next version; it may change what it is given."""


class Registering(Protocol):
    """A decorator that gives the model back."""

    def __call__(self, model: Model, /) -> Model: ...


SCHEMA_BASE: Final = "urn:oms-events:schema"


class EventName(NamedTuple):
    """What a domain event is stored under: its type, and the version of its schema."""

    type: str
    version: int


class EventRegistry:
    """Which pydantic model stands for which event type and version. One registry for all that share the events.

    `schema_base` begins the `dataschema` of the events: `<base>:<type>:<version>`.
    """

    def __init__(self, *, schema_base: str = SCHEMA_BASE) -> None:
        self._schema_base = schema_base
        self._models: dict[EventName, type[BaseModel]] = {}
        self._names: dict[type[BaseModel], EventName] = {}
        self._upcasters: dict[EventName, Upcaster] = {}

    @overload
    def event(self, model: Model) -> Model: ...
    @overload
    def event(self, *, type: str | None = None, version: int = 1) -> Registering: ...
    def event(
        self,
        model: Any = None,
        *,
        type: str | None = None,
        version: int = 1,  # noqa: A002 - as CloudEvents has it
    ) -> Any:
        """Registers a pydantic model as a domain event: `@registry.event` or `@registry.event(version=2)`.

        `type` is the class's name unless given. Raises `ConfigurationError` for what is no model, and for a type
        and version that another model has.
        """

        def register(model: Model) -> Model:
            self._register(model, EventName(type or str(getattr(model, "__name__", "")), version))
            return model

        return register if model is None else register(model)

    def upcaster(self, event_type: str, *, from_version: int) -> Callable[[Upcaster], Upcaster]:
        """Registers a function that makes data of version `from_version + 1` of data of `from_version`."""

        def register(function: Upcaster) -> Upcaster:
            name = EventName(event_type, from_version)
            if name in self._upcasters:
                problem = f"version {from_version} has an upcaster already: {self._upcasters[name]!r}"
                raise ConfigurationError(f"event type {event_type!r}", [problem])
            self._upcasters[name] = function
            return function

        return register

    def name_of(self, event: BaseModel) -> EventName:
        """The type and version that a domain event is stored under. Raises `ConfigurationError` for others."""
        name = self._names.get(type(event))
        if name is None:
            problem = "is no registered domain event; decorate its class with @domain_event"
            raise ConfigurationError(type(event).__name__, [problem])
        return name

    def model_of(self, event_type: str) -> type[BaseModel] | None:
        """The model of the newest version of a type; None when none is registered."""
        versions = [name for name in self._models if name.type == event_type]
        return self._models[max(versions)] if versions else None

    def types(self) -> tuple[str, ...]:
        """All registered types, sorted."""
        return tuple(sorted({name.type for name in self._models}))

    def dataschema(self, name: EventName) -> str:
        """The `dataschema` of an event."""
        return f"{self._schema_base}:{quote(name.type, safe='')}:{name.version}"

    def read(self, event_type: str, version: int, payload: bytes) -> BaseModel:
        """The domain event of stored data (JSON), brought to the newest version that upcasters lead to.

        Raises `EventUnreadableError`.
        """
        name = EventName(event_type, version)
        if name in self._upcasters:
            name, payload = self._upcast(name, payload)
        model = self._models.get(name)
        if model is None:
            raise self._unknown(EventName(event_type, version), name)
        try:
            return model.model_validate_json(payload)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "data"
            more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
            text = f"{event_type} version {version} does not fit {model.__name__}: {where}: {first['msg']}{more}"
            raise EventUnreadableError(text, event_type=event_type, version=version) from None

    def _upcast(self, name: EventName, payload: bytes) -> tuple[EventName, bytes]:
        start = name
        try:
            data: Any = load_json(payload) if payload else None
            while (upcaster := self._upcasters.get(name)) is not None:
                data = upcaster(data)
                name = EventName(name.type, name.version + 1)
            return name, orjson.dumps(data)
        except Exception as error:
            text = f"the upcaster of {name.type} version {name.version} failed: {error!r}"
            raise EventUnreadableError(text, event_type=start.type, version=start.version) from error

    def _unknown(self, stored: EventName, wanted: EventName) -> EventUnreadableError:
        known = sorted(name.version for name in self._models if name.type == stored.type)
        if not known:
            text = f"the event type {stored.type!r} is not registered; import its model, or register one"
        elif wanted.version > known[-1]:
            text = (
                f"{stored.type} version {stored.version} is newer than this code, which knows up to {known[-1]}; "
                "deploy the newer code first"
            )
        else:
            text = (
                f"{stored.type} version {wanted.version} has neither a model nor an upcaster; register "
                f"upcaster({stored.type!r}, from_version={wanted.version})"
            )
        return EventUnreadableError(text, event_type=stored.type, version=stored.version)

    def _register(self, model: Any, name: EventName) -> None:
        problems = []
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            problems.append(f"{model!r} is no pydantic model; derive it from pydantic.BaseModel")
        if not name.type or "#" in name.type:
            problems.append(f"type = {name.type!r}: give it some text without '#'")
        if isinstance(name.version, bool) or not isinstance(name.version, int) or name.version < 1:
            problems.append(f"version = {name.version!r}: count versions from 1")
        other = self._models.get(name)
        if other is not None and _path(other) != _path(model):
            problems.append(f"{name.type} version {name.version} is {_path(other)} already; raise the version")
        if problems:
            raise ConfigurationError(f"event {name.type!r}", problems)
        self._models[name] = model
        self._names[model] = name


def version_of(dataschema: object) -> int:
    """The schema version that a `dataschema` ends with; 1 when it says none."""
    _, _, tail = str(dataschema or "").rpartition(":")
    return int(tail) if tail.isdecimal() and tail.isascii() else 1


def _path(model: Any) -> str:
    return f"{getattr(model, '__module__', '?')}.{getattr(model, '__qualname__', model)}"


default_registry: Final = EventRegistry()
"""The registry of those who need only one."""

domain_event = default_registry.event
upcaster = default_registry.upcaster
