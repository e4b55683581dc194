"""The base of all public configuration: frozen, closed, and all problems reported at once without secrets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from oms_events.errors import ConfigurationError


class ConfigModel(BaseModel):
    """A frozen pydantic model whose construction raises `ConfigurationError`, which never shows a secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    _error_class: ClassVar[type[ConfigurationError]] = ConfigurationError

    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                problems = tuple(self._problems(error))
                raise self._error_class(self._subject(values), problems) from None

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
                known = ", ".join(sorted(cls.model_fields))
                yield f"unknown field {field!r}; known fields: {known}"
            elif problem["type"] == "missing":
                yield f"field {field!r} is missing; give it a value"
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


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float | bool | None.__class__) and not isinstance(value, SecretStr)
