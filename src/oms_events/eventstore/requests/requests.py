"""Requests as they come in, JSON objects: read by pydantic models, with all that is wrong told together. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import orjson
from pydantic import AfterValidator, AliasChoices, AliasPath, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from oms_events._config import plain_json, suggestion
from oms_events.errors import RequestError
from oms_events.eventstore.items import COMMAND_PREFIX
from oms_events.eventstore.records import MAX_AGGREGATE_BYTES

Model = TypeVar("Model", bound=BaseModel)

_SHOWN: Final = 100
"""Characters of a value that a message repeats."""

MAX_TEXT: Final = 256
"""Characters of the texts that events carry on: correlation and causation."""


class RequestModel(BaseModel):
    """The base of what requests are read by: camelCase in JSON, no other fields, no conversions."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, strict=True, hide_input_in_errors=True
    )


class Problem(NamedTuple):
    """What is wrong with a request; `field` is the path to where, None for the request as a whole."""

    field: str | None
    text: str


def json_object(request: object, what: str) -> dict[str, Any]:
    """A copy of a request, all the way down. Raises `RequestError` for what is no object, or not JSON."""
    if not isinstance(request, Mapping):
        raise RequestError(f"{what}: give a JSON object, not {type(request).__name__}")
    try:
        copy: dict[str, Any] = plain_json(request)
    except ValueError as error:
        # Only the place of it: the rest may repeat a value.
        field, has_place, _ = str(error).partition(": ")
        if not has_place:
            raise RequestError(f"{what}: {error}") from None
        text = "is nothing that JSON has, or text that has half a character; give JSON"
        raise RequestError(f"{what}: {field}: {text}", field=field) from None
    return copy


def read_request(
    model: type[Model],
    values: Mapping[str, Any],
    *,
    place: str = "",
    known: Iterable[str] = (),
    shows_values: bool = False,
) -> Model | list[Problem]:
    """What a model makes of JSON values; or all the problems, if there are any.

    `place` is where the values are in the request; `known` are more names that may have been meant. With
    `shows_values` the problems repeat what was given: not for what may be secret, or about a person. A field that
    the model does not have is a problem, unless the model allows extra ones.
    """
    names = _accepted(model)
    known = {*names, *known}
    problems: list[Problem] = []
    if model.model_config.get("extra") is None:
        # A misspelled field that has a default would be passed over without a word.
        problems += [_unknown(place, name, known) for name in values if name not in names]
    try:
        found = model.model_validate_json(orjson.dumps(values))
    except ValidationError as error:
        problems += _problems(error, place, known, shows_values=shows_values)
    else:
        if not problems:
            return found
    return problems


def model_problems(model: object) -> list[str]:
    """What keeps requests from being read by a model."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        return []
    return [f"{model!r} is no pydantic model; derive it from pydantic.BaseModel"]


def refusal(what: str, problems: Sequence[Problem], *, code: str | None = None) -> RequestError:
    """The error for all of these problems."""
    field = problems[0].field if len(problems) == 1 else None
    return RequestError(f"{what}: " + "; ".join(problem.text for problem in problems), field=field, code=code)


def shown(value: object) -> str:
    """A value in a message, cut off when it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def key_text(*, most: int) -> AfterValidator:
    """Of text that is, or is a part of, a table's key: some, and at most so many bytes of UTF-8."""

    def check(text: str) -> str:
        if not text:
            raise ValueError("give it some text")
        if (size := len(text.encode())) > most:
            raise ValueError(f"has {size} bytes of UTF-8; at most {most} fit in a key")
        return text

    return AfterValidator(check)


def _aggregate_id(text: str) -> str:
    if text.startswith(COMMAND_PREFIX):
        raise ValueError(f"{COMMAND_PREFIX!r} begins the keys of commands; no aggregate has such an id")
    return text


def _plain(text: str) -> str:
    if _NOT_PLAIN.search(text):
        raise ValueError("has control characters or noncharacters, which events cannot carry; leave them out")
    return text


_NONCHARACTERS: Final = "".join(f"{plane:c}{plane + 1:c}" for plane in range(0xFFFE, 0x11FFFE, 0x10000))
"""The last two code points of each plane."""
_NOT_PLAIN: Final = re.compile(f"[\\x00-\\x1f\\x7f-\\x9f\\ufdd0-\\ufdef{_NONCHARACTERS}]")
PLAIN: Final = AfterValidator(_plain)
"""Of text that becomes an attribute of events (CloudEvents 1.0, "Type System": neither of them is in a String)."""
AggregateId = Annotated[str, AfterValidator(_aggregate_id), key_text(most=MAX_AGGREGATE_BYTES)]
ShortText = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), PLAIN]


def _accepted(model: type[BaseModel]) -> set[str]:
    """The names under which a model takes its fields."""
    config = model.model_config
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    found = set()
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        choices: Sequence[str | AliasPath] = alias.choices if isinstance(alias, AliasChoices) else [alias or name]
        found |= {str(choice.path[0]) if isinstance(choice, AliasPath) else choice for choice in choices}
        if by_name:
            found.add(name)
    return found


def _problems(
    error: ValidationError, place: str, known: Iterable[str], *, shows_values: bool
) -> Iterator[Problem]:
    for detail in error.errors(include_url=False, include_context=False):
        path = [str(part) for part in detail["loc"]]
        field = ".".join([place, *path] if place else path) or None
        if detail["type"] == "extra_forbidden" and len(path) == 1:
            yield _unknown(place, path[0], known)
        elif detail["type"] == "extra_forbidden":
            yield Problem(field, f"unknown field {field!r}; leave it out")
        elif detail["type"] == "missing":
            yield Problem(field, f"field {field!r} is missing; give it a value")
        else:
            text = detail["msg"].removeprefix("Value error, ")
            value = f" = {shown(detail['input'])}" if shows_values and field else ""
            yield Problem(field, f"{field}{value}: {text}" if field else text)


def _unknown(place: str, name: str, known: Iterable[str]) -> Problem:
    field = f"{place}.{name}" if place else name
    hint = suggestion(name, known) or f"known fields: {', '.join(sorted(known)) or 'none'}"
    return Problem(field, f"unknown field {field!r}; {hint}")
