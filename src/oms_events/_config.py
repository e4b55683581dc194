"""The base of all public configuration: frozen, closed, and all problems reported at once without secrets."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, SecretStr, ValidationError, model_validator

from oms_events.errors import ConfigurationError

MAX_DEPTH: Final = 100
"""Levels of lists and objects in each other: more than AWS takes anywhere, and few enough for recursion."""

_CLOSE: Final = 0.7
"""How alike names are of which one was probably meant, as `difflib` counts: 1 is the same."""

_FIELD: Final = re.compile(r"(\w+)[\w.]*(?: = |: )")
"""How a configuration object's problem begins when it is about one field."""
_USERINFO: Final = re.compile(r"(?<=//)\S*@")

_MIN_INTEGER: Final = -(2**63)
_MAX_INTEGER: Final = 2**64 - 1


class ConfigModel(BaseModel):
    """A frozen pydantic model whose construction raises `ConfigurationError`, which never shows a secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    _error_class: ClassVar[type[ConfigurationError]] = ConfigurationError

    if not TYPE_CHECKING:

        def __init__(self, /, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                problems = tuple(self._problems(error))
                raise self._error_class(self._subject(values), problems) from None

    @model_validator(mode="wrap")
    @classmethod
    def _by_name(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        return handler(fields_by_name(values) if isinstance(values, Mapping) else values)

    @classmethod
    def _subject(cls, values: dict[str, Any]) -> str:
        return cls.__name__

    @classmethod
    def _problems(cls, error: ValidationError) -> Iterator[str]:
        for problem in error.errors(include_url=False):
            field = ".".join(str(part) for part in problem["loc"])
            text = problem["msg"].removeprefix("Value error, ")
            cause = problem.get("ctx", {}).get("error")
            if isinstance(cause, ConfigurationError):
                # A part that is a configuration of its own: each of its problems, with its place.
                where = f"{field}: {cause.subject}" if field else cause.subject
                yield from (f"{where}: {inner}" for inner in cause.problems)
            elif problem["type"] == "extra_forbidden":
                hint = (
                    suggestion(field, cls.model_fields) or f"known fields: {', '.join(sorted(cls.model_fields))}"
                )
                yield f"unknown field {field!r}; {hint}"
            elif problem["type"] == "missing":
                yield f"field {field!r} is missing; give it a value"
            elif problem["type"] == "union_tag_not_found":
                yield f"{field}: field {problem['ctx']['discriminator']} is missing; give it a value"
            elif not field:
                yield text
            elif _is_plain(problem["input"]) and not cls._is_secret(problem["loc"]):
                yield f"{field} = {problem['input']!r}: {text}"
            else:
                yield f"{field}: {text}"

    @classmethod
    def _is_secret(cls, location: tuple[int | str, ...]) -> bool:
        field = cls.model_fields.get(str(location[0]))
        return field is None or "Secret" in str(field.annotation)


_Model = TypeVar("_Model", bound=ConfigModel)


def suggestion(name: str, known: Iterable[str]) -> str | None:
    """Asks whether the one of the known names was meant that is most like this; None when none is."""
    close = get_close_matches(name, sorted(known), n=1, cutoff=_CLOSE)
    return f"did you mean {close[0]!r}?" if close else None


def fields_by_name(values: Mapping[Any, Any]) -> dict[str, Any]:
    """What was read from a file, as the fields of a model. Raises `ValueError` for a name that is no text."""
    for name in values:
        _check_name(name)
    return dict(values)


def make_config(
    model: type[_Model],
    section: str,
    values: Mapping[str, Any],
    problems: list[str],
    *,
    variables: Mapping[str, str] | None = None,
) -> _Model | None:
    """A configuration object, or None and its problems, told in terms of the variable or section at fault.

    `variables` names the variable that gave a field.
    """
    try:
        return model(**values)
    except ConfigurationError as error:
        sources = variables or {}
        where = f"{section} ({', '.join(sources.values())})" if sources else section
        for problem in error.problems:
            match = _FIELD.match(problem)
            field = match[1] if match else ""
            if field in sources:
                told = f"{sources[field]}: {problem}"
            elif field in model.model_fields:
                told = f"{section}.{problem}"
            else:
                told = f"{where}: {problem}"
            problems.append(_USERINFO.sub("***@", told))
        return None


def set_variables(env: Mapping[str, str], fields: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Which of the variables that may give a field is set, by field; an empty one counts as not set."""
    found = {field: next((name for name in names if env.get(name)), None) for field, names in fields.items()}
    return {field: name for field, name in found.items() if name is not None}


def plain_json(value: object, path: tuple[str, ...] = ()) -> Any:
    """A copy of a JSON value, all the way down. Raises `ValueError`, with the path, for what JSON does not have.

    That are times, bytes, infinite numbers, integers over 64 bits, halves of characters, names that are no text,
    and here also more than 100 levels.
    """
    where = f"{'.'.join(path)}: " if path else ""
    if len(path) > MAX_DEPTH:
        raise ValueError(_too_deep())
    if isinstance(value, Mapping):
        for name in value:
            try:
                _check_name(name)
            except ValueError as error:
                raise ValueError(f"{where}{error}") from None
        return {str(name): plain_json(item, (*path, str(name))) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item, (*path, str(at))) for at, item in enumerate(value)]
    if isinstance(value, str):
        if not _is_whole(value):
            raise ValueError(f"{where}{value!r} has half a character; write whole ones")
        return str(value)
    if (
        value is None
        or (isinstance(value, int) and _MIN_INTEGER <= value <= _MAX_INTEGER)
        or (isinstance(value, float) and math.isfinite(value))
    ):
        return value
    raise ValueError(f"{where}{value!r} is nothing that JSON has; write it as text, in quotes")


def check_depth(value: object, depth: int = 0) -> None:
    """Raises `ValueError` for more than 100 levels of lists and objects, and for what holds itself."""
    if depth > MAX_DEPTH:
        raise ValueError(_too_deep())
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for item in inner:
        check_depth(item, depth + 1)


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise ValueError(f"{name!r} is a name that is no text; put it in quotes (in YAML on, yes and 1 are none)")


def _too_deep() -> str:
    return f"more than {MAX_DEPTH} levels of lists and objects, or one that holds itself; make it flatter"


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float | bool | None.__class__) and not isinstance(value, SecretStr)
