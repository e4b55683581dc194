"""Keys that were read, for a while: bounded, and never older than what was forgotten here. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

V = TypeVar("V")


class KeyCache(Generic[V]):
    """Values by subject for `ttl` seconds each, at most `size` of them; the least recently used go first."""

    def __init__(self, *, ttl: float, size: int, monotonic: Callable[[], float]) -> None:
        self._ttl = ttl
        self._size = size
        self._monotonic = monotonic
        self._values: OrderedDict[str, tuple[float, V]] = OrderedDict()
        self._evictions = 0

    def __len__(self) -> int:
        return len(self._values)

    def get(self, subject: str) -> V | None:
        entry = self._values.get(subject)
        if entry is None:
            return None
        expiry, value = entry
        if self._monotonic() >= expiry:
            del self._values[subject]
            return None
        self._values.move_to_end(subject)
        return value

    @contextmanager
    def filling(self) -> Iterator[Callable[[str, V], None]]:
        """Gives the function that puts what is read in the block; its age counts from the beginning of the block.

        It puts nothing once something was evicted meanwhile: what was read may be older than that.
        """
        begun, evictions = self._monotonic(), self._evictions

        def put(subject: str, value: V) -> None:
            if self._evictions != evictions or self._ttl == 0:
                return
            self._values[subject] = (begun + self._ttl, value)
            self._values.move_to_end(subject)
            if len(self._values) > self._size:
                self._values.popitem(last=False)

        yield put

    def evict(self, subject: str) -> None:
        self._evictions += 1
        self._values.pop(subject, None)
