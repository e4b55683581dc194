"""A start's symbols in chunks, each a piece of work of its own. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from oms_events.triggers.start import Start

_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some symbols of a start, as the document that a worker gets.

    `chunk_id` is a digest of the start's key, the chunk's place and its symbols: a start that runs again with the
    same symbols in chunks of the same size makes the same ids, by which workers know what they had before.
    """

    chunk_id: str
    index: int
    count: int
    document: Mapping[str, Any]
    fence: int | None = None

    @property
    def deduplication_id(self) -> str:
        """What platforms tell a repeated chunk by: `chunk_id` and, of an exclusive key, the run's fence.

        A later run's chunk has a higher fence, and must not be dropped as a repetition of an older run's, which
        workers refuse.
        """
        return self.chunk_id if self.fence is None else f"{self.chunk_id}.{self.fence}"


def chunks_of(start: Start) -> list[Chunk]:
    """The chunks of `options.chunk_size` symbols, in order; one without symbols of a start that has none."""
    symbols, size = start.request.symbols, start.options.chunk_size
    parts = [symbols[first : first + size] for first in range(0, len(symbols), size)] or [()]
    common = {
        **start.request.document(),
        "correlation_id": start.correlation_id,
        "ds": start.ds,
        "chunk_count": len(parts),
        "worker_timeout": start.options.worker_timeout,
    }
    if start.fence is not None:
        common["fence"] = start.fence
    return [_chunk(start.key, common, index, part) for index, part in enumerate(parts)]


def group_of(start: Start) -> str:
    """What a start keeps its order with, and its events' partition key: `domain:table_name`."""
    return f"{start.request.domain}:{start.request.table_name}"


def _chunk(key: str, common: Mapping[str, Any], index: int, symbols: Sequence[str]) -> Chunk:
    # Not of the place alone: after a change of the chunk size, or of the symbols that are loaded, workers would
    # take other symbols for those that they had.
    identity = json.dumps([key, index, *symbols])
    chunk_id = blake2b(identity.encode(), digest_size=_ID_BYTES).hexdigest()
    own = {"symbols": list(symbols), "chunk_id": chunk_id, "chunk_index": index}
    return Chunk(chunk_id, index, common["chunk_count"], {**common, **own}, common.get("fence"))
