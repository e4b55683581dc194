from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oms_events.triggers.config import TriggerConfig
from oms_events.triggers.reading.recognition import read_starts
from oms_events.triggers.reading.results import Reading
from oms_events.triggers.request import MAX_CORRELATION_ID, is_correlation_id
from oms_events.triggers.start import Draft
from tests.strategies import events, json_values
from tests.triggers.strategies import ALL_PAYLOADS, SHAPES, mutated, odd_values, payloads

CONFIG = TriggerConfig()


def all_readings(reading: Reading) -> Iterator[Reading]:
    yield reading
    for inner in (*reading.messages.values(), *reading.parts):
        yield from all_readings(inner)


def all_drafts(reading: Reading) -> list[Draft]:
    return [draft for one in all_readings(reading) for draft in one.drafts]


def read(raw: object, config: TriggerConfig = CONFIG) -> Reading:
    """Reads, and checks what holds for every answer."""
    reading = read_starts(raw, config=config)
    for one in all_readings(reading):
        assert one.drafts or one.problems or one.ignored or one.messages or one.parts or one.kind == "s3"
        assert one.correlation_id is None or is_correlation_id(one.correlation_id)
        for problem in one.problems:
            json.dumps(problem.document(), allow_nan=False).encode()
            assert problem.remedy
    for draft in all_drafts(reading):
        json.dumps(draft.raw, allow_nan=False).encode()
    return reading


def twice(draft: Draft) -> Draft:
    """The draft that its own raw input gives."""
    (again,) = read_starts(draft.raw, config=CONFIG).drafts
    return again


def same(draft: Draft) -> tuple[Any, ...]:
    return (
        draft.trigger_type,
        draft.raw,
        draft.fields,
        draft.unknown,
        draft.correlation_id,
        draft.ds,
        draft.detail,
    )


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=12)
@given(data=st.data())
def test_a_good_input_of_each_shape_has_nothing_wrong(shape: str, data: st.DataObject) -> None:
    document = data.draw(SHAPES[shape])
    reading = read(document)
    for one in all_readings(reading):
        # Two lists of symbols that differ are the one thing that these may get wrong together.
        assert not [problem for problem in one.problems if problem.field != "force_symbols"]
    for other in (json.dumps(document), json.dumps(document).encode()):
        assert list(map(same, all_drafts(read(other)))) == list(map(same, all_drafts(reading)))
    for draft in all_drafts(reading):
        if draft.trigger_type != "manual":
            assert draft.correlation_id
            assert draft.correlation_id.isprintable()
            assert len(draft.correlation_id) <= MAX_CORRELATION_ID
        if draft.queued is None:
            assert same(twice(draft)) == same(draft)


@settings(max_examples=80)
@given(mutated())
def test_a_mutated_input_is_answered(document: dict[str, Any]) -> None:
    read(document)
    # Also as text, with all that Python writes and JSON does not have.
    read(json.dumps(document, default=str, skipkeys=True))


@settings(max_examples=60)
@given(json_values | odd_values | events() | st.binary(max_size=50) | st.text(max_size=50))
def test_anything_at_all_is_answered(raw: object) -> None:
    read(raw)
    read({"Records": raw})
    read({"Records": [raw]})


@settings(max_examples=30)
@given(payloads, st.integers(1, 400))
def test_a_long_input_is_answered(document: dict[str, Any], limit: int) -> None:
    config = TriggerConfig(max_input_bytes=limit)
    text = json.dumps(document)
    assert (read(text, config).problems[:1] or [None])[0] == (read(text.encode(), config).problems[:1] or [None])[
        0
    ]
    if len(text) > limit:
        assert [problem.code for problem in read(text, config).problems] == ["TOO_LARGE"]
    read(document, config)


@pytest.mark.nightly
@settings(max_examples=4_000)
@given(mutated() | json_values | payloads)
def test_very_many_inputs_are_answered(raw: object) -> None:
    read(raw)
    read(json.dumps(raw, default=str, skipkeys=True))


def test_each_payload_has_a_strategy() -> None:
    assert set(SHAPES) == set(ALL_PAYLOADS)
