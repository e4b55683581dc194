"""A projector as a platform beside the others, and as a receiver's handler: read models in the same process.

As a platform of the router it gets its events from the outbox, which keeps them until the read models have them;
as the handler of a `JetStreamReceiver` it gets them from a stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final

from oms_events.errors import (
    AddressDeniedError,
    ConfigurationError,
    EventRejectedError,
    InvalidEventError,
    PlatformDeniedError,
    ProjectionError,
    PublishError,
    StorageDeniedError,
    StorageError,
    StorageOutcomeUnknownError,
    StorageRejectedError,
    TransientError,
    UnknownOutcomeError,
)
from oms_events.events import EncodedEvent
from oms_events.eventstore.items import COMMAND_PREFIX
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.records import RecordedEvent, recorded_of
from oms_events.publishing import PublisherTraits, Receipt

_log = logging.getLogger("oms_events")

_TRAITS: Final = PublisherTraits(gather=True, max_batch=100, deduplicates=True)


class ProjectionPublisher:
    """A platform that is a projector: what the router delivers to it is in the read models.

    Takes the events of the projector's own event store, and refuses those of any other `source` than `sources`:
    the store's own unless given, which is for stores whose source was changed. A receipt says that the event is in
    the read models, was there before, or is parked. It opens what the projector opens, and closes nothing.
    """

    def __init__(
        self, projector: Projector, *, sources: Collection[str] | None = None, check_timeout: float = 5.0
    ) -> None:
        self._projector = projector
        self._check_timeout = check_timeout
        self._read = _Reader(projector, sources)
        self._is_open = False

    @property
    def traits(self) -> PublisherTraits:
        return _TRAITS

    async def open(self) -> None:
        """Opens the projector; idempotent. Raises a `PublishError`."""
        try:
            await self._projector.open()
        except Exception as error:
            raise publish_error_of(error) from error
        self._is_open = True

    async def close(self) -> None:
        """Takes no more events; idempotent. The store and the read models stay open."""
        self._is_open = False

    async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Sequence[Receipt | PublishError]:
        if not self._is_open:
            return [_not_open()] * len(events)
        if timeout <= 0:
            return [TransientError("not projected: no time is left")] * len(events)
        recorded = [self._read(event) for event in events]
        try:
            async with asyncio.timeout(timeout):
                results = iter(await _handle(self._projector, recorded))
        except TimeoutError:
            late = UnknownOutcomeError(f"not projected within {timeout} s, or not known to be", code="timeout")
            results = iter([late] * len(events))
        answers: list[Receipt | PublishError] = []
        for event, one in zip(events, recorded, strict=True):
            if isinstance(one, InvalidEventError):
                answers.append(EventRejectedError(str(one)))
            elif (error := next(results)) is None:
                answers.append(Receipt(id=event.identity))
            else:
                answers.append(publish_error_of(error))
        return answers

    async def check(self) -> None:
        """Reads of the store and of the read models, within `check_timeout` seconds. Raises a `PublishError`."""
        if not self._is_open:
            raise _not_open()
        try:
            async with asyncio.timeout(self._check_timeout):
                # No aggregate has such an id; the question is the one that fills gaps.
                await self._projector.store.table.read(COMMAND_PREFIX, after=0, limit=1)
                for projection in self._projector.projections:
                    await self._projector.read_models.active_version(projection.name)
        except TimeoutError as error:
            raise TransientError(f"the tables did not answer within {self._check_timeout} s") from error
        except Exception as error:
            raise publish_error_of(error) from error

    def describe(self) -> dict[str, Any]:
        """The platform's state, for status pages."""
        return {
            "kind": "projection",
            "projections": [projection.full_name for projection in self._projector.projections],
            "sources": sorted(self._read.sources),
            "open": self._is_open,
        }


def received_events_handler(
    projector: Projector, *, sources: Collection[str] | None = None
) -> Callable[[Sequence[EncodedEvent]], Awaitable[list[Exception | None]]]:
    """Makes a handler for a `JetStreamReceiver` that gives its events to a projector.

    Events of any other `source` than `sources`, the store's own unless given, are refused with an
    `InvalidEventError`: the receiver drops them. Those that cannot be projected now come again.
    """
    read = _Reader(projector, sources)

    async def handle(events: Sequence[EncodedEvent]) -> list[Exception | None]:
        recorded = [read(event) for event in events]
        results = iter(await _handle(projector, recorded))
        return [one if isinstance(one, InvalidEventError) else next(results) for one in recorded]

    return handle


class _Reader:
    """Reads delivered events as events of one event store."""

    def __init__(self, projector: Projector, sources: Collection[str] | None) -> None:
        store = projector.store
        if isinstance(sources, str):
            raise ConfigurationError(
                "projection sources", [f"sources = {sources!r} is text; give a list of sources"]
            )
        self.sources = frozenset(sources or (store.config.source or store.config.table_name,))
        self._registry = store.registry

    def __call__(self, event: EncodedEvent) -> RecordedEvent | InvalidEventError:
        # Another store may have an aggregate of the same id: its history must not get into this one's rows.
        if event.source not in self.sources:
            known = ", ".join(sorted(self.sources))
            return InvalidEventError(
                f"attribute 'source' = {event.source!r} is not this event store's ({known}); route only its "
                "events here",
                field="source",
            )
        try:
            return recorded_of(event, self._registry)
        except InvalidEventError as error:
            return error


async def _handle(
    projector: Projector, events: Sequence[RecordedEvent | InvalidEventError]
) -> Sequence[Exception | None]:
    """What became of those that are recorded events, in their order."""
    recorded = [event for event in events if isinstance(event, RecordedEvent)]
    try:
        return await projector.handle(recorded)
    except Exception as error:
        # What opening raises.
        return [error] * len(recorded)


def _not_open() -> TransientError:
    return TransientError("the projection platform is not open; call open() first", code="not_open")


def publish_error_of(error: Exception) -> PublishError:
    """What an error of a projector means to who delivers events: when to try again, and what else to try."""
    result: PublishError
    match error:
        case PublishError():
            return error
        case StorageOutcomeUnknownError():
            result = UnknownOutcomeError(str(error), code=error.code)
        case StorageDeniedError():
            result = PlatformDeniedError(str(error), code=error.code)
        case ConfigurationError():
            result = PlatformDeniedError(str(error))
        case StorageRejectedError() | ProjectionError():
            # Of this aggregate only: others go on, and somebody should look at it.
            result = AddressDeniedError(str(error))
        case StorageError():
            result = TransientError(str(error), code=error.code, retry_after=error.retry_after)
        case _:
            _log.error("a projection failed", exc_info=error)
            result = TransientError(f"{type(error).__name__}: {error}")
    result.__cause__ = error
    return result
