"""Whatever was handed over, as one JSON object that is safe to work with, or as what is wrong with it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

import orjson

from oms_events._config import MAX_DEPTH
from oms_events.triggers.problems import Code, Problem

_MIN_INTEGER: Final = -(2**63)
_MAX_INTEGER: Final = 2**64 - 1
_SMALL: Final = 2**60
_NAMED: Final = 10
"""Problems of one input that are named."""

_ONE_OBJECT: Final = "give one JSON object"
_TOO_DEEP: Final = Problem(
    Code.TOO_LARGE, f"more than {MAX_DEPTH} levels of lists and objects, or one that holds itself; make it flatter"
)


def read_object(raw: object, *, limit: int) -> dict[str, Any] | list[Problem]:
    """A copy of the JSON object that `raw` is or has as text, or all that is wrong with it.

    Takes text, bytes in UTF-8, and mappings. Raises nothing: what is longer than `limit` bytes, over 100 levels
    deep, no object or no JSON (also NaN, a name given twice, half a character, an integer over 64 bits) is a
    problem.
    """
    try:
        if isinstance(raw, bytes | bytearray | memoryview):
            return _read_bytes(raw, limit)
        if isinstance(raw, str):
            return _read_text(str.__str__(raw), limit)
        if not isinstance(raw, Mapping):
            return [_not_an_object(raw)]
        copied = _copy(raw, limit)
        return copied if isinstance(copied, list) else _measured(copied, limit)
    except RecursionError:
        return [_TOO_DEEP]
    except Exception as error:  # A mapping may do anything when it is looked at
        return [Problem(Code.NOT_AN_OBJECT, f"{_ONE_OBJECT}; this cannot be looked at: {type(error).__name__}")]


def _measured(document: dict[str, Any], limit: int) -> dict[str, Any] | list[Problem]:
    """The document, if its shortest text is no longer than the limit: an object is what its text would be."""
    size = len(orjson.dumps(document))
    return document if size <= limit else [_too_large(f"{size:,}", limit)]


def _read_bytes(raw: bytes | bytearray | memoryview, limit: int) -> dict[str, Any] | list[Problem]:
    size = raw.nbytes if isinstance(raw, memoryview) else len(raw)
    if size > limit:
        return [_too_large(f"{size:,}", limit)]
    try:
        text = bytes(raw).decode()
    except UnicodeDecodeError as error:
        return [Problem(Code.NOT_JSON, f"{_ONE_OBJECT}, in UTF-8; byte {error.start:,} is none of it")]
    return _parse(text, limit)


def _read_text(text: str, limit: int) -> dict[str, Any] | list[Problem]:
    # A character is a byte or more.
    size = len(text) if len(text) > limit else len(text.encode(errors="surrogatepass"))
    return [_too_large(f"{size:,}", limit)] if size > limit else _parse(text, limit)


def _parse(text: str, limit: int) -> dict[str, Any] | list[Problem]:
    try:
        # The standard library: orjson takes the last of two values of one name without a word.
        value = json.loads(
            text.removeprefix("\ufeff"), object_pairs_hook=_object, parse_constant=_refuse, parse_float=_float
        )
    except _NamedTwiceError as error:
        return [Problem(Code.NOT_JSON, "an object has this name twice; keep one of them", error.name)]
    except ValueError as error:
        # Other than these, an integer of thousands of digits.
        told = isinstance(error, json.JSONDecodeError | _NotJsonError)
        why = error if told else "a number is too long; write it as text"
        return [Problem(Code.NOT_JSON, f"{_ONE_OBJECT}; this is none: {why}", value=_whole(text[:1000]))]
    if not isinstance(value, dict):
        return [_not_an_object(value)]
    # Nobody else has it: where nothing is wrong with it no copy is needed.
    return value if _is_fit(value) else _copy(value, limit)


def _is_fit(document: dict[str, Any]) -> bool:
    """Whether parsed JSON has nothing that is refused."""
    try:
        # It takes no long integer, no half a character, and no infinity as `_float` has it.
        orjson.dumps(document)
    except TypeError:
        return False
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for value in level
            for inner in (value.values() if type(value) is dict else value)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return True
    return False


def _float(text: str) -> object:
    number = float(text)
    return number if math.isfinite(number) else _Infinity(number)


class _Infinity(float):
    """What orjson does not take: it takes floats only, and not what derives from them."""


class _NotJsonError(ValueError):
    pass


class _NamedTwiceError(ValueError):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = _whole(name)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    names = Counter(name for name, _ in pairs)
    raise _NamedTwiceError(names.most_common(1)[0][0])


def _refuse(constant: str) -> NoReturn:
    raise _NotJsonError(f"{constant} is no JSON")


def _copy(value: Mapping[Any, Any], limit: int) -> dict[str, Any] | list[Problem]:
    copier = _Copier(limit)
    try:
        copied = copier.copy_object(value, ())
    except _TooLargeError:
        return [_too_large("more", limit)]
    except _TooDeepError:
        return [_TOO_DEEP]
    return copier.problems or copied


class _TooLargeError(Exception):
    pass


class _TooDeepError(Exception):
    pass


class _Copier:
    """Copies a value down to its leaves, and notes what JSON does not have.

    It ends where the JSON would have more than `limit` characters, a leaf counted as one: few objects that hold
    each other several times would become more than there is room for. Leaves are looked at in the loops
    themselves, as there may be millions.
    """

    def __init__(self, limit: int) -> None:
        self._left = limit
        self.problems: list[Problem] = []

    def copy_object(self, value: Mapping[Any, Any], path: tuple[str, ...]) -> dict[str, Any]:
        self._enter(path, is_empty=not value)
        copied: dict[str, Any] = {}
        for name, item in value.items():
            if type(name) is not str or not name.isascii():
                name = self._name(name, path)
            # Quotes, colon and comma; the value has one character at least.
            self._spend(len(name) + 5)
            copied[name] = item if item is None or type(item) is bool else self._copy(item, path, name)
        return copied

    def _copy_list(self, items: Sequence[Any], path: tuple[str, ...]) -> list[Any]:
        self._enter(path, is_empty=not items)
        copied: list[Any] = []
        for at, item in enumerate(items):
            kind = type(item)
            if kind is str and item.isascii():
                self._spend(len(item) + 3)
            else:
                self._spend(2)
                if kind is not bool and item is not None and not (kind is int and -_SMALL < item < _SMALL):
                    item = self._copy(item, path, str(at))
            copied.append(item)
        return copied

    def _copy(self, value: object, path: tuple[str, ...], name: str) -> Any:
        if isinstance(value, str):
            self._spend(len(value) + 1)
            return self._text(str.__str__(value), path, name)
        if isinstance(value, list | tuple):
            return self._copy_list(value, (*path, name))
        if isinstance(value, int):
            whole = int.__int__(value)
            if _MIN_INTEGER <= whole <= _MAX_INTEGER:
                return whole
            self._problem("an integer over 64 bits; write it as text", f"{whole.bit_length()} bits", path, name)
        elif isinstance(value, float):
            number = float.__float__(value)
            if math.isfinite(number):
                return number
            self._problem("JSON has finite numbers only; leave it out", repr(number), path, name)
        elif isinstance(value, Mapping):
            return self.copy_object(value, (*path, name))
        else:
            self._problem("this is nothing that JSON has; write it as text", type(value).__name__, path, name)
        return None

    def _name(self, name: object, path: tuple[str, ...]) -> str:
        if isinstance(name, str):
            return self._text(str.__str__(name), path, _whole(name))
        self._problem("a name that is no text; put it in quotes", type(name).__name__, path, "")
        return ""

    def _text(self, text: str, path: tuple[str, ...], name: str) -> str:
        if text.isascii() or _whole(text) == text:
            return text
        self._problem("half a character; write whole ones", _whole(text), path, name)
        return ""

    def _enter(self, path: tuple[str, ...], *, is_empty: bool) -> None:
        if len(path) >= MAX_DEPTH:
            raise _TooDeepError
        # One of the two brackets is counted as what the value has at least, the other as the last comma.
        self._spend((not path) + is_empty)

    def _spend(self, characters: int) -> None:
        self._left -= characters
        if self._left < 0:
            raise _TooLargeError

    def _problem(self, remedy: str, value: str, path: tuple[str, ...], name: str) -> None:
        if len(self.problems) < _NAMED:
            field = ".".join((*path, name)).rstrip(".")
            self.problems.append(Problem(Code.NOT_JSON, remedy, field or None, value))


def _whole(text: str) -> str:
    """The text, with halves of characters told as what they are."""
    return text.encode(errors="backslashreplace").decode()


def _not_an_object(value: object) -> Problem:
    return Problem(Code.NOT_AN_OBJECT, f"{_ONE_OBJECT}, not {type(value).__name__}")


def _too_large(size: str, limit: int) -> Problem:
    return Problem(Code.TOO_LARGE, f"give at most {limit:,} bytes (max_input_bytes)", value=f"{size} bytes")
