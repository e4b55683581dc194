"""Delivers events to one EventBridge bus by PutEvents: packed calls, one attempt, an outcome per entry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from oms_events._aws.sending import Sending
from oms_events.errors import (
    EventRejectedError,
    MissingExtraError,
    PlatformDeniedError,
    PublishError,
    TransientError,
    UnknownOutcomeError,
)
from oms_events.events import EncodedEvent
from oms_events.publishers.eventbridge.answers import read_answer
from oms_events.publishers.eventbridge.config import EventBridgeConfig
from oms_events.publishers.eventbridge.entries import Entry, pack
from oms_events.publishers.eventbridge.mapping import EventMapper
from oms_events.publishing import PublisherTraits, Receipt

if TYPE_CHECKING:
    from types import ModuleType

    import aioboto3

    from oms_events._aws.session import AwsClient

_Results = list[Receipt | PublishError | None]


class EventBridgePublisher:
    """The `Publisher` of one event bus.

    Give a `session` (aioboto3) or a `client` (its `events` client) to use your own; neither is ever closed.
    A session brings its own credentials, a client also its own region, endpoint and connections: those
    fields of `config` count for nothing then. Order holds inside
    one call only: calls of one batch run at the same time.
    """

    def __init__(
        self,
        config: EventBridgeConfig,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
    ) -> None:
        self._config = config
        self._session = session
        self._borrowed = client
        self._mapper = EventMapper(config)
        self._traits = PublisherTraits(
            gather=True,
            max_batch=config.max_batch,
            max_batch_bytes=config.max_request_bytes,
            linger=config.linger,
            deduplicates=False,
        )
        self._opening = asyncio.Lock()
        self._slots = asyncio.Semaphore(config.max_concurrent_calls)
        self._wanted = False
        self._aws: AwsClient | None = None
        self._denial: PlatformDeniedError | None = None
        self._running: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()

    @property
    def traits(self) -> PublisherTraits:
        return self._traits

    async def open(self) -> None:
        """Connects and makes sure that the bus exists.

        Raises a `PublishError`, `ConfigurationError` for a region, profile or file that is missing, and
        `MissingExtraError` without aioboto3.
        """
        self._wanted = True
        async with self._opening:
            if not self._wanted:
                return
            if self._aws is not None:
                if self._denial is not None:
                    await self.check()
                return
            # Importing botocore takes most of a second.
            aws = await asyncio.to_thread(_load_aws)
            if not self._wanted:
                raise TransientError("closed while it was opening")
            opened: AwsClient | None = None
            try:
                async with self._interruptible(None):
                    opened = await aws.open_client(
                        self._config,
                        "events",
                        connections=self._config.max_concurrent_calls + 1,
                        direct=self._config.direct_calls,
                        session=self._session,
                        client=self._borrowed,
                    )
                    await self._find_bus(opened)
                self._aws, opened = opened, None
            except TimeoutError:
                raise TransientError("closed while it was opening") from None
            finally:
                if opened is not None:
                    await opened.close()

    async def close(self) -> None:
        """Ends all calls in flight (those already sent are `unknown`) and closes what was opened here."""
        self._wanted = False
        self._denial = None
        aws, self._aws = self._aws, None
        try:
            for limit in self._running:
                if not limit.expired():
                    limit.reschedule(0)
            while self._running:
                self._idle.clear()
                await self._idle.wait()
            async with self._opening:
                pass
        finally:
            if aws is not None:
                await aws.close()

    async def check(self) -> None:
        """Proves that the endpoint answers, takes our credentials, and has the bus.

        A denial stops all publishing until a later check or open succeeds. With `verify_bus=False` "access
        denied" is as good an answer, and the bus may not exist. An open that failed is tried again.
        """
        if self._aws is None:
            if not self._wanted:
                raise _not_open()
            await self.open()
            return
        try:
            async with self._interruptible(None):
                await self._find_bus(self._aws)
        except TimeoutError:
            raise TransientError("closed during the check") from None

    async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Sequence[Receipt | PublishError]:
        """Sends each event once, in calls as full as possible; see `Publisher.publish`."""
        deadline = asyncio.get_running_loop().time() + timeout
        results: _Results = [None] * len(events)
        calls = pack(
            self._entries(events, results),
            max_entries=self._config.max_batch,
            max_bytes=self._config.max_request_bytes,
        )
        first = list(islice(calls, 2))
        if len(first) < 2:
            await self._work(iter(first), results, deadline)
        else:
            # Entries are made when a call has room for them: a large batch does not hold up the event loop.
            work = chain(first, calls)
            async with asyncio.TaskGroup() as group:
                for number in range(min(self._config.max_concurrent_calls, len(events))):
                    group.create_task(self._work(work, results, deadline), name=f"oms-events-eventbridge-{number}")
        return [_never_marked() if result is None else result for result in results]

    def describe(self) -> dict[str, object]:
        """The settings and state that help to find a fault; no secrets."""
        config = self._config
        borrowed = self._session is not None or self._borrowed is not None
        return {
            "event_bus_name": config.event_bus_name,
            "aws_region": config.aws_region,
            "endpoint_url": config.endpoint_url,
            "credentials": "borrowed" if borrowed else config.credentials_kind,
            "mapping": config.mapping,
            "verify_bus": config.verify_bus,
            "open": self._aws is not None,
            "direct_calls": self._aws is not None and self._aws.direct,
            "denied": str(self._denial) if self._denial is not None else None,
            "calls_in_flight": len(self._running),
        }

    def __repr__(self) -> str:
        return f"<EventBridgePublisher {self._config.event_bus_name!r} open={self._aws is not None}>"

    def _entries(self, events: Sequence[EncodedEvent], results: _Results) -> Iterator[Entry]:
        for index, event in enumerate(events):
            try:
                yield self._mapper.entry(event, index)
            except PublishError as error:
                results[index] = error

    async def _work(self, calls: Iterator[list[Entry]], results: _Results, deadline: float) -> None:
        for call in calls:
            await self._send(call, results, deadline)

    async def _send(self, call: list[Entry], results: _Results, deadline: float) -> None:
        outcomes = await self._attempt(call, deadline)
        if isinstance(outcomes, EventRejectedError) and len(call) > 1:
            # The request was refused as a whole and nothing of it stored: one entry is to blame, not all.
            for entry in call:
                await self._send([entry], results, deadline)
            return
        for place, entry in enumerate(call):
            results[entry.index] = outcomes if isinstance(outcomes, PublishError) else outcomes[place]

    async def _attempt(
        self, call: list[Entry], deadline: float
    ) -> Sequence[Receipt | PublishError] | PublishError:
        """The entries' outcomes, or one error for the call as a whole."""
        sending = Sending()
        try:
            async with self._interruptible(deadline), self._slots:
                aws = self._aws
                if aws is None or self._denial is not None:
                    return self._refusal()
                if asyncio.get_running_loop().time() >= deadline:
                    return TransientError("not sent: the deadline passed before its turn")
                parameters = {"Entries": [entry.document for entry in call]}
                return read_answer(await aws.send("PutEvents", parameters, sending), len(call))
        except PublishError as error:
            return error
        except TimeoutError:
            why = "the deadline passed" if self._aws is not None else "the publisher was closed"
            if sending.begun:
                return UnknownOutcomeError(f"sent to EventBridge, but {why} before the answer came")
            return TransientError(f"not sent: {why}")

    def _refusal(self) -> PublishError:
        if self._denial is not None:
            return PlatformDeniedError(str(self._denial), code=self._denial.code)
        return _not_open()

    async def _find_bus(self, aws: AwsClient) -> None:
        name = self._config.event_bus_name
        try:
            await aws.call("DescribeEventBus", {"Name": name})
        except PlatformDeniedError as error:
            may_not_look = error.code in ("AccessDeniedException", "AccessDenied")
            if may_not_look and not self._config.verify_bus:
                self._denial = None
                return
            if may_not_look:
                remedy = "; a role that may not call events:DescribeEventBus needs verify_bus=False"
            elif error.code == "ResourceNotFoundException":
                remedy = "; check event_bus_name and aws_region"
            else:
                remedy = ""
            where = f"in region {self._config.aws_region}" if self._config.aws_region else "in the default region"
            self._denial = PlatformDeniedError(
                f"event bus {name!r} {where} cannot be used: {error}{remedy}", code=error.code
            )
            raise self._denial from error.__cause__
        self._denial = None

    @asynccontextmanager
    async def _interruptible(self, deadline: float | None) -> AsyncIterator[None]:
        """Raises `TimeoutError` at the deadline, and when the publisher is closed."""
        async with asyncio.timeout_at(deadline) as limit:
            self._running.add(limit)
            try:
                yield
            finally:
                self._running.discard(limit)
                if not self._running:
                    self._idle.set()


def _not_open() -> PublishError:
    return TransientError("the EventBridge publisher is not open: call open() first")


def _never_marked() -> PublishError:
    return UnknownOutcomeError("the event got no outcome", code="UnmarkedEntry")


def _load_aws() -> ModuleType:
    try:
        from oms_events._aws import session
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "oms_events":
            raise
        raise MissingExtraError("aws", needed_for="EventBridgePublisher") from error
    return session
