"""The base of the typed models of what comes in, and what is wrong with an input that does not fit one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, StrictStr, ValidationError
from pydantic_core import PydanticCustomError

from oms_events.triggers.problems import Code, Problem

Model = TypeVar("Model", bound=BaseModel)

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NAMED: Final = 20
"""Problems of one model that are named."""
_DATE_REMEDY: Final = "give a date such as 2026-09-09"
_REMEDIES: Final[Mapping[str, str]] = {
    "bool_type": "write true or false, without quotes",
    "date_type": _DATE_REMEDY,
    "dict_type": "write an object: {...}",
    "int_type": "write a whole number, without quotes",
    "missing": "it is missing; give it",
    "model_type": "write an object: {...}",
    "string_too_short": "give it some text",
    "string_type": 'write text, in quotes: "..."',
    "tuple_type": "write a list: [...]",
}


class InputModel(BaseModel):
    """Something that comes in: strict on the types of what it knows, and it lets pass what it does not."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


def _iso_date(value: Any) -> Any:
    if not isinstance(value, str):
        raise PydanticCustomError("date_type", _DATE_REMEDY)
    if _DATE.fullmatch(value) is None:
        raise ValueError(_DATE_REMEDY)
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise ValueError(_DATE_REMEDY) from None


Date = Annotated[date, BeforeValidator(_iso_date)]
"""A date as YYYY-MM-DD, and as nothing else."""

Texts = tuple[StrictStr, ...]


def read_model(
    model: type[Model], document: Any, *, place: str = "", missing: Code = Code.WRONG_TYPE
) -> Model | list[Problem]:
    """The document as the model, or what is wrong with it, each field under `place`.

    A value of a wrong type is `WRONG_TYPE`, an absent one `missing`, anything else `INVALID_DETAIL`. Raises what
    validators of users raise other than `ValueError` and `AssertionError`.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        return problems_of(error, place, missing)


def problems_of(error: ValidationError, place: str, missing: Code) -> list[Problem]:
    """What is wrong with a document, at most 20 of them by name."""
    found = error.errors(include_url=False, include_context=False)
    problems = [_problem(one, place, missing) for one in found[:_NAMED]]
    if len(found) > _NAMED:
        problems.append(Problem(Code.INVALID_DETAIL, f"{len(found) - _NAMED:,} more are wrong too", place or None))
    return problems


def _problem(error: Any, place: str, missing: Code) -> Problem:
    kind: str = error["type"]
    field = joined(place, *map(str, error["loc"]))
    if kind == "missing":
        # What pydantic gives as the value is the object that it is missing in.
        return Problem(missing, _REMEDIES[kind], field)
    remedy = _REMEDIES.get(kind) or error["msg"].removeprefix("Value error, ")
    return Problem(
        Code.WRONG_TYPE if kind.endswith("_type") else Code.INVALID_DETAIL, remedy, field, error["input"]
    )


def joined(*parts: str) -> str:
    """The path of a field."""
    return ".".join(part for part in parts if part)
