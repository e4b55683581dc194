"""Queries of histories, page by page: the events of an aggregate, and those of a type by time."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, Field

from oms_events._aio import Clock
from oms_events._config import suggestion
from oms_events.errors import NotFoundError, PersonalDataError, RequestError
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.registry import MAX_TYPE_BYTES
from oms_events.eventstore.requests.answers import answer_size, event_answer
from oms_events.eventstore.requests.page_tokens import read_token, write_token
from oms_events.eventstore.requests.requests import AggregateId, RequestModel, key_text, shown
from oms_events.eventstore.store import EventStore
from oms_events.eventstore.time_ranges import TimeRange, parse_time

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000

Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]


class AggregateEventsQuery(RequestModel):
    """`getAggregateEvents`: the events of an aggregate, in their order."""

    aggregate_id: AggregateId
    after_sequence: int = Field(default=0, ge=0)
    limit: Limit = DEFAULT_LIMIT
    next_token: str | None = None


class EventsByTypeQuery(RequestModel):
    """`getEventsByType`: the events of a type, `startTime` <= time < `endTime`, by time."""

    event_type: Annotated[str, key_text(most=MAX_TYPE_BYTES)]
    start_time: str | None = None
    end_time: str | None = None
    newest_first: bool = False
    limit: Limit = DEFAULT_LIMIT
    next_token: str | None = None


class _AfterSequence(RequestModel):
    after: int = Field(ge=1)


class _AfterEvent(RequestModel):
    """Also the times: "1 hour ago" is another time at the next page."""

    after: str = Field(min_length=1)
    start: AwareDatetime | None
    end: AwareDatetime | None


class _Page:
    """The events of an answer, as many as it takes."""

    def __init__(self, limit: int, max_bytes: int) -> None:
        self._unreadable: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        self.last: RecordedEvent | None = None
        self.has_more = False
        self._limit = limit
        self._left = max_bytes

    def damaged(self, event: RecordedEvent, error: PersonalDataError) -> None:
        """Keeps why an event's personal data cannot be read: it would else stand in the way of all the others."""
        self._unreadable[event.position] = str(error)

    def take(self, event: RecordedEvent) -> bool:
        """Whether it took the event; if not, there is one for the next page. An empty page takes any."""
        answer = event_answer(event, unreadable=self._unreadable.get(event.position))
        size = answer_size(answer) + 2
        self.has_more = bool(self.events) and (len(self.events) >= self._limit or size > self._left)
        if not self.has_more:
            self.events.append(answer)
            self.last = event
            self._left -= size
        return not self.has_more


class HistoryQueries:
    """Answers the queries of histories. `max_bytes` is how much JSON the events of a page may be."""

    def __init__(self, store: EventStore, *, max_bytes: int, clock: Clock) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._clock = clock

    async def of_aggregate(self, query: AggregateEventsQuery) -> dict[str, Any]:
        """One page of an aggregate's events. Raises `NotFoundError` and what `EventStore.pages` does."""
        said = _said(query)
        after = query.after_sequence
        if query.next_token is not None:
            after = read_token(query.next_token, said, _AfterSequence).after
        page = _Page(query.limit, self._max_bytes)
        # One more than asked for tells whether there is another page.
        pages = self._store.pages(query.aggregate_id, after=after, limit=query.limit + 1, damaged=page.damaged)
        async with aclosing(pages):
            async for events in pages:
                if not all(map(page.take, events)):
                    break
        if not page.events and await self._is_unknown(query.aggregate_id, after):
            raise no_aggregate(query.aggregate_id)
        token = None
        if page.has_more and page.last is not None:
            token = write_token(said, _AfterSequence(after=page.last.sequence))
        return {"aggregateId": query.aggregate_id, "events": page.events, "nextToken": token}

    async def by_type(self, query: EventsByTypeQuery) -> dict[str, Any]:
        """One page of a type's events. Raises `RequestError` and what `EventStore.events_by_type` does."""
        said = _said(query)
        after = None
        if query.next_token is None:
            times = self._range(query)
        else:
            position = read_token(query.next_token, said, _AfterEvent)
            after, times = position.after, TimeRange(position.start, position.end)
        page = _Page(query.limit, self._max_bytes)
        found = self._store.events_by_type(
            query.event_type,
            start=times.start,
            end=times.end,
            after=after,
            newest_first=query.newest_first,
            # A quarter from each of the eight shards: twice what is needed when they are alike.
            page_size=query.limit // 4 + 1,
            damaged=page.damaged,
        )
        async with aclosing(found):
            async for event in found:
                if not page.take(event):
                    break
        if not page.events and after is None:
            self._check_type(query.event_type)
        token = None
        if page.has_more and (last := page.last) is not None:
            token = write_token(said, _AfterEvent(after=last.time_key, start=times.start, end=times.end))
        return {"eventType": query.event_type, "events": page.events, "nextToken": token}

    async def _is_unknown(self, aggregate_id: str, after: int) -> bool:
        return after == 0 or await self._store.last_sequence(aggregate_id) == 0

    def _range(self, query: EventsByTypeQuery) -> TimeRange:
        now = self._clock.now()
        times = []
        for field, text in (("startTime", query.start_time), ("endTime", query.end_time)):
            try:
                times.append(None if text is None else parse_time(text, now=now))
            except ValueError as error:
                raise RequestError(f"getEventsByType: {field}: {error}", field=field) from None
        try:
            return TimeRange(*times)
        except ValueError as error:
            raise RequestError(f"getEventsByType: startTime and endTime: {error}", field="endTime") from None

    def _check_type(self, event_type: str) -> None:
        """No event may be right; where the type is not known here, it was probably misspelled."""
        types = self._store.registry.types()
        if event_type in types:
            return
        hint = suggestion(event_type, types) or f"known types: {', '.join(types) or 'none'}"
        text = (
            f"getEventsByType: no event of the type {shown(event_type)} is there at that time, and it is not known"
        )
        raise NotFoundError(f"{text}; {hint}", field="eventType")


def no_aggregate(aggregate_id: str) -> NotFoundError:
    """The error for an aggregate without events."""
    return NotFoundError(f"aggregate {shown(aggregate_id)} has no events; check its id", field="aggregateId")


def _said(query: RequestModel) -> Mapping[str, Any]:
    """The query without what may change from page to page."""
    values = query.model_dump(mode="json", exclude={"limit", "next_token"})
    return {"query": type(query).__name__, **values}
