"""Python values as DynamoDB's JSON has them, and back. Pure; importable without aioboto3."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Set
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from oms_events.errors import StorageRejectedError

# What a number attribute holds (DynamoDB developer guide, "Naming rules and data types").
_DIGITS: Final = 38
_LOWEST: Final = -130
_HIGHEST: Final = 125
_PLAIN: Final = 10**_DIGITS
LEVELS: Final = 32
"""Maps and lists inside each other (DynamoDB developer guide, "Quotas": 32 levels)."""
_MAX_NAME: Final = 65_535
"""Bytes of an attribute's name (DynamoDB developer guide, "Quotas": less than 64 KB)."""
_SHOWN: Final = 200
_SETS: Final = {"SS": "S", "NS": "N", "BS": "B"}


def to_item(mapping: Mapping[str, Any], *, path: str = "item") -> dict[str, dict[str, Any]]:
    """A mapping as an item: attribute names to typed values. Raises `StorageRejectedError` naming the path."""
    return _to_item(mapping, path, 0)


def to_value(value: Any, *, path: str = "value") -> dict[str, Any]:
    """A value with its type: text, a number, a bool, None, bytes, a list, a tuple, a mapping, a set of one kind.

    A float is stored as its shortest decimal form. Raises `StorageRejectedError` naming the path.
    """
    return _to_value(value, path, 0)


def checked_item(item: object, *, path: str = "item") -> dict[str, dict[str, Any]]:
    """A copy of an item that is typed already. Raises `StorageRejectedError` naming the path of what is none."""
    return _checked_item(item, path, 0)


def checked_text(value: object, *, path: str) -> str:
    """Text that the wire can carry. Raises `StorageRejectedError` naming the path."""
    if not isinstance(value, str):
        raise StorageRejectedError(f"{path} = {_shown(value)}: give text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise StorageRejectedError(f"{path} has a lone surrogate, which UTF-8 lacks") from error
    return value


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


def _to_item(mapping: Mapping[str, Any], path: str, level: int) -> dict[str, dict[str, Any]]:
    return {_name(name, path): _to_value(value, f"{path}.{name}", level) for name, value in mapping.items()}


def _to_value(value: Any, path: str, level: int) -> dict[str, Any]:
    match value:
        case str():
            return {"S": checked_text(value, path=path)}
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case int() | float() | Decimal():
            return {"N": _number(value, path)}
        case bytes() | bytearray() | memoryview():
            return {"B": bytes(value)}
        case Mapping():
            return {"M": _to_item(value, path, _below(level, path))}
        case list() | tuple():
            level = _below(level, path)
            return {"L": [_to_value(item, f"{path}[{index}]", level) for index, item in enumerate(value)]}
        case Set():
            return _set(value, path)
    raise StorageRejectedError(
        f"{path}: DynamoDB has no type for {type(value).__name__}; give text, a number, bytes, a bool, None, a "
        "list, a mapping or a set"
    )


def _checked_item(item: object, path: str, level: int) -> dict[str, dict[str, Any]]:
    if not isinstance(item, Mapping):
        raise StorageRejectedError(f"{path} = {_shown(item)}: give a mapping of names to typed values")
    return {_name(name, path): _checked_value(value, f"{path}.{name}", level) for name, value in item.items()}


def _checked_value(typed: object, path: str, level: int) -> dict[str, Any]:
    if not isinstance(typed, Mapping) or len(typed) != 1:
        raise StorageRejectedError(
            f"{path} = {_shown(typed)}: give a value with its type, such as {{'S': 'text'}}"
        )
    ((kind, value),) = typed.items()
    match kind, value:
        case (("S" | "N" | "B"), _):
            return {kind: _checked_member(kind, value, path)}
        case ("BOOL", bool()) | ("NULL", True):
            return {kind: value}
        case "M", Mapping():
            return {"M": _checked_item(value, path, _below(level, path))}
        case "L", list() | tuple():
            level = _below(level, path)
            return {"L": [_checked_value(item, f"{path}[{index}]", level) for index, item in enumerate(value)]}
        case (("SS" | "NS" | "BS"), list() | tuple() | Set()) if value:
            return {kind: [_checked_member(_SETS[kind], item, path) for item in value]}
    raise StorageRejectedError(f"{path} = {_shown(typed)}: DynamoDB has no such value of the type {kind!r}")


def _checked_member(kind: str, value: object, path: str) -> str | bytes:
    if kind == "B":
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        raise StorageRejectedError(f"{path} = {_shown(value)}: give bytes")
    text = checked_text(value, path=path)
    if kind == "N":
        try:
            _number(Decimal(text), path)
        except InvalidOperation:
            raise StorageRejectedError(f"{path} = {_shown(text)}: give a number, as text") from None
    return text


def _below(level: int, path: str) -> int:
    if level == LEVELS:
        raise StorageRejectedError(
            f"{path}: more than {LEVELS} maps and lists inside each other, or one that contains itself; DynamoDB "
            "takes no more: make it flatter, or give it as text"
        )
    return level + 1


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        # A number of more digits than Python writes, or one that is inside such a thing.
        return f"({type(value).__name__}, too long to show)"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _name(name: object, path: str) -> str:
    if not isinstance(name, str):
        raise StorageRejectedError(f"{path} has the key {name!r}: DynamoDB takes only text as a name")
    if (
        not name
        or len(name) > _MAX_NAME
        or (not name.isascii() and len(name.encode(errors="replace")) > _MAX_NAME)
    ):
        raise StorageRejectedError(
            f"{path} has the key {_shown(name)}: an attribute's name has 1 to {_MAX_NAME} bytes of UTF-8"
        )
    return name if name.isascii() else checked_text(name, path=f"{path}: the name {name!r}")


def _number(value: float | Decimal, path: str) -> str:
    if isinstance(value, int):
        if -_PLAIN < value < _PLAIN:
            return str(int(value))
        number = Decimal(value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise StorageRejectedError(f"{path} = {_shown(value)}: DynamoDB has no such number; give a finite one")
        number = Decimal(repr(float(value)))
    elif value.is_finite():
        number = value
    else:
        raise StorageRejectedError(f"{path} = {_shown(value)}: DynamoDB has no such number; give a finite one")
    digits = "".join(map(str, number.as_tuple().digits)).strip("0")
    if len(digits) > _DIGITS or (digits and not _LOWEST <= number.adjusted() <= _HIGHEST):
        raise StorageRejectedError(
            f"{path} = {_shown(value)}: DynamoDB keeps {_DIGITS} digits between 1E{_LOWEST} and 1E+{_HIGHEST}; "
            "round it, or give it as text"
        )
    return str(number)


def _set(value: Set[Any], path: str) -> dict[str, Any]:
    typed = [_to_value(item, path, 0) for item in value]
    kinds = {kind for item in typed for kind in item}
    if len(kinds) == 1 and kinds <= {"S", "N", "B"}:
        (kind,) = kinds
        # 0.1 and Decimal("0.1") are two members for Python, and one for DynamoDB.
        members = {Decimal(item[kind]) if kind == "N" else item[kind]: item[kind] for item in typed}
        return {f"{kind}S": sorted(members.values())}
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
