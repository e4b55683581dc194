from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest

from oms_events._config import MAX_DEPTH
from oms_events.triggers.config import TriggerConfig
from oms_events.triggers.problems import Problem
from oms_events.triggers.reading.json_text import read_object
from oms_events.triggers.reading.recognition import read_starts

LIMIT = 100_000


def nested(levels: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(levels - 1):
        value = [value]
    return {"a": value}


def holds_itself() -> dict[str, Any]:
    inner: dict[str, Any] = {"symbols": ["AAPL"]}
    inner["inner"] = [inner]
    return inner


def holds_much() -> dict[str, Any]:
    value: list[Any] = ["AAPL"]
    for _ in range(80):
        value = [value, value]
    return {"symbols": value}


class Endless(Mapping[str, int]):
    def __getitem__(self, name: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        at = 0
        while True:
            at += 1
            yield str(at)

    def __len__(self) -> int:
        return 1


class Broken(dict[str, Any]):
    def items(self) -> Any:
        raise KeyError("nothing")


class NoClass:
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise RuntimeError("no")


class Event:
    def get_attributes(self) -> Any:
        raise RuntimeError("no event")


REFUSED: dict[str, tuple[object, str, str | None]] = {
    "nothing": ("", "NOT_JSON", None),
    "words": ("start AAPL", "NOT_JSON", None),
    "half an object": ('{"symbols": [', "NOT_JSON", None),
    "two objects": ("{} {}", "NOT_JSON", None),
    "not UTF-8": (b'{"period": "\xff"}', "NOT_JSON", None),
    "UTF-16": ('{"period": "1d"}'.encode("utf-16"), "NOT_JSON", None),
    "no number": ('{"period": NaN}', "NOT_JSON", None),
    "infinity": ('{"period": -Infinity}', "NOT_JSON", None),
    "a number without end": ('{"a": [0, 1e999]}', "NOT_JSON", "a.1"),
    "a long integer": (f'{{"a": {2**64}}}', "NOT_JSON", "a"),
    "a very long integer": ('{"a": ' + "9" * 5000 + "}", "NOT_JSON", None),
    "half a character": ('{"a": "\\ud800"}', "NOT_JSON", "a"),
    "half a character in a name": ('{"\\ud800": 1}', "NOT_JSON", "\\ud800"),
    "half a character as it is": ('{"a": "\ud800"}', "NOT_JSON", "a"),
    "a name twice": ('{"dry_run": true, "dry_run": false}', "NOT_JSON", "dry_run"),
    "a list": ("[]", "NOT_AN_OBJECT", None),
    "text": ('"{}"', "NOT_AN_OBJECT", None),
    "null": (b"null", "NOT_AN_OBJECT", None),
    "None": (None, "NOT_AN_OBJECT", None),
    "a number": (1, "NOT_AN_OBJECT", None),
    "an object of Python": (object(), "NOT_AN_OBJECT", None),
    "a set": ({"symbols"}, "NOT_AN_OBJECT", None),
    "a class": (dict, "NOT_AN_OBJECT", None),
    "what only looks like an event": (Event(), "WRONG_TYPE", "event"),
    "what has no class": (NoClass(), "NOT_AN_OBJECT", None),
    "what cannot be looked at": (Broken(a=1), "NOT_AN_OBJECT", None),
    "bytes in it": ({"a": {"b": [b"x"]}}, "NOT_JSON", "a.b.0"),
    "a number as a name": ({"a": {1: 2}}, "NOT_JSON", "a"),
    "NaN in it": ({"a": float("nan")}, "NOT_JSON", "a"),
    "a long integer in it": ({"a": -(2**63) - 1}, "NOT_JSON", "a"),
    "too deep": (nested(MAX_DEPTH + 1), "TOO_LARGE", None),
    "too deep as text": (json.dumps(nested(MAX_DEPTH + 1)), "TOO_LARGE", None),
    "brackets only": ('{"a":' * 20_000, "TOO_LARGE", None),
    "what holds itself": (holds_itself(), "TOO_LARGE", None),
    "what holds much": (holds_much(), "TOO_LARGE", None),
    "what never ends": (Endless(), "TOO_LARGE", None),
    "long text": ('{"a": "' + "x" * LIMIT + '"}', "TOO_LARGE", None),
    "long bytes": (b" " * (LIMIT + 1), "TOO_LARGE", None),
    "long in UTF-8": ('{"a": "' + "\u20ac" * (LIMIT // 3) + '"}', "TOO_LARGE", None),
    "a long object": ({"a": ["x" * LIMIT]}, "TOO_LARGE", None),
    "a long list": ({"a": [1] * (LIMIT // 2)}, "TOO_LARGE", None),
    "long numbers": ({"a": [123456789] * (LIMIT // 10)}, "TOO_LARGE", None),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_object_is_one_structural_problem(what: str) -> None:
    raw, code, field = REFUSED[what]
    reading = read_starts(raw, config=TriggerConfig(max_input_bytes=LIMIT))
    (problem,) = reading.problems
    assert (problem.code, problem.field) == (code, field)
    assert not reading.drafts
    json.dumps(problem.document(), allow_nan=False).encode()


def test_all_that_is_wrong_is_named_up_to_a_number() -> None:
    problems = read_object({"a": b"", "b": [2**70, float("inf")], "c": "\udfff"}, limit=LIMIT)
    assert isinstance(problems, list)
    assert [problem.field for problem in problems] == ["a", "b.0", "b.1", "c"]
    assert len(read_object({"a": [b""] * 1000}, limit=LIMIT)) == 10


class Colour(enum.StrEnum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


def test_what_is_json_is_copied_all_the_way_down() -> None:
    inner: dict[str, Any] = {"list": [1, -1.5, None, True, "\u00e9", 2**64 - 1, []], "tuple": ("a", {})}
    raw = MappingProxyType({"inner": MappingProxyType(inner), "colour": Colour.RED, "one": Number.ONE})
    read = read_object(raw, limit=LIMIT)
    assert read == {"inner": {**inner, "tuple": ["a", {}]}, "colour": "red", "one": 1}
    assert isinstance(read, dict)
    assert type(read["colour"]) is str
    assert type(read["one"]) is int
    inner["list"].append("later")
    assert len(read["inner"]["list"]) == 7


@pytest.mark.parametrize("wrap", [str, str.encode, lambda text: bytearray(text.encode())])
def test_text_and_bytes_are_read(wrap: Any) -> None:
    text = '\ufeff{"symbols": ["\u00c5"]}'
    assert read_object(wrap(text), limit=len(text.encode())) == {"symbols": ["\u00c5"]}
    assert read_object(memoryview(text.encode()), limit=LIMIT) == {"symbols": ["\u00c5"]}


def test_the_deepest_that_is_taken() -> None:
    assert read_object(nested(MAX_DEPTH), limit=LIMIT) == nested(MAX_DEPTH)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"a": [1, 2, {"b": "c"}], "d": {}, "e": "f", "g": None, "h": [], "i": [[], {}, True, 1.5, -12345]},
        {"notes": [{"a": 1}] * 50, "rows": [[1, 2]] * 50, "x": {str(at): {"a": 1} for at in range(50)}},
        {"\u00e9": "\u20ac", "text": 'a "quote"\n'},
    ],
)
def test_an_object_counts_as_much_as_its_shortest_text(document: dict[str, Any]) -> None:
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    size = len(text.encode())
    assert read_object(document, limit=size) == read_object(text, limit=size) == document
    for one in (document, text):
        (problem,) = read_object(one, limit=size - 1)
        assert isinstance(problem, Problem)
        assert problem.code == "TOO_LARGE"
