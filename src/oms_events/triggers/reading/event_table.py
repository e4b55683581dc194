"""Which events start something: by source and detail type, the model of their details and what they ask for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

from pydantic import BaseModel

from oms_events.errors import ConfigurationError

_SAME_SOURCES: Final[Mapping[str, str]] = {"extract.pipeline": "transform.pipeline"}
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z0-9]+|[0-9]+|[^\W_A-Za-z0-9]+")
_LONGEST: Final = 1024
"""Characters of a type or source; longer ones are no row's."""
_NOT_DOTTED: Final = re.compile(r"[/:.]+")

Detail = TypeVar("Detail", bound=BaseModel)


class NothingToStart(NamedTuple):
    """What an event's reader gives for one that asks for nothing; `reason` is logged."""

    reason: str


Asked = Mapping[str, Any] | NothingToStart
"""A request document: fields of a request, and `ds`, `dry_run`, `force_symbols`, `override_config` if wanted."""


class EventReader(NamedTuple, Generic[Detail]):
    """One row of the table: how events of a source and detail type are read."""

    source: str
    detail_type: str
    model: type[Detail]
    to_fields: Callable[[Detail], Asked]


def same_source(source: str) -> str:
    """The source's one name: `extract.pipeline` is `transform.pipeline`."""
    return _SAME_SOURCES.get(source, source)


class EventReaders:
    """The table of events that start something. A new one has what `rows` are, and takes more.

    CloudEvents are found by their type, see `find_type`.
    """

    def __init__(self, rows: Iterable[EventReader[Any]] = (), *, closed: bool = False) -> None:
        self._rows: dict[tuple[str, str], EventReader[Any]] = {}
        self._closed = False
        for row in rows:
            self.register(row.source, row.detail_type, row.model, row.to_fields)
        self._closed = closed

    def __repr__(self) -> str:
        return "DEFAULT_EVENTS" if self._closed else f"EventReaders({len(self._rows)} rows)"

    def __iter__(self) -> Iterator[EventReader[Any]]:
        return iter(self._rows.values())

    def register(
        self, source: str, detail_type: str, model: type[Detail], to_fields: Callable[[Detail], Asked]
    ) -> None:
        """Takes events of a source and detail type; one that is there is replaced.

        `model` is what their details are; `to_fields` gives the request's fields of one, or `NothingToStart`. What
        either says with a `ValueError` is answered as `INVALID_DETAIL`. Anything else that they raise is a
        failure: the answer is `FAILED`, the start may come again, and the log has the error. Raises
        `ConfigurationError` for empty names, and for the table that all share.
        """
        if self._closed:
            problem = "this table is shared by all; make one of your own: EventReaders(DEFAULT_EVENTS)"
            raise ConfigurationError("EventReaders", [problem])
        if not source.strip() or not detail_type.strip():
            problem = f"source = {source!r}, detail_type = {detail_type!r}: give both some text"
            raise ConfigurationError("EventReaders", [problem])
        row = EventReader(same_source(source), detail_type, model, to_fields)
        self._rows[(row.source, detail_type)] = row

    def find(self, source: str, detail_type: str) -> EventReader[Any] | None:
        """How events of EventBridge with this source and detail type are read."""
        return self._rows.get((same_source(source), detail_type))

    def find_type(self, event_type: str, source: str) -> EventReader[Any] | None:
        """How CloudEvents of a type and source are read: by the row that both fit, and by no other.

        Words end at dots, other signs, and capitals: `universe.updated` and `UniverseUpdated` are `Universe
        Updated`. Either the whole type has the words of the row's source and then those of its detail type, where
        words that end the one and begin the other may be said once: `symbol.universe.updated`, whatever the
        event's source is. Or the event's source has the words of the row's, as `/symbol/universe` has, and the
        type's last words are the detail type's: `com.acme.UniverseUpdated`. Of several such rows the one with the
        most words in its detail type counts, then the one that the whole type names; without one such, none does.
        """
        if max(len(event_type), len(source)) > _LONGEST:
            return None
        words, origin = _words(event_type), _words(same_source(_NOT_DOTTED.sub(".", source).strip(".")))
        found = []
        for row in self._rows.values():
            detail_type, of_row = _words(row.detail_type), _words(row.source)
            is_named = any(_is_all(words, _words(name), detail_type) for name in _names_of(row.source))
            if is_named or (of_row == origin and _ends(words, detail_type)):
                found.append(((len(detail_type), is_named), row))
        best = max((rank for rank, _ in found), default=None)
        fitting = [row for rank, row in found if rank == best]
        return fitting[0] if len(fitting) == 1 else None

    def known(self) -> str:
        """All rows, as text for a remedy."""
        return "; ".join(f"{row.source}: {row.detail_type}" for row in self._rows.values()) or "none"


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(text)]


def _names_of(source: str) -> Iterator[str]:
    yield source
    yield from (other for other, name in _SAME_SOURCES.items() if name == source)


def _ends(words: list[str], last: list[str]) -> bool:
    return bool(last) and words[-len(last) :] == last


def _is_all(words: list[str], source: list[str], detail_type: list[str]) -> bool:
    """Whether the words are those of both, with what they share between them once or twice."""
    shared = len(source) + len(detail_type) - len(words)
    both = _ends(words, detail_type) and words[: len(source)] == source
    return both and 0 <= shared <= min(len(source), len(detail_type))
