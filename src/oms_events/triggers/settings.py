"""What a pipeline is made of on AWS, as one configuration, and the pipeline that it makes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, field_validator

from oms_events._aws.config import AwsConfig, TableName
from oms_events._aws.queue_urls import FifoUrl, QueueUrl
from oms_events.errors import ConfigurationError
from oms_events.instrumentation.hooks import Hook
from oms_events.triggers.config import TriggerConfig
from oms_events.triggers.reading.custom_events import DEFAULT_EVENTS
from oms_events.triggers.reading.event_table import EventReaders
from oms_events.triggers.start import Handler

if TYPE_CHECKING:
    from oms_events.idempotency.dynamodb import DynamoDBIdempotencyStore
    from oms_events.triggers.guards.breaker_dynamodb import DynamoDBBreakers
    from oms_events.triggers.guards.exclusion_dynamodb import DynamoDBLeases
    from oms_events.triggers.guards.rate_dynamodb import DynamoDBRateLimiter
    from oms_events.triggers.pipeline import TriggerPipeline
    from oms_events.triggers.rules import BusinessRule
    from oms_events.triggers.sending.bus import BusSender
    from oms_events.triggers.sending.chunk_sender import ChunkSender
    from oms_events.triggers.sending.dead_letters import SqsDeadLetters
    from oms_events.triggers.sending.delay import SqsDelayQueue
    from oms_events.triggers.sending.sqs import QueueConfig
    from oms_events.triggers.symbols import ParameterStoreSymbols, SymbolSource

Service = Literal["dynamodb", "sqs", "ssm", "events", "lambda"]

_PARAMETER: Final = re.compile(r"/?[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")


def _check_parameter(name: str) -> str:
    if _PARAMETER.fullmatch(name) is None:
        raise ValueError("give the parameter's name, such as /prod/ingestion/symbols")
    return name


class TriggerSettings(AwsConfig):
    """A pipeline's queues, tables and habits, all in one region. It goes without the guard that has no table."""

    config: TriggerConfig = TriggerConfig()
    """How starts are completed, checked and guarded."""
    queue_url: QueueUrl | None = None
    """The queue that chunks are sent to; without it a pipeline needs a handler of yours."""
    delay_queue_url: FifoUrl | None = None
    """The FIFO queue of starts that came too fast; without it they are answered with 429."""
    dead_letter_queue_url: QueueUrl | None = None
    """The queue of dead letters; without it nothing is kept of starts that can never go well."""
    idempotency_table: TableName | None = None
    """Which starts have been; without it one that is delivered twice runs twice."""
    breaker_table: TableName | None = None
    """Breakers, and the leases of exclusive starts; without it there are none."""
    rate_table: TableName | None = None
    """What quotas count; without it there are none."""
    symbols_parameter: Annotated[str, AfterValidator(_check_parameter)] | None = None
    """The parameter of Systems Manager that symbols are loaded from; without it, those of the defaults."""
    event_bus_name: str | None = Field(default=None, min_length=1)
    """The event bus, by name or ARN, for starts that go on as events; see `create_bus_sender`."""
    verify_tables: bool = True
    """Whether the first start looks at the tables' keys; needs `dynamodb:DescribeTable`."""
    endpoint_urls: Mapping[Service, str] = Field(default_factory=dict)
    """Other endpoints of single services, such as VPC endpoints; the others have `endpoint_url`."""

    @field_validator("endpoint_urls")
    @classmethod
    def _check_endpoints(cls, urls: Mapping[Service, str]) -> Mapping[Service, str]:
        for url in urls.values():
            AwsConfig(endpoint_url=url)
        return urls

    def aws(self, service: Service) -> dict[str, Any]:
        """The fields of an `AwsConfig` for a service."""
        fields = {name: getattr(self, name) for name in AwsConfig.model_fields}
        return {**fields, "endpoint_url": self.endpoint_urls.get(service, self.endpoint_url)}

    def queue(self, url: str) -> QueueConfig:
        """How the queue at a URL is reached."""
        from oms_events.triggers.sending.sqs import QueueConfig

        return QueueConfig(**self.aws("sqs"), queue_url=url)

    def create_pipeline(
        self,
        handler: Handler | None = None,
        *,
        symbols: SymbolSource | None = None,
        rules: Sequence[BusinessRule] = (),
        events: EventReaders = DEFAULT_EVENTS,
        hooks: Iterable[Hook] = (),
    ) -> TriggerPipeline:
        """The pipeline, not yet open; without a `handler` symbols go to the queue in chunks.

        `symbols` loads those of a start that names none, in place of the parameter. Does no I/O. Raises
        `ConfigurationError` when there is neither a handler nor a queue.
        """
        # Imported here, and so below, so that settings cost nothing to those who have none of triggers.
        from oms_events.triggers.pipeline import TriggerPipeline

        hooks = tuple(hooks)
        return TriggerPipeline(
            handler or self.create_chunk_sender(hooks=hooks),
            config=self.config,
            idempotency=self.create_idempotency_store(),
            breaker=self.create_breakers(hooks=hooks),
            rate=self.create_rate_limiter(hooks=hooks),
            leases=self.create_leases(),
            symbols=symbols or self.create_symbols(),
            rules=rules,
            events=events,
            delay=self.create_delay_queue(),
            dead_letters=self.create_dead_letters(),
            hooks=hooks,
        )

    def create_chunk_sender(self, *, hooks: Iterable[Hook] = ()) -> ChunkSender:
        """The handler that sends symbols to the queue in chunks. Raises `ConfigurationError` without a queue."""
        if self.queue_url is None:
            problem = "queue_url is missing: give the queue that chunks go to, or a handler of yours"
            raise ConfigurationError(type(self).__name__, [problem])
        from oms_events.triggers.sending.chunk_sender import ChunkSender

        return ChunkSender(self.queue(self.queue_url), hooks=hooks)

    def create_bus_sender(self, *, hooks: Iterable[Hook] = (), **options: Any) -> BusSender:
        """The handler that publishes chunks to the event bus; `options` are those of `BusSender`.

        Raises `ConfigurationError` without a bus.
        """
        if self.event_bus_name is None:
            problem = "event_bus_name is missing: give the bus that starts go on to as events"
            raise ConfigurationError(type(self).__name__, [problem])
        from oms_events.publishers.eventbridge.config import EventBridgeConfig
        from oms_events.triggers.sending.bus import BusSender

        bus = EventBridgeConfig(**self.aws("events"), event_bus_name=self.event_bus_name)
        return BusSender(bus, hooks=hooks, **options)

    def create_delay_queue(self) -> SqsDelayQueue | None:
        """The queue of starts that came too fast; None where there is none."""
        if self.delay_queue_url is None:
            return None
        from oms_events.triggers.sending.delay import SqsDelayQueue

        return SqsDelayQueue(self.queue(self.delay_queue_url))

    def create_dead_letters(self) -> SqsDeadLetters | None:
        """Where dead letters go; None where there is no queue for them."""
        if self.dead_letter_queue_url is None:
            return None
        from oms_events.triggers.sending.dead_letters import SqsDeadLetters

        return SqsDeadLetters(self.queue(self.dead_letter_queue_url))

    def create_symbols(self) -> ParameterStoreSymbols | None:
        """What loads symbols from the parameter; None where there is none."""
        if self.symbols_parameter is None:
            return None
        from oms_events.triggers.symbols import ParameterStoreSymbols

        return ParameterStoreSymbols(self.symbols_parameter, AwsConfig(**self.aws("ssm")))

    def create_idempotency_store(self) -> DynamoDBIdempotencyStore | None:
        """Which starts have been; None where there is no table."""
        if self.idempotency_table is None:
            return None
        from oms_events.idempotency.config import IdempotencyConfig
        from oms_events.idempotency.dynamodb import DynamoDBIdempotencyStore

        return DynamoDBIdempotencyStore(IdempotencyConfig(**self._table(self.idempotency_table)))

    def create_breakers(self, *, hooks: Iterable[Hook] = ()) -> DynamoDBBreakers | None:
        """The breakers; None where there is no table."""
        if self.breaker_table is None:
            return None
        from oms_events.triggers.guards.breaker_dynamodb import DynamoDBBreakers
        from oms_events.triggers.guards.config import GuardTableConfig

        table = GuardTableConfig(**self._table(self.breaker_table))
        return DynamoDBBreakers(table, self.config.breaker, hooks=hooks)

    def create_leases(self) -> DynamoDBLeases | None:
        """The leases of exclusive starts, in the table of the breakers; None where there is none."""
        if self.breaker_table is None:
            return None
        from oms_events.triggers.guards.config import GuardTableConfig
        from oms_events.triggers.guards.exclusion_dynamodb import DynamoDBLeases

        return DynamoDBLeases(GuardTableConfig(**self._table(self.breaker_table)))

    def create_rate_limiter(self, *, hooks: Iterable[Hook] = ()) -> DynamoDBRateLimiter | None:
        """What counts starts; None where there is no table."""
        if self.rate_table is None:
            return None
        from oms_events.triggers.guards.config import GuardTableConfig
        from oms_events.triggers.guards.rate_dynamodb import DynamoDBRateLimiter

        return DynamoDBRateLimiter(GuardTableConfig(**self._table(self.rate_table)), hooks=hooks)

    def _table(self, name: str) -> dict[str, Any]:
        return {**self.aws("dynamodb"), "table_name": name, "verify_table": self.verify_tables}
