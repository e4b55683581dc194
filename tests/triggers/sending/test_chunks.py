"""How a start's symbols become chunks."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from oms_events.triggers.sending.chunks import chunks_of
from tests.triggers.sending.conftest import make_start


def test_a_chunk_is_the_request_with_its_symbols() -> None:
    start = make_start(symbols=7, chunk_size=5, worker_timeout=60, fence=4, correlation_id="mine", urgent=True)
    first, second = chunks_of(start)
    assert first.document["symbols"] == ["S0", "S1", "S2", "S3", "S4"]
    assert second.document == {
        **start.request.document(),
        "symbols": ["S5", "S6"],
        "correlation_id": "flow-1",
        "ds": "2026-09-09",
        "chunk_id": second.chunk_id,
        "chunk_index": 1,
        "chunk_count": 2,
        "worker_timeout": 60,
        "fence": 4,
    }
    assert "fence" not in chunks_of(make_start())[0].document


def test_a_start_without_symbols_is_one_chunk_without_symbols() -> None:
    (chunk,) = chunks_of(make_start(symbols=0))
    assert (chunk.document["symbols"], chunk.count) == ([], 1)


@settings(max_examples=50)
@given(symbols=st.integers(1, 100), size=st.integers(1, 100))
def test_every_symbol_is_in_one_chunk_in_order(symbols: int, size: int) -> None:
    start = make_start(symbols=symbols, chunk_size=size)
    chunks = chunks_of(start)
    assert [symbol for chunk in chunks for symbol in chunk.document["symbols"]] == list(start.request.symbols)
    assert {len(chunk.document["symbols"]) for chunk in chunks[:-1]} <= {size}
    assert [(chunk.index, chunk.count) for chunk in chunks] == [(n, len(chunks)) for n in range(len(chunks))]
    assert len({chunk.chunk_id for chunk in chunks}) == len(chunks)


def test_ids_are_those_of_the_same_start_and_of_no_other() -> None:
    start = make_start(symbols=6, chunk_size=3)
    first = {chunk.chunk_id for chunk in chunks_of(start)}
    # Another run: the fence rises, and the worker may have more time.
    again = make_start(symbols=6, chunk_size=3, fence=7, worker_timeout=9)
    assert {chunk.chunk_id for chunk in chunks_of(again)} == first
    # Who drops repetitions must not drop this run's in favour of the older one's.
    assert {chunk.deduplication_id for chunk in chunks_of(again)}.isdisjoint(
        chunk.deduplication_id for chunk in chunks_of(replace(start, fence=6))
    )
    assert {chunk.deduplication_id for chunk in chunks_of(start)} == first
    for other in (replace(start, key="other"), make_start(symbols=6, chunk_size=2)):
        assert first.isdisjoint(chunk.chunk_id for chunk in chunks_of(other))
    # The first three symbols are the same; what differs is the rest.
    fewer = make_start(symbols=5, chunk_size=3)
    assert len(first & {chunk.chunk_id for chunk in chunks_of(fewer)}) == 1
