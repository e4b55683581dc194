"""One call that makes the OMS outbox's processor together with its router, as the earlier system had it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from oms_events.errors import ConfigurationError
from oms_events.instrumentation.hooks import Hook
from oms_events.oms.factory import create_oms_multi_platform_router
from oms_events.outbox.config import ProcessorConfig
from oms_events.outbox.outbox import Outbox
from oms_events.outbox.processor import OutboxProcessor
from oms_events.publishers.eventbridge.config import EventBridgeConfig
from oms_events.publishers.jetstream.config import JetStreamOptions
from oms_events.publishing import Publisher
from oms_events.routing.router import EventRouter

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


def create_oms_outbox_processor(
    outbox: Outbox,
    nats_client: Any = None,
    metrics: CollectorRegistry | Hook | None = None,
    eventbridge_config: EventBridgeConfig | Publisher | None = None,
    enable_multi_platform: bool = True,
    *,
    jetstream_options: JetStreamOptions | None = None,
    config: ProcessorConfig | None = None,
) -> OutboxProcessor:
    """Makes a processor with a router of its own, which it opens and closes with itself; no I/O until then.

    `outbox` is borrowed. `nats_client` is a connected nats-py client (borrowed), a `NatsConfig` or a publisher.
    `metrics` is a Prometheus registry, for which this makes one `PrometheusHook`, or a hook of your own. With
    both platforms the OMS's default rules hold; with one of them it gets every event. Without
    `enable_multi_platform` that one is NATS, whatever `eventbridge_config` says. Raises `ConfigurationError`, or
    `MissingExtraError`.
    """
    if not enable_multi_platform:
        if nats_client is None:
            problem = "field 'nats_client' is missing; give it, or set enable_multi_platform"
            raise ConfigurationError("create_oms_outbox_processor", [problem])
        eventbridge_config = None
    hooks = _hooks(metrics)
    router = create_oms_multi_platform_router(
        nats_client,
        eventbridge_config,
        # Rules that name a platform which is not there would keep their events pending for ever.
        add_default_rules=nats_client is not None and eventbridge_config is not None,
        jetstream_options=jetstream_options,
        hooks=hooks,
    )
    return _ProcessorWithRouter(outbox, router, config=config, hooks=hooks)


class _ProcessorWithRouter(OutboxProcessor):
    """A processor whose router is open exactly while it runs."""

    def __init__(
        self, outbox: Outbox, router: EventRouter, *, config: ProcessorConfig | None, hooks: Iterable[Hook]
    ) -> None:
        super().__init__(outbox, router, config=config, hooks=hooks)
        self._own_router = router

    async def __aenter__(self) -> Self:
        await self._own_router.__aenter__()
        return await super().__aenter__()

    async def stop(self, timeout: float | None = None) -> None:
        # The end of the context, of `run`, and of a start that fails come through here.
        try:
            await super().stop(timeout)
        finally:
            await self._own_router.close()


def _hooks(metrics: object) -> tuple[Hook, ...]:
    if metrics is None:
        return ()
    if callable(metrics):
        return (metrics,)
    if not (hasattr(metrics, "register") and hasattr(metrics, "collect")):
        problem = (
            f"metrics = a {type(metrics).__name__} is no CollectorRegistry or hook; give one of them, or None"
        )
        raise ConfigurationError("create_oms_outbox_processor", [problem])
    # Imported here, so that the extra is needed only by those who use it.
    from oms_events.instrumentation.prometheus import PrometheusHook

    return (PrometheusHook(metrics),)  # type: ignore[arg-type]  # told by what it has
