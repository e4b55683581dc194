"""Domain events by type and schema version, and how old versions are read. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from inspect import iscoroutinefunction
from typing import Any, Final, NamedTuple, Protocol, TypeVar, overload
from urllib.parse import quote

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from oms_events.errors import ConfigurationError, EventUnreadableError, PersonalDataError
from oms_events.events import load_json
from oms_events.eventstore.failures import without_values
from oms_events.eventstore.personal.sealed import masked, may_have_sealed

Model = TypeVar("Model", bound=type[BaseModel])
Upcaster = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Gives the data of the next version; it may change what it is given.

What it gives may hold all that pydantic writes as JSON: also `Decimal`, times and models.
"""


class Registering(Protocol):
    """A decorator that gives the model back."""

    def __call__(self, model: Model, /) -> Model: ...


SCHEMA_BASE: Final = "urn:oms-events:schema"
MAX_TYPE_BYTES: Final = 1024
"""Of an event type in UTF-8: with its shard it is a hash key, which takes 2,048 bytes (DynamoDB's quotas)."""
_MAX_VERSION: Final = 10**9 - 1


class EventName(NamedTuple):
    """What a domain event is stored under: its type, and the version of its schema."""

    type: str
    version: int


class EventRegistry:
    """Which pydantic model stands for which event type and version. One registry for all that share the events.

    `schema_base` begins the `dataschema` of the events: `<base>:<type>:<version>`. Raises `ConfigurationError` for
    one that no URI can begin with.
    """

    def __init__(self, *, schema_base: str = SCHEMA_BASE) -> None:
        if not schema_base or any(not "!" <= character <= "~" for character in schema_base):
            problem = f"schema_base = {schema_base!r}: give the beginning of a URI, such as {SCHEMA_BASE!r}"
            raise ConfigurationError("EventRegistry", [problem])
        self._schema_base = schema_base
        # By plain tuples too: to make a name of each event that is read would take longer than to find its model.
        self._models: dict[tuple[str, int], type[BaseModel]] = {}
        self._names: dict[type[BaseModel], EventName] = {}
        self._upcasters: dict[tuple[str, int], Upcaster] = {}
        self._readers: dict[tuple[str, int], Callable[[bytes | str], BaseModel]] = {}
        """Of versions without an upcaster that were read before."""

    def __repr__(self) -> str:
        return f"EventRegistry(schema_base={self._schema_base!r})"

    @overload
    def event(self, model: Model) -> Model: ...
    @overload
    def event(self, *, type: str | None = None, version: int = 1) -> Registering: ...
    def event(
        self,
        model: Any = None,
        *,
        type: str | None = None,  # noqa: A002 - as CloudEvents has it
        version: int = 1,
    ) -> Any:
        """Registers a pydantic model as a domain event: `@registry.event` or `@registry.event(version=2)`.

        `type` is the class's name unless given. A model may stand for several types and versions, to read older
        events: new ones are stored under what it was registered for last. Raises `ConfigurationError` for what is
        no model, and for a type and version that another model has.
        """

        def register(model: Model) -> Model:
            given = str(getattr(model, "__name__", "")) if type is None else type
            self._register(model, EventName(given, version))
            return model

        return register if model is None else register(model)

    def upcaster(self, event_type: str, *, from_version: int) -> Callable[[Upcaster], Upcaster]:
        """Registers a function that makes data of version `from_version + 1` of data of `from_version`.

        Raises `ConfigurationError` for what is no such version, and for one that has an upcaster already.
        """

        def register(function: Upcaster) -> Upcaster:
            name = EventName(event_type, from_version)
            problems = list(_name_problems(name, "from_version"))
            if not callable(function) or iscoroutinefunction(function):
                problems.append(f"{function!r} is no plain function; give one that takes data and gives data")
            other = self._upcasters.get(name)
            if other is not None and _place(other) != _place(function):
                problems.append(f"version {from_version} has an upcaster already: {other!r}")
            if problems:
                raise ConfigurationError(f"event type {event_type!r}", problems)
            self._upcasters[name] = function
            self._readers.clear()
            return function

        return register

    def name_of(self, event: BaseModel) -> EventName:
        """The type and version that a domain event is stored under. Raises `ConfigurationError` for others."""
        name = self._names.get(type(event))
        if name is None:
            raise self._no_event(event)
        if name in self._upcasters:
            # Stored, it would be read as a version that has no model.
            problem = f"version {name.version} has an upcaster: register the model as version {name.version + 1}"
            raise ConfigurationError(type(event).__name__, [problem])
        return name

    def type_of(self, model: type[BaseModel]) -> str | None:
        """The event type that a model was registered for; None when it is no domain event."""
        name = self._names.get(model)
        return None if name is None else name.type

    def model_of(self, event_type: str) -> type[BaseModel] | None:
        """The model of the newest version of a type; None when none is registered."""
        versions = self._versions(event_type)
        return self._models[event_type, versions[-1]] if versions else None

    def types(self) -> tuple[str, ...]:
        """All registered types, sorted."""
        return tuple(sorted({event_type for event_type, _ in self._models}))

    def dataschema(self, name: EventName) -> str:
        """The `dataschema` of an event."""
        return f"{self._schema_base}:{quote(name.type, safe='')}:{name.version}"

    def read(self, event_type: str, version: int, payload: bytes | str) -> BaseModel:
        """The domain event of stored data (JSON), brought to the newest version that upcasters lead to.

        Raises `EventUnreadableError`.
        """
        try:
            return self._read(event_type, version, payload)
        except EventUnreadableError as error:
            if not _has_sealed(payload):
                raise
            text = (
                f"{error}; its personal data is encrypted, and was not revealed: give the store a cipher "
                "(PersonalDataCipher)"
            )
            raise EventUnreadableError(text, event_type=event_type, version=version) from error.__cause__

    def _read(self, event_type: str, version: int, payload: bytes | str) -> BaseModel:
        name = (event_type, version)
        read = self._readers.get(name)
        if read is None:
            if name in self._upcasters:
                name, payload = self._upcast(event_type, version, payload)
            read = self._reader_of(name, stored=version)
        try:
            return read(payload)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "data"
            more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
            model = self._models[name].__name__
            text = f"{event_type} version {version} does not fit {model}: {where}: {first['msg']}{more}"
            raise EventUnreadableError(text, event_type=event_type, version=version) from None
        except MemoryError:
            # Not the event's fault.
            raise
        except Exception as error:
            # A validator's own: pydantic takes only ValueError and AssertionError for the data's fault.
            model = self._models[name].__name__
            text = f"{event_type} version {version}: a validator of {model} failed: {without_values(error)}"
            raise EventUnreadableError(text, event_type=event_type, version=version) from None

    def _reader_of(self, name: tuple[str, int], *, stored: int) -> Callable[[bytes | str], BaseModel]:
        model = self._models.get(name)
        if model is None:
            raise self._unknown(name[0], stored, name[1])
        # What `model_validate_json` calls, which takes half as long again.
        read: Callable[[bytes | str], BaseModel] = model.__pydantic_validator__.validate_json
        if name not in self._upcasters:
            self._readers[name] = read
        return read

    def _upcast(self, event_type: str, start: int, payload: bytes | str) -> tuple[tuple[str, int], bytes]:
        version = start
        try:
            data: Any = load_json(payload) if payload else None
            while (upcaster := self._upcasters.get((event_type, version))) is not None:
                data = upcaster(data)
                version += 1
        except Exception as error:
            text = f"the upcaster of {event_type} version {version} failed: {without_values(error)}"
            raise EventUnreadableError(text, event_type=event_type, version=start) from error
        try:
            return (event_type, version), to_json(data)
        except Exception as error:
            text = f"what the upcaster of {event_type} version {version - 1} gives has no JSON form"
            raise EventUnreadableError(text, event_type=event_type, version=start) from error

    def _versions(self, event_type: str) -> list[int]:
        return sorted(version for known, version in self._models if known == event_type)

    def _unknown(self, event_type: str, stored: int, wanted: int) -> EventUnreadableError:
        known = self._versions(event_type)
        if not known:
            text = f"the event type {event_type!r} is not registered; import its model, or register one"
        elif stored > known[-1]:
            text = (
                f"{event_type} version {stored} is newer than this code, which knows up to {known[-1]}; "
                "deploy the newer code first"
            )
        elif wanted > known[-1]:
            text = (
                f"upcasters make version {wanted} of {event_type} version {stored}, but no model has it: register "
                f"the model as version {wanted}"
            )
        else:
            text = (
                f"{event_type} version {wanted} has neither a model nor an upcaster; register "
                f"upcaster({event_type!r}, from_version={wanted})"
            )
        return EventUnreadableError(text, event_type=event_type, version=stored)

    def _no_event(self, event: object) -> ConfigurationError:
        kind: type = event if isinstance(event, type) else type(event)
        same = [model for model in self._names if model.__name__ == kind.__name__]
        if kind is event:
            hint = f"it is a class; give one of it, {kind.__name__}(...)"
        elif not isinstance(event, BaseModel):
            hint = "give one of a pydantic model that is registered"
        elif same:
            hint = f"it is of {_path(kind)}, but registered is {_path(same[-1])}, another class of that name"
        elif self is not default_registry and default_registry.type_of(kind) is not None:
            hint = "its class is in default_registry: register it here instead, or use that registry"
        else:
            hint = "decorate its class with this registry's `event`, or use the registry that has it"
        return ConfigurationError(kind.__name__, [f"is no domain event of this registry; {hint}"])

    def _register(self, model: Any, name: EventName) -> None:
        problems = list(_name_problems(name, "version"))
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            problems.append(f"{model!r} is no pydantic model; derive it from pydantic.BaseModel")
        other = self._models.get(name)
        if other is not None and _path(other) != _path(model):
            problems.append(f"{name.type} version {name.version} is {_path(other)} already; raise the version")
        if problems:
            raise ConfigurationError(f"event {name.type!r}", problems)
        self._models[name] = model
        self._names[model] = name
        self._readers.clear()


def version_of(dataschema: object) -> int:
    """The schema version that a `dataschema` ends with; 1 when it says none."""
    _, _, tail = str(dataschema or "").rpartition(":")
    return int(tail) if tail.isdecimal() and tail.isascii() and len(tail) <= len(str(_MAX_VERSION)) else 1


def _name_problems(name: EventName, field: str) -> Iterator[str]:
    event_type: Any = name.type
    version: Any = name.version
    if not isinstance(event_type, str) or not event_type or "#" in event_type or not _is_unicode(event_type):
        yield f"type = {event_type!r}: give it some text without '#'"
    elif len(event_type.encode()) > MAX_TYPE_BYTES:
        yield f"type = {event_type[:40]!r}...: at most {MAX_TYPE_BYTES} bytes of UTF-8 fit in a key"
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= _MAX_VERSION:
        yield f"{field} = {version!r}: count versions from 1"


def _has_sealed(payload: bytes | str) -> bool:
    try:
        if not may_have_sealed(payload.encode() if isinstance(payload, str) else payload):
            return False
        document = load_json(payload)
        return masked(document) is not document
    except (ValueError, PersonalDataError):
        return False


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _path(model: Any) -> str:
    """What stays when a module is loaded again, and its classes are other objects."""
    return f"{getattr(model, '__module__', '?')}.{getattr(model, '__qualname__', model)}"


def _place(function: Any) -> tuple[str, object]:
    # Upcasters are often all named alike.
    return _path(function), getattr(getattr(function, "__code__", None), "co_firstlineno", function)


default_registry: Final = EventRegistry()
"""The registry of those who need only one."""

domain_event = default_registry.event
upcaster = default_registry.upcaster
