"""Which events start something: by source and detail type, the model of their details and what they ask for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import BaseModel

from oms_events.errors import ConfigurationError

_SAME_SOURCES: Final[Mapping[str, str]] = {"extract.pipeline": "transform.pipeline"}
_WORDS: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+")
_LONGEST: Final = 1024
"""Characters of a type that are looked at, from its end."""
_NOT_DOTTED: Final = re.compile(r"[/:.]+")

Detail = TypeVar("Detail", bound=BaseModel)


class NothingToStart(NamedTuple):
    """What an event's reader gives for one that asks for nothing; `reason` is logged."""

    reason: str


Asked = Mapping[str, Any] | NothingToStart
"""A request document: fields of a request, and `ds`, `dry_run`, `force_symbols`, `override_config` if wanted."""


class EventReader(NamedTuple):
    """One row of the table: how events of a source and detail type are read."""

    source: str
    detail_type: str
    model: type[BaseModel]
    to_fields: Callable[[Any], Asked]


def same_source(source: str) -> str:
    """The source's one name: `extract.pipeline` is `transform.pipeline`."""
    return _SAME_SOURCES.get(source, source)


class EventReaders:
    """The table of events that start something. A new one has what `rows` are, and takes more.

    CloudEvents are found by their type, see `find_type`.
    """

    def __init__(self, rows: Iterable[EventReader] = (), *, closed: bool = False) -> None:
        self._rows: dict[tuple[str, str], EventReader] = {}
        self._closed = False
        for row in rows:
            self.register(row.source, row.detail_type, row.model, row.to_fields)
        self._closed = closed

    def __repr__(self) -> str:
        return "DEFAULT_EVENTS" if self._closed else f"EventReaders({len(self._rows)} rows)"

    def __iter__(self) -> Iterator[EventReader]:
        return iter(self._rows.values())

    def register(
        self, source: str, detail_type: str, model: type[Detail], to_fields: Callable[[Detail], Asked]
    ) -> None:
        """Takes events of a source and detail type; one that is there is replaced.

        `model` is what their details are; `to_fields` gives the request's fields of one, or `NothingToStart`. What
        it raises is answered as `INVALID_DETAIL`. Raises `ConfigurationError` for empty names, and for the table
        that all share.
        """
        if self._closed:
            problem = "this table is shared by all; make one of your own: EventReaders(DEFAULT_EVENTS)"
            raise ConfigurationError("EventReaders", [problem])
        if not source.strip() or not _words(detail_type):
            problem = f"source = {source!r}, detail_type = {detail_type!r}: give both some text"
            raise ConfigurationError("EventReaders", [problem])
        row = EventReader(same_source(source), detail_type, model, to_fields)
        self._rows[(row.source, detail_type)] = row

    def find(self, source: str, detail_type: str) -> EventReader | None:
        """How events of EventBridge with this source and detail type are read."""
        return self._rows.get((same_source(source), detail_type))

    def find_type(self, event_type: str, source: str) -> EventReader | None:
        """How CloudEvents of a type are read: its last words are those of the row's detail type.

        Words end at dots, other signs, and capitals: `symbol.universe.updated`, `universe_updated` and
        `com.acme.UniverseUpdated` are all `Universe Updated`. Of several rows with the same words the one counts
        whose source begins the type, else the one whose source is the event's; without one, none does.
        """
        words = _words(event_type[-_LONGEST:])
        fitting = [row for row in self._rows.values() if _ends(words, _words(row.detail_type))]
        if len(fitting) > 1:
            dotted = same_source(_NOT_DOTTED.sub(".", source[:_LONGEST]).strip("."))
            named = [row for row in fitting if event_type.startswith(f"{row.source}.")]
            fitting = named or [row for row in fitting if row.source == dotted]
        return fitting[0] if len(fitting) == 1 else None

    def known(self) -> str:
        """All rows, as text for a remedy."""
        return "; ".join(f"{row.source}: {row.detail_type}" for row in self._rows.values()) or "none"


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(text)]


def _ends(words: list[str], last: list[str]) -> bool:
    return words[-len(last) :] == last
