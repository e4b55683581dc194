"""One call that makes the OMS router: NATS first, EventBridge beside it, default rules, users' own platforms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from oms_events._nats.config import NatsConfig
from oms_events.errors import ConfigurationError
from oms_events.instrumentation.hooks import Hook
from oms_events.oms.rules import default_rules
from oms_events.publishers.eventbridge.config import EventBridgeConfig
from oms_events.publishers.jetstream.config import JetStreamOptions
from oms_events.publishing import Platform, Publisher
from oms_events.routing.config import RouterConfig
from oms_events.routing.router import EventRouter
from oms_events.routing.rules import RoutingRule


def create_oms_multi_platform_router(
    nats_publisher: Any = None,
    eventbridge_config: EventBridgeConfig | Publisher | None = None,
    add_default_rules: bool = True,
    *,
    jetstream_options: JetStreamOptions | None = None,
    publishers: Mapping[str, Publisher] | None = None,
    primary: str | None = None,
    rules: Iterable[RoutingRule] = (),
    config: RouterConfig | None = None,
    hooks: Iterable[Hook] = (),
) -> EventRouter:
    """Makes a router of the platforms that are given; it does no I/O until it is entered.

    `nats_publisher` is a connected nats-py client (borrowed, never closed), a `NatsConfig`, or a publisher;
    `jetstream_options` say how the first two publish. `eventbridge_config` is an `EventBridgeConfig` or a
    publisher, `publishers` the platforms of your own by name. The `primary`, for PRIMARY_ONLY and at the head
    of FAILOVER, is the first of them in that order unless named. `rules` stand beside the default rules, or
    alone without `add_default_rules`. Raises `ConfigurationError`, `RuleError`, or `MissingExtraError`.
    """
    platforms: dict[str, Publisher] = {}
    if nats_publisher is not None:
        platforms[Platform.NATS.value] = _nats(nats_publisher, jetstream_options)
    if eventbridge_config is not None:
        platforms[Platform.EVENTBRIDGE.value] = _eventbridge(eventbridge_config)
    for name, publisher in (publishers or {}).items():
        if name in platforms:
            raise ConfigurationError("create_oms_multi_platform_router", [f"platform {name!r} is given twice"])
        platforms[str(name)] = publisher
    all_rules = [*rules, *(default_rules() if add_default_rules else ())]
    return EventRouter(platforms, all_rules, primary=primary, config=config, hooks=hooks)


def _nats(client: Any, options: JetStreamOptions | None) -> Publisher:
    if isinstance(client, Publisher):
        if options is not None:
            raise ConfigurationError(
                "jetstream_options", ["is for a client or a NatsConfig; give the publisher its own"]
            )
        return client
    if not isinstance(client, NatsConfig) and not callable(getattr(client, "jetstream", None)):
        kind = type(client).__name__
        problem = f"a {kind} is no nats-py client, NatsConfig or Publisher; write NatsConfig(servers=...)"
        raise ConfigurationError("nats_publisher", [problem])
    # Imported here, so that the extra is needed only by those who use NATS.
    from oms_events.publishers.jetstream.publisher import JetStreamPublisher

    return JetStreamPublisher(client, options=options)


def _eventbridge(config: object) -> Publisher:
    if isinstance(config, Publisher):
        return config
    if not isinstance(config, EventBridgeConfig):
        problem = f"a {type(config).__name__} is no EventBridgeConfig or Publisher; write EventBridgeConfig(...)"
        raise ConfigurationError("eventbridge_config", [problem])
    from oms_events.publishers.eventbridge.publisher import EventBridgePublisher

    return EventBridgePublisher(config)
