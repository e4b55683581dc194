"""What `generate.py` puts into the reference pages: read off the code, so that it cannot say something else."""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import importlib
import inspect
import json
import os
import re
import textwrap
import tomllib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, is_typeddict

import role_permissions
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, PlainValidator, SecretStr
from pydantic.fields import FieldInfo

from oms_events import EventBridgeConfig, FailureClass, JetStreamOptions, Outcome, PublishResult, encode, errors
from oms_events._config import ConfigModel
from oms_events.devstack import DevstackError
from oms_events.instrumentation import hooks
from oms_events.instrumentation.prometheus import PrometheusHook
from oms_events.oms import EventFamily, EventType, create_schema_change_event
from oms_events.provisioning.specs.base import Arn, Name, ResourceSpec, Spec, arn_of, name_of
from oms_events.provisioning.specs.permissions import NOT_EMPTY, ConditionValues, PolicyResource
from oms_events.provisioning.specs.stack import Outputs
from oms_events.publishers.eventbridge.mapping import EventMapper
from oms_events.publishers.jetstream.binding import binary_message, structured_message

_STARS: Final[Mapping[Any, str]] = {inspect.Parameter.VAR_KEYWORD: "**", inspect.Parameter.VAR_POSITIONAL: "*"}

_MADE_BY_OTHERS: Final = frozenset(("EncodedEvent", "Prepared", "Preset", "Transaction"))
"""Classes that users get and never make: their constructors are nobody's business."""

_OF_SPECS: Final = frozenset(("from_shape", "of", "specs", "stack"))
"""What users call of specs, besides `arn` and `reference` of all; the rest is what synthesis asks of them."""

_LONGEST_DEFAULT: Final = 100
"""Characters of a default that stands in a table."""

MEANINGS: Final = tomllib.loads(Path(__file__).with_name("meanings.toml").read_text(encoding="utf-8"))
"""What fields mean that have no docstring of their own, by model."""

_TYPES: Final = {
    str: "text", int: "integer", float: "number", bool: "true or false", Path: "path", SecretStr: "secret text",
    types.NoneType: "none", Any: "any JSON value",
    datetime: "time",
}  # fmt: skip

_WRITTEN: Final = {
    get_args(alias)[1]: text
    for alias, text in (
        (Arn, "ARN or reference"),
        (Name, "name or reference"),
        (PolicyResource, "ARN or reference"),
        (ConditionValues, "value or list of values"),
        (Outputs, "mapping of text to text, reference, or such a mapping"),
    )
}
"""How people write what a validator reads."""

_WRITTEN_OF: Final = {arn_of.__qualname__: "ARN or reference", name_of.__qualname__: "name or reference"}
"""The same for validators that a function makes anew for each field, by its name."""


# ------------------------------------------------------------------ configuration


def config(path: str) -> str:
    """One configuration model: its docstring and a table of its fields."""
    model = _load(path)
    rows = [
        (f"`{name}`", _field_type(field), _bounds(field), _default(field), _meaning(model, name))
        for name, field in model.model_fields.items()
    ]
    lines = [f"### {model.__name__}", "", f"`{path}`", "", inspect.getdoc(model) or "", "", *_referred(model)]
    return "\n".join([*lines, _table(("field", "type", "limits", "default", "meaning"), rows)])


def _referred(model: type[BaseModel]) -> Iterator[str]:
    if issubclass(model, ResourceSpec):
        yield f"Referred to as `{model.kind}:<key>`, with {', '.join(f'`{name}`' for name in model.returns)}."
        yield ""


def _meaning(model: type[BaseModel], name: str) -> str:
    own = next((text for owner in model.__mro__ if (text := _field_docs(owner).get(name))), None)
    other = next((text for owner in model.__mro__ if (text := MEANINGS.get(owner.__name__, {}).get(name))), None)
    if (own is None) == (other is None):
        who = "neither" if own is None else "both"
        raise ValueError(
            f"{model.__name__}.{name} is explained by {who} of its class and docs/meanings.toml; let one do it"
        )
    return " ".join((own or other or "").split())


def _field_docs(owner: type) -> Mapping[str, str]:
    if not (issubclass(owner, BaseModel) and owner.__module__.startswith("oms_events")):
        return {}
    body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
    if not isinstance(body, ast.ClassDef):
        return {}
    return {
        field.target.id: str(text.value.value)
        for field, text in zip(body.body, body.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def _field_type(field: Any) -> str:
    # What stands around a whole field, pydantic has taken off its type.
    return _written(field.metadata) or _type(field.annotation)


def _written(metadata: Iterable[Any]) -> str | None:
    readers = [item for item in metadata if isinstance(item, PlainValidator)]
    texts = (_WRITTEN.get(item) or _WRITTEN_OF.get(_maker(item.func)) for item in readers)
    return next((text for text in texts if text), None)


def _maker(function: Any) -> str:
    """The name of the function that `function` was made in, or its own."""
    return function.__qualname__.partition(".")[0] if inspect.isfunction(function) else ""


def _type(annotation: Any) -> str:
    if annotation in _TYPES:
        return _TYPES[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(argument) for argument in arguments)
    if origin is Annotated:
        return _written(annotation.__metadata__) or _type(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{argument}`" for argument in arguments)
    if origin is Callable:
        return "function"
    if origin is tuple:
        one = arguments[-1] is Ellipsis
        return f"list of {_type(arguments[0])}" if one else f"[{', '.join(map(_type, arguments))}]"
    if origin is frozenset:
        return f"set of {_type(arguments[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return f"mapping of {_type(arguments[0])} to {_type(arguments[1])}"
    if issubclass(annotation, enum.StrEnum):
        return " or ".join(f"`{member.value}`" for member in annotation)
    return _link(annotation)


def _link(model: type[BaseModel]) -> str:
    """To the model's table, from any page of the reference."""
    page = _pages_of_models().get(model)
    if page is None:
        raise ValueError(f"no page of the reference has the table of {model.__name__}")
    return f"[{model.__name__}]({page}#{model.__name__.lower()})"


@functools.cache
def _pages_of_models() -> Mapping[type, str]:
    pages = (Path(__file__).parent / "reference").glob("*.md")
    marks = ((page, re.findall(r"<!-- generated: config (\S+) -->", page.read_text("utf-8"))) for page in pages)
    return {_load(path): page.name for page, paths in marks for path in paths}


def _bounds(field: Any) -> str:
    found = []
    for item in [*field.metadata, *_annotated(field.annotation)]:
        if item is NOT_EMPTY:
            found.append("length ≥ 1")
        for name, sign in (("gt", "> "), ("ge", "≥ "), ("lt", "< "), ("le", "≤ ")):
            if (bound := getattr(item, name, None)) is not None:
                found.append(f"{sign}{bound}")
        if (least := getattr(item, "min_length", None)) is not None:
            found.append(f"length ≥ {least}")
        if (most := getattr(item, "max_length", None)) is not None:
            found.append(f"length ≤ {most}")
    return ", ".join(dict.fromkeys(found))


def _annotated(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        for item in annotation.__metadata__:
            yield from item.metadata if isinstance(item, FieldInfo) else (item,)
    elif get_origin(annotation) in (Union, types.UnionType):
        for argument in get_args(annotation):
            yield from _annotated(argument)


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, ConfigModel):
        return "its defaults"
    if value is None or value in ((), {}, ""):
        return "none"
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return f'`"{value}"`'
    text = json.dumps(value, default=_plain)
    return f"`{text}`" if len(text) <= _LONGEST_DEFAULT else "see below"


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset) else value.model_dump(exclude_defaults=True)


def docstring_table(module: str) -> str:
    """The table in a module's, class's or function's docstring."""
    text = inspect.getdoc(_load(module)) or ""
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


# ------------------------------------------------------------------ errors, metrics, hooks


def error_tree(_: str) -> str:
    """Every error, in the order of the source."""
    found = [one for one in vars(errors).values() if inspect.isclass(one) and issubclass(one, Exception)]
    rows = []
    for error in [*found, DevstackError]:
        parents = ", ".join(f"`{base.__name__}`" for base in error.__bases__)
        failure = f"`{error.failure}`" if issubclass(error, errors.PublishError) else ""
        data = ", ".join(f"`{name}`" for name in _attributes(error))
        doc = " ".join((inspect.getdoc(error) or "").split())
        rows.append((f"`{error.__name__}`", parents, failure, data, doc))
    return _table(("error", "is a", "failure class", "attributes", "meaning"), rows)


def _attributes(error: type) -> Iterator[str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(error)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def metrics(_: str) -> str:
    """Every metric of the Prometheus hook, with the labels that real details give it."""
    registry = CollectorRegistry()
    hook = PrometheusHook(registry)
    result = PublishResult("nats", Outcome.DELIVERED, latency=0.01, attempts=1)
    for detail in (
        hooks.Decided({("orders", "all"): 1}),
        hooks.CallEnded("nats", 1, 256, 0, {FailureClass.TRANSIENT: 1}, True, 0.01),
        hooks.Retried("nats", 1, 1, 0.05),
        hooks.Settled("nats", [result]),
        hooks.FailedOver("orders", "nats", "eventbridge", 1),
        hooks.BreakerChanged("nats", "closed", "open", "refused"),
        hooks.CheckEnded("nats", None, 0.01),
        hooks.Relayed(1, [0.01]),
        hooks.RelayRetried("nats", 1, {FailureClass.TRANSIENT: 1}),
        hooks.DeadLettered("nats", "shop.order.placed", "1", "too_large", "too large"),
        hooks.LeaseChanged(1, 0, "taken", 1),
        hooks.DuplicateAcks("nats", 1),
        hooks.BacklogMeasured(1, False, 1.0, 1, {"nats": 1}, 32, True),
        hooks.OutboxAlert("kind", "text"),
        hooks.Appended(1, 0.01),
        hooks.AppendConflict(1),
        hooks.SnapshotFailed("account-1", "throttled"),
        hooks.Projected("Orders@1", 1, [0.01]),
        hooks.EventParked("Orders@1", "account-1@1", "AccountCreated", "no amount"),
        hooks.Replayed("orders", 1, 0),
        hooks.Triggered("manual", "unknown", "rejected", ["INVALID_DOMAIN"], 0.01, "run-1"),
        hooks.QuotaUsedUp("manual", 60.0),
        hooks.TriggerBreakerChanged("market", "prices", "closed", "open", "5 failures"),
        hooks.ApiRequested("upstream", 5, 0.0),
        hooks.ChunksSent(1, 0),
    ):
        hook(detail)
    rows = []
    for metric in registry.collect():
        samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
        if not samples:
            raise ValueError(f"no detail feeds the metric {metric.name}")
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        labels = sorted({label for sample in samples for label in sample.labels} - {"le"})
        rows.append((f"`{name}`", metric.type, ", ".join(f"`{label}`" for label in labels), metric.documentation))
    return _table(("metric", "type", "labels", "counts"), rows)


def details(_: str) -> str:
    """Every detail that a hook is called with."""
    rows = []
    for detail in get_args(hooks.Detail):
        fields = ", ".join(f"`{field.name}`" for field in dataclasses.fields(detail))
        rows.append((f"`{detail.__name__}`", fields, " ".join((inspect.getdoc(detail) or "").split())))
    return _table(("detail", "fields", "when"), rows)


def permissions(preset: str) -> str:
    """What the roles of a preset may do, with every option that gives them something."""
    return _table(("role", "actions", "resources", "condition", "why"), role_permissions.rows(preset))


# ------------------------------------------------------------------ wire, catalogue


def _sample() -> Any:
    return encode(
        create_schema_change_event(
            operation="create", resource_type="object_type", resource_id="User", branch="main",
            commit_id="abc123", author="dev@example.com", new_value={"name": "Ü"}, id="7d1f",
            time=datetime(2026, 1, 1, 12, 0, tzinfo=UTC),
        )
    )  # fmt: skip


def wire(form: str) -> str:
    """The sample event as a platform gets it."""
    event = _sample()
    if form.startswith("nats"):
        message = binary_message if form == "nats-binary" else structured_message
        block, payload = message(event)
        subject = JetStreamOptions().subject_template()(event)
        lines = [f"subject: {subject}", "", *block.decode().strip().split("\r\n")[1:], "", payload.decode()]
        return _fence("text", "\n".join(lines))
    mapping: Any = form.removeprefix("eventbridge-")
    entry = EventMapper(EventBridgeConfig(event_bus_name="oms-events", mapping=mapping)).entry(event, 0).document
    shown = {**entry, "Detail": json.loads(entry["Detail"])}
    return _fence("json", json.dumps(shown, indent=2, ensure_ascii=False))


def catalogue(_: str) -> str:
    """Every OMS event type, by family."""
    rows = []
    for family in EventFamily:
        members = [member for member in EventType if member.family is family]
        rows.append((family.value, "<br>".join(f"`{member.value}`" for member in members)))
    return _table(("family", "event types"), rows)


# ------------------------------------------------------------------ public names


def api(module: str) -> str:
    """The public names of a module with what their docstrings say."""
    return names(f"{module}:{','.join(sorted(_load(module).__all__))}")


def names(path: str) -> str:
    """Single public names: `module:name,name`."""
    module, _, wanted = path.partition(":")
    return "\n\n".join(_describe(name, getattr(_load(module), name)) for name in wanted.split(","))


def _describe(name: str, thing: Any) -> str:
    if get_origin(thing) is not None or not callable(thing):
        return f"**`{name}`**: {MEANINGS['aliases'][name]}"
    doc = (inspect.getdoc(thing) or "").strip()
    if not inspect.isclass(thing):
        return f"**`{name}{_signature(thing)}`**\n\n{doc}"
    if issubclass(thing, ConfigModel) and thing.model_fields:
        link = f"**`{name}`**: see {_link(thing)}."
        return "\n".join([link, "", *(f"- {member}" for member in _members(thing))]).rstrip()
    if issubclass(thing, Exception):
        return f"**`{name}`**: see [errors](errors.md)."
    if issubclass(thing, enum.Enum):
        if name == "EventType":
            return "**`EventType`**: see [the OMS events](oms.md#event-types)."
        return f"**`{name}`**: {' '.join(doc.split())} " + ", ".join(f"`{member.value}`" for member in thing) + "."
    fields = []
    if is_typeddict(thing):
        fields = list(thing.__annotations__)
    elif issubclass(thing, BaseModel):
        fields = list(thing.model_fields)
    elif dataclasses.is_dataclass(thing):
        fields = [field.name for field in dataclasses.fields(thing)]
    bare = _is_protocol(thing) or name in _MADE_BY_OTHERS
    shape = f"({', '.join(fields)})" if fields else "" if bare else _signature(thing)
    lines = [f"**`{name}{shape}`**", "", doc]
    members = [f"- {line}" for line in _members(thing)]
    return "\n".join([*lines, *(["", *members] if members else [])])


def _members(thing: type) -> Iterator[str]:
    owners = [owner for owner in thing.__mro__ if owner.__module__.startswith("oms_events.")]
    owners = [owner for owner in owners if owner is not ConfigModel]
    found = {name: member for owner in reversed(owners) for name, member in vars(owner).items()}
    for name, member in found.items():
        if (
            name.startswith("_")
            or name == "model_post_init"
            or (issubclass(thing, Spec) and name not in _OF_SPECS)
        ):
            continue
        if isinstance(member, property):
            doc = inspect.getdoc(member) or ""
            yield f"`{name}`: {' '.join(doc.split())}" if doc else f"`{name}`"
            continue
        function = member.__func__ if isinstance(member, staticmethod | classmethod) else member
        if inspect.isfunction(function):
            start = "async " if inspect.iscoroutinefunction(function) else ""
            doc = " ".join((inspect.getdoc(function) or "").split())
            text = f"`{start}{name}{_signature(function)}`"
            yield f"{text}: {doc}" if doc else text


def _is_protocol(thing: type) -> bool:
    return bool(getattr(thing, "_is_protocol", False))


def _signature(function: Any) -> str:
    parts, keyword_only = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            parts.append("*")
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            keyword_only = True
        default = "" if parameter.default is inspect.Parameter.empty else f"={_value(parameter.default)}"
        parts.append(f"{_STARS.get(parameter.kind, '')}{parameter.name}{default}")
    return f"({', '.join(parts)})"


def _value(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if value is os.environ:
        return "os.environ"
    if type(value) is object:
        return "..."  # a mark for "not given"
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and value == type(value)():
        return f"{type(value).__name__}()"
    return value.__name__ if callable(value) else repr(value)


# ------------------------------------------------------------------ helpers


def _load(path: str) -> Any:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _fence(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


TABLES: Final[Mapping[str, Callable[[str], str]]] = {
    "api": api,
    "catalogue": catalogue,
    "config": config,
    "details": details,
    "docstring-table": docstring_table,
    "errors": error_tree,
    "metrics": metrics,
    "names": names,
    "permissions": permissions,
    "wire": wire,
}
