"""Events out of bytes that come in pieces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms_events.cli.parsing import InputFormat, Item, make_parser
from tests.cli.conftest import event_json

A, B, C = (event_json(name) for name in "abc")
PRETTY = json.dumps(json.loads(A), indent=2)


def read(text: str | bytes, *, form: InputFormat = InputFormat.AUTO, size: int = 0, **options: int) -> list[Item]:
    data = text.encode() if isinstance(text, str) else text
    parser = make_parser(form, **options)
    items: list[Item] = []
    for start in range(0, len(data), size or max(len(data), 1)):
        items += parser.feed(data[start : start + (size or len(data))])
    return items + parser.finish()


def told(items: list[Item]) -> list[tuple[int, str]]:
    return [(item.line, item.content if isinstance(item.content, str) else item.content.id) for item in items]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\n", []),
        (A, [(1, "a")]),
        (f"\n{A}\n\n{B}\r\n", [(2, "a"), (4, "b")]),
        (PRETTY, [(1, "a")]),
        (f"{PRETTY}\n{B}\n{PRETTY}", [(1, "a"), (10, "b"), (11, "a")]),
        (f"[{A},\n{B}]", [(1, "a"), (2, "b")]),
        (f" [\n{A}\n,{PRETTY}\n]\n", [(2, "a"), (3, "a")]),
        (f"[{A}] [] [\n{B}]", [(1, "a"), (2, "b")]),
        ("\ufeff" + A, [(1, "a")]),
        ("\ufeff" + PRETTY, [(1, "a")]),
    ],
)
def test_every_layout_gives_its_events_with_their_lines(text: str, expected: list[tuple[int, str]]) -> None:
    assert told(read(text)) == expected


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        (f"{A}\nnonsense\n{B}", ["a", "b"], {2: "not JSON"}),
        (f"nonsense\n{A}", ["a"], {1: "not JSON"}),
        (f'{{"id": \n{A}\n{B}', ["a", "b"], {1: "not JSON"}),
        (f'{A}\n{{"id": "x"}}\n[]\n5\n{B}', ["a", "b"], {2: "'source'", 3: "JSON object, not list", 4: "not int"}),
        (f'[{A},\n5,\n{{"specversion": "1.0"}},\n{B}]', ["a", "b"], {2: "not int", 3: "'id'"}),
        (f"{A}\n{event_json('n', data=float('nan'))}\n{B}", ["a", "b"], {2: "not JSON"}),
        (f"[{A},\n{event_json('n', data=float('nan'))},\n{B}]", ["a", "b"], {2: "not JSON"}),
        (f"{A}\n{event_json('x', type='')}\n{B}", ["a", "b"], {2: "type"}),
    ],
)
def test_what_is_no_event_harms_no_other(text: str, good: list[str], bad: dict[int, str]) -> None:
    items = read(text)
    assert [item.content.id for item in items if not isinstance(item.content, str)] == good
    reasons = {item.line: item.content for item in items if isinstance(item.content, str)}
    assert reasons.keys() == bad.keys()
    for line, part in bad.items():
        assert part in reasons[line]


@pytest.mark.parametrize(
    ("text", "good", "line", "reason"),
    [
        (f"[{A},\n{B}", ["a", "b"], 2, "no end"),
        (f"[{A}\n{B}]", ["a"], 2, "no comma"),
        (f"[{A},\n{{'id': 1}},\n{B}]", ["a"], 2, "not JSON"),
        (f'[{A},\n{{"id":\n\n?}}]', ["a"], 4, "not JSON"),
        (PRETTY[:-1], [], 9, "not JSON"),
        ("[" * 100_000, [], 1, "nested too deeply"),
        (f"[{A},".encode() + b'\n"\xff"]', ["a"], 2, "not UTF-8"),
    ],
)
def test_a_broken_document_ends_the_reading_and_says_so(
    text: str | bytes, good: list[str], line: int, reason: str
) -> None:
    *items, last = read(text)
    assert [content for _, content in told(items)] == good
    assert last.line == line
    assert isinstance(last.content, str)
    assert reason in last.content
    assert "nothing from here on was read" in last.content


def test_the_format_can_be_said() -> None:
    assert told(read(f"{A} {B}", form=InputFormat.JSON)) == [(1, "a"), (1, "b")]
    assert [line for line, _ in told(read(PRETTY, form=InputFormat.LINES))] == list(range(1, 10))


@pytest.mark.parametrize("form", list(InputFormat))
@pytest.mark.parametrize("size", [7, 1000])
def test_no_more_than_one_event_is_kept_in_memory(form: InputFormat, size: int) -> None:
    large = event_json("large", data="x" * 1000)
    items = read(f"{large}\n{A}", form=form, size=size, max_size=500)
    assert items[0].line == 1
    assert "longer than 500 bytes" in str(items[0].content)
    rest = [(2, "a")] if form is not InputFormat.JSON else []
    assert told(items[1:]) == rest


@given(
    st.lists(
        st.sampled_from([A, B, C, PRETTY, "5", "nonsense", '{"id": 1}', "[", "]", ",", "\n", "é", "!", '"', "{"])
    ),
    st.sampled_from(["\n", "", ",\n"]),
    st.sampled_from(list(InputFormat)),
    st.integers(1, 40),
)
def test_pieces_of_any_size_give_the_same_items(
    parts: list[str], separator: str, form: InputFormat, size: int
) -> None:
    data = separator.join(parts).encode().replace(b"!", b"\xff")
    assert told(read(data, form=form, size=size)) == told(read(data, form=form))
