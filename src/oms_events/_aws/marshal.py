"""Python values as DynamoDB's JSON has them, and back. Pure; importable without aioboto3."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Set
from decimal import Decimal
from typing import Any, Final

from oms_events.errors import StorageRejectedError

# What a number attribute holds (DynamoDB developer guide, "Naming rules and data types").
_DIGITS: Final = 38
_LOWEST: Final = -130
_HIGHEST: Final = 125
_PLAIN: Final = 10**_DIGITS


def to_item(mapping: Mapping[str, Any], *, path: str = "item") -> dict[str, dict[str, Any]]:
    """A mapping as an item: attribute names to typed values. Raises `StorageRejectedError` naming the path."""
    return {_name(name, path): to_value(value, path=f"{path}.{name}") for name, value in mapping.items()}


def to_value(value: Any, *, path: str = "value") -> dict[str, Any]:
    """A value with its type: text, a number, a bool, None, bytes, a list, a tuple, a mapping, a set of one kind.

    A float is stored as its shortest decimal form. Raises `StorageRejectedError` naming the path.
    """
    match value:
        case str():
            return {"S": value}
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case int() | float() | Decimal():
            return {"N": _number(value, path)}
        case bytes() | bytearray() | memoryview():
            return {"B": bytes(value)}
        case Mapping():
            return {"M": to_item(value, path=path)}
        case list() | tuple():
            return {"L": [to_value(item, path=f"{path}[{index}]") for index, item in enumerate(value)]}
        case Set():
            return _set(value, path)
    raise StorageRejectedError(
        f"{path}: DynamoDB has no type for {type(value).__name__}; give text, a number, bytes, a bool, None, a "
        "list, a mapping or a set"
    )


def from_item(item: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The values of an item. Raises `ValueError` for what is no item."""
    return {name: from_value(value) for name, value in item.items()}


def from_value(typed: Mapping[str, Any]) -> Any:
    """The value of `{type: value}`: numbers are int where they are whole, else Decimal; sets are frozensets.

    Binary values are taken as bytes or as base64 text. Raises `ValueError` for what is none.
    """
    ((kind, value),) = typed.items()
    match kind:
        case "S" | "BOOL":
            return value
        case "N":
            return _from_number(value)
        case "NULL":
            return None
        case "B":
            return _from_binary(value)
        case "M":
            return from_item(value)
        case "L":
            return [from_value(item) for item in value]
        case "SS":
            return frozenset(value)
        case "NS":
            return frozenset(map(_from_number, value))
        case "BS":
            return frozenset(map(_from_binary, value))
    raise ValueError(f"{kind!r} is no type of a DynamoDB value")


def binary_text(value: object) -> str:
    """How the wire's JSON has bytes; raises `TypeError` for anything else."""
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _name(name: object, path: str) -> str:
    if not isinstance(name, str):
        raise StorageRejectedError(f"{path} has the key {name!r}: DynamoDB takes only text as a name")
    return name


def _number(value: float | Decimal, path: str) -> str:
    if isinstance(value, int):
        if -_PLAIN < value < _PLAIN:
            return str(int(value))
        number = Decimal(value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise StorageRejectedError(f"{path} = {value!r}: DynamoDB has no such number; give a finite one")
        number = Decimal(repr(float(value)))
    elif value.is_finite():
        number = value
    else:
        raise StorageRejectedError(f"{path} = {value!r}: DynamoDB has no such number; give a finite one")
    digits = "".join(map(str, number.as_tuple().digits)).strip("0")
    if len(digits) > _DIGITS or (digits and not _LOWEST <= number.adjusted() <= _HIGHEST):
        raise StorageRejectedError(
            f"{path} = {value!r}: DynamoDB keeps {_DIGITS} digits between 1E{_LOWEST} and 1E+{_HIGHEST}; round "
            "it, or give it as text"
        )
    return str(number)


def _set(value: Set[Any], path: str) -> dict[str, Any]:
    kinds = {next(iter(to_value(item, path=path))) for item in value}
    if len(kinds) == 1 and kinds <= {"S", "N", "B"}:
        (kind,) = kinds
        return {f"{kind}S": sorted(to_value(item, path=path)[kind] for item in value)}
    raise StorageRejectedError(
        f"{path}: a DynamoDB set has at least one member, and only text, only numbers or only bytes; give a list, "
        "or leave the attribute out"
    )


def _from_number(text: str) -> int | Decimal:
    try:
        return int(text)
    except ValueError:
        pass
    number = Decimal(text)
    return int(number) if number == number.to_integral_value() else number


def _from_binary(value: str | bytes) -> bytes:
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except ValueError as error:
            raise ValueError(f"a binary value is no base64: {error}") from error
    return bytes(value)
