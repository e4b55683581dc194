"""What a check compares with what is deployed: the objects that a service is started with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from oms_events._aws.config import AwsConfig
from oms_events._nats.config import NatsConfig
from oms_events.errors import ConfigurationError
from oms_events.idempotency.config import IdempotencyConfig
from oms_events.oms.rules import default_rules
from oms_events.outbox.config import OutboxConfig
from oms_events.publishers.eventbridge.config import EventBridgeConfig
from oms_events.publishers.jetstream.config import JetStreamOptions
from oms_events.publishing import Platform
from oms_events.routing.config import RouterConfig
from oms_events.routing.rules import RoutingRule


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedConfiguration:
    """The running configuration; what is None is not configured, and not looked at.

    `rules` and `router` are those of the router; its primary platform is NATS where there is one, unless
    `primary` names another. `outbox_stream` says that something reads the table's stream, such as the relay on
    Lambda. `aws` says with whose credentials, and where, AWS is looked at: without it with those that each
    configuration has itself, and at AWS's own endpoints (but for the bus and the tables, which say theirs).
    Raises `ConfigurationError` when there is nothing to check.
    """

    eventbridge: EventBridgeConfig | None = None
    nats: NatsConfig | None = None
    jetstream: JetStreamOptions = field(default_factory=JetStreamOptions)
    rules: Sequence[RoutingRule] = field(default_factory=default_rules)
    router: RouterConfig = field(default_factory=RouterConfig)
    primary: str | None = None
    outbox: OutboxConfig | None = None
    outbox_stream: bool = False
    idempotency: IdempotencyConfig | None = None
    aws: AwsConfig | None = None

    def __post_init__(self) -> None:
        if not self.platforms and self.outbox is None and self.idempotency is None:
            problem = "nothing is configured; give an EventBridgeConfig, a NatsConfig or a table's configuration"
            raise ConfigurationError("CheckedConfiguration", [problem])

    @property
    def platforms(self) -> tuple[str, ...]:
        """The configured platforms in the order in which the OMS's factory registers them."""
        configured = {Platform.NATS.value: self.nats, Platform.EVENTBRIDGE.value: self.eventbridge}
        return tuple(name for name, config in configured.items() if config is not None)
