"""Queries as JSON, dispatched without HTTP: rows of read models, states, and histories page by page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

from pydantic import BaseModel, Field, create_model

from oms_events._aio import Clock, SystemClock
from oms_events._config import suggestion
from oms_events.errors import ConfigurationError, NotFoundError, RequestError
from oms_events.eventstore.projections.projection import MAX_KEY_BYTES, Projection
from oms_events.eventstore.requests.answers import MAX_ANSWER_BYTES, TOO_LARGE, answer_size, error_answer
from oms_events.eventstore.requests.history_queries import (
    AggregateEventsQuery,
    EventsByTypeQuery,
    HistoryQueries,
    no_aggregate,
)
from oms_events.eventstore.requests.requests import (
    AggregateId,
    RequestModel,
    ShortText,
    json_object,
    key_text,
    model_problems,
    read_request,
    refusal,
    shown,
)
from oms_events.eventstore.store import EventStore

if TYPE_CHECKING:
    from oms_events.eventstore.aggregates.repository import Repository
    from oms_events.eventstore.projections.read_models import ReadModels

Model = TypeVar("Model", bound=BaseModel)

UNKNOWN_QUERY = "UNKNOWN_QUERY"
_TYPE = "queryType"


class ReconstructStateQuery(RequestModel):
    """`reconstructState`: the state of an aggregate, now or after an earlier event (inclusive)."""

    aggregate_id: AggregateId
    aggregate_type: ShortText | None = None
    up_to_sequence: Annotated[int, Field(ge=1)] | None = None


class _Query(NamedTuple):
    """What a query is read by and who answers it.

    `shows_values`: messages repeat what was given. `has_pages`: it heeds itself how much it answers.
    """

    model: type[BaseModel]
    answer: Callable[[Any], Awaitable[Mapping[str, Any]]]
    shows_values: bool = True
    has_pages: bool = False


class QueryDispatcher:
    """Answers queries: JSON objects with a `queryType`, and what belongs to it.

    `getAggregateEvents` and `getEventsByType` are there from the start, `reconstructState` with the first
    `repository`; `row` and `register` add others. Answers are JSON, at most `max_answer_bytes` of it: a page ends
    before, and has at least one event. Safe to use concurrently.
    """

    def __init__(
        self,
        store: EventStore,
        *,
        read_models: ReadModels | None = None,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        clock: Clock | None = None,
    ) -> None:
        self._read_models = read_models
        self._max_bytes = max_answer_bytes
        self._repositories: dict[str, Repository[Any, Any, Any]] = {}
        self._default: str | None = None
        histories = HistoryQueries(store, max_bytes=max_answer_bytes, clock=clock or SystemClock())
        self._queries = {
            "getAggregateEvents": _Query(AggregateEventsQuery, histories.of_aggregate, has_pages=True),
            "getEventsByType": _Query(EventsByTypeQuery, histories.by_type, has_pages=True),
        }

    @property
    def query_types(self) -> tuple[str, ...]:
        """The queries that are answered, sorted."""
        return tuple(sorted(self._queries))

    # ------------------------------------------------------------------ making it

    def row(self, query_type: str, projection: Projection[Any], *, key: str) -> None:
        """Adds a query of a projection's rows; `key` is the name of the field that has the row's key.

        Its answer has the `row`, as its model writes it. Raises `ConfigurationError`.
        """
        read_models = self._read_models
        if read_models is None:
            problem = "rows are in read models; give the dispatcher its read_models"
            raise ConfigurationError(f"query {query_type!r}", [problem])
        if key == _TYPE or not key:
            raise ConfigurationError(
                f"query {query_type!r}", [f"key = {key!r}: name the field with the row's key"]
            )
        text = Annotated[str, key_text(most=MAX_KEY_BYTES)]
        model: type[RequestModel] = create_model(query_type, __base__=RequestModel, key=(text, Field(alias=key)))

        async def answer(query: Any) -> Mapping[str, Any]:
            row = await read_models.row(projection, query.key)
            if row is None:
                text = (
                    f"{query_type}: there is no {projection.name} for {key} = {shown(query.key)}; check it, or "
                    "ask again later: it is there once the projection has seen its first event"
                )
                raise NotFoundError(text, field=key)
            return {key: query.key, "row": dict(row)}

        self._add(query_type, _Query(model, answer))

    def repository(self, repository: Repository[Any, Any, Any], *, default: bool = False) -> None:
        """Lets `reconstructState` answer for a kind of aggregate.

        A request says which by `aggregateType`, the aggregate's name; without it the only one counts, or the one
        that is the `default`. Raises `ConfigurationError`.
        """
        name = repository.aggregate.name
        if name in self._repositories:
            raise ConfigurationError(f"aggregate {name!r}", ["it has a repository here already; give it one"])
        if default and self._default is not None:
            problem = f"{self._default!r} is the default already; only one can be"
            raise ConfigurationError(f"aggregate {name!r}", [problem])
        self._repositories[name] = repository
        if default:
            self._default = name
        self._queries["reconstructState"] = _Query(ReconstructStateQuery, self._reconstruct)

    def register(
        self, query_type: str, model: type[Model], answer: Callable[[Model], Awaitable[Mapping[str, Any]]]
    ) -> None:
        """Adds a query of yours: what the request says, without its `queryType`, is read by `model`.

        `answer` gives a JSON object; it raises a `RequestError` for what it refuses. Raises `ConfigurationError`.
        """
        if problems := model_problems(model):
            raise ConfigurationError(f"query {query_type!r}", problems)
        self._add(query_type, _Query(model, answer, shows_values=False))

    def _add(self, query_type: str, query: _Query) -> None:
        if not query_type or query_type in (*self._queries, "reconstructState"):
            problem = "is there already; choose another name" if query_type else "give it a name"
            raise ConfigurationError(f"query {query_type!r}", [problem])
        self._queries[query_type] = query

    # ------------------------------------------------------------------ answering

    async def dispatch(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a query, with its `queryType`.

        Raises `RequestError` with all that is wrong, `NotFoundError`; `EventUnreadableError`, `PersonalDataError`
        and a `StorageError` when what is stored cannot be read.
        """
        values = json_object(request, "query")
        query_type, query = self._find(values.pop(_TYPE, None))
        found = read_request(query.model, values, known=[_TYPE], shows_values=query.shows_values)
        if isinstance(found, list):
            raise refusal(query_type, found)
        answer = {_TYPE: query_type, **await query.answer(found)}
        if not query.has_pages and (size := answer_size(answer)) > self._max_bytes:
            text = f"{query_type}: the answer has {size} bytes, over the {self._max_bytes} that fit; ask for less"
            raise RequestError(text, code=TOO_LARGE)
        return answer

    async def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """As `dispatch`, with `"ok": true`; what that refuses is `{"ok": false, "error": {...}}`.

        The error has a `code`, a `message` and the `field` at fault, if it is one. Whatever is no fault of the
        query is raised as it is, so that its caller tries again.
        """
        try:
            return {"ok": True, **await self.dispatch(request)}
        except Exception as error:
            if (answer := error_answer(error)) is None:
                raise
            return answer

    def _find(self, query_type: object) -> tuple[str, _Query]:
        if query_type is None:
            text = f"query: field {_TYPE!r} is missing; give one of {', '.join(self.query_types)}"
            raise RequestError(text, field=_TYPE)
        if not isinstance(query_type, str):
            raise RequestError(f"query: {_TYPE} = {shown(query_type)}: give a name, in quotes", field=_TYPE)
        query = self._queries.get(query_type)
        if query is None:
            hint = suggestion(query_type, self._queries) or f"known: {', '.join(self.query_types)}"
            text = f"query: {_TYPE} = {shown(query_type)} is not known; {hint}"
            raise RequestError(text, field=_TYPE, code=UNKNOWN_QUERY)
        return query_type, query

    async def _reconstruct(self, query: ReconstructStateQuery) -> Mapping[str, Any]:
        name = self._kind(query)
        repository = self._repositories[name]
        state, sequence = await repository.load_with_sequence(
            query.aggregate_id, up_to_sequence=query.up_to_sequence
        )
        if sequence == 0:
            raise no_aggregate(query.aggregate_id)
        return {
            "aggregateId": query.aggregate_id,
            "aggregateType": name,
            "sequence": sequence,
            "state": state.model_dump(mode="json", by_alias=True),
        }

    def _kind(self, query: ReconstructStateQuery) -> str:
        name, known = query.aggregate_type, sorted(self._repositories)
        if name is None:
            name = known[0] if len(known) == 1 else self._default
        if name is None:
            text = f"reconstructState: field 'aggregateType' is missing; give one of {', '.join(known)}"
            raise RequestError(text, field="aggregateType")
        if name not in self._repositories:
            hint = suggestion(name, known) or f"known: {', '.join(known)}"
            text = f"reconstructState: aggregateType = {shown(name)} is not known; {hint}"
            raise RequestError(text, field="aggregateType")
        return name
