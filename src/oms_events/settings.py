"""The configuration of a router, an outbox, an event store and triggers, from the environment and one file.

Only main modules read settings; everything below takes the objects. A TOML or YAML file has these parts, all
optional:

    add_default_rules = true            # whether the OMS's default rules stand beside `rules`

    [nats]                              # NatsConfig
    servers = ["nats://nats-1:4222", "nats://nats-2:4222"]

    [jetstream]                         # JetStreamOptions
    stream = "OMS"

    [eventbridge]                       # EventBridgeConfig
    event_bus_name = "oms-events"
    aws_region = "eu-central-1"

    [router]                            # RouterConfig
    timeout = 20.0

    [outbox]                            # OutboxConfig
    table_name = "orders-outbox"

    [processor]                         # ProcessorConfig
    after_dead_letter = "hold"

    [event_store]                       # EventStoreConfig
    table_name = "event-store"

    [snapshots]                         # SnapshotConfig
    table_name = "snapshots"

    [projections]                       # ProjectionTables
    read_model_table = "read-model"
    checkpoint_table = "checkpoints"

    [personal_keys]                     # PersonalKeysConfig
    table_name = "personal-keys"

    [triggers]                          # TriggerSettings
    queue_url = "https://sqs.eu-central-1.amazonaws.com/111122223333/prod-ingestion-chunks"

    [triggers.config]                   # TriggerConfig
    environment = "prod"

    [[rules]]                           # RoutingRule
    event_type_pattern = '.*\\.schema\\..*'
    platforms = ["eventbridge"]
    strategy = "conditional"
    conditions = { branch = "production" }

The environment variables are those of `oms_events.oms.environment` and, with `OMS_TRIGGERS_` before them, of
`oms_events.triggers.environment`; where both say something, the environment holds: each variable takes the place
of one value, `OMS_RULES_FILE` that of all rules.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from pydantic import StrictBool

from oms_events._config import ConfigModel, make_config
from oms_events._nats.config import NatsConfig
from oms_events.errors import ConfigurationError
from oms_events.eventstore.config import EventStoreConfig, PersonalKeysConfig, ProjectionTables, SnapshotConfig
from oms_events.eventstore.personal.cipher import FieldCipher
from oms_events.eventstore.registry import EventRegistry, default_registry
from oms_events.instrumentation.hooks import Hook
from oms_events.oms.environment import (
    event_store_config,
    eventbridge_config,
    nats_config,
    outbox_config,
    personal_keys_config,
    projection_tables,
    rules_of_environment,
    snapshot_config,
)
from oms_events.oms.factory import create_oms_multi_platform_router
from oms_events.outbox.config import OutboxConfig, ProcessorConfig
from oms_events.publishers.eventbridge.config import EventBridgeConfig
from oms_events.publishers.jetstream.config import JetStreamOptions
from oms_events.publishing import Publisher
from oms_events.routing.config import RouterConfig
from oms_events.routing.router import EventRouter
from oms_events.routing.rulefile import read_document, read_rules
from oms_events.routing.rules import RoutingRule
from oms_events.triggers.environment import trigger_settings
from oms_events.triggers.reading.custom_events import DEFAULT_EVENTS
from oms_events.triggers.reading.event_table import EventReaders
from oms_events.triggers.settings import TriggerSettings
from oms_events.triggers.start import Handler

if TYPE_CHECKING:
    from oms_events.eventstore.aggregates.dynamodb import DynamoDBSnapshotStore
    from oms_events.eventstore.dynamodb import DynamoDBEventStore
    from oms_events.eventstore.personal.dynamodb import DynamoDBSubjectKeys
    from oms_events.eventstore.personal.keys import KeyWrapper
    from oms_events.eventstore.projections.dynamodb import DynamoDBReadModels
    from oms_events.outbox.outbox import DynamoDBOutbox, Outbox
    from oms_events.triggers.pipeline import TriggerPipeline
    from oms_events.triggers.rules import BusinessRule
    from oms_events.triggers.symbols import SymbolSource

_Config = TypeVar("_Config", bound=ConfigModel)

_SECTIONS: Final = (
    "nats", "jetstream", "eventbridge", "router", "outbox", "processor", "event_store", "snapshots", "projections",
    "personal_keys", "triggers",
)  # fmt: skip


class Settings(ConfigModel):
    """A router's platforms, rules and habits, the outbox, the event store, and what triggers are made of.

    What is None is not configured.
    """

    nats: NatsConfig | None = None
    jetstream: JetStreamOptions = JetStreamOptions()
    eventbridge: EventBridgeConfig | None = None
    rules: tuple[RoutingRule, ...] = ()
    add_default_rules: StrictBool = True
    router: RouterConfig = RouterConfig()
    outbox: OutboxConfig | None = None
    processor: ProcessorConfig = ProcessorConfig()
    event_store: EventStoreConfig | None = None
    snapshots: SnapshotConfig | None = None
    projections: ProjectionTables | None = None
    personal_keys: PersonalKeysConfig | None = None
    triggers: TriggerSettings | None = None

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Self:
        """What the environment says. Blocks on the disk when it names a rules file.

        Raises `ConfigurationError` with all problems, each naming variable, value and remedy, never a secret.
        """
        return cls._read({}, env, subject="environment")

    @classmethod
    def from_file(cls, path: str | Path, *, env: Mapping[str, str] = os.environ) -> Self:
        """What a `.toml`, `.yaml` or `.yml` file and, over it, the environment say. Blocks on the disk.

        Raises `ConfigurationError` with all problems of file and environment, `MissingExtraError` for YAML
        without the extra `yaml`.
        """
        return cls._read(read_document(path), env, subject=str(path))

    def create_router(
        self, *, publishers: Mapping[str, Publisher] | None = None, hooks: Iterable[Hook] = ()
    ) -> EventRouter:
        """The router, not yet open; `publishers` are platforms of your own beside those configured."""
        return create_oms_multi_platform_router(
            self._nats_publisher(),
            self.eventbridge,
            self.add_default_rules,
            publishers=publishers,
            rules=self.rules,
            config=self.router,
            hooks=hooks,
        )

    def create_outbox(self) -> DynamoDBOutbox:
        """The outbox, not yet open. Raises `ConfigurationError` when none is configured."""
        config = _wanted(self.outbox, "outbox", "OMS_OUTBOX_TABLE", "outbox")
        # Imported here, so that the extra is needed only by those who use DynamoDB.
        from oms_events.outbox.outbox import DynamoDBOutbox

        return DynamoDBOutbox(config)

    def create_event_store(
        self,
        *,
        outbox: Outbox | None = None,
        registry: EventRegistry = default_registry,
        cipher: FieldCipher | None = None,
    ) -> DynamoDBEventStore:
        """The event store, not yet open; with an `outbox`, appends put their events there too.

        Raises `ConfigurationError` when none is configured.
        """
        config = _wanted(self.event_store, "event store", "OMS_EVENT_STORE_TABLE", "event_store")
        # Imported here, and so below, so that the extra is needed only by those who use DynamoDB.
        from oms_events.eventstore.dynamodb import DynamoDBEventStore

        return DynamoDBEventStore(config, outbox=outbox, registry=registry, cipher=cipher)

    def create_snapshot_store(self) -> DynamoDBSnapshotStore:
        """The snapshots, not yet open. Raises `ConfigurationError` when none are configured."""
        config = _wanted(self.snapshots, "table of snapshots", "OMS_SNAPSHOT_TABLE", "snapshots")
        from oms_events.eventstore.aggregates.dynamodb import DynamoDBSnapshotStore

        return DynamoDBSnapshotStore(config)

    def create_read_models(self) -> DynamoDBReadModels:
        """The read models, not yet open. Raises `ConfigurationError` when none are configured."""
        variables = "OMS_READ_MODEL_TABLE and OMS_CHECKPOINT_TABLE"
        config = _wanted(self.projections, "table of read models", variables, "projections")
        from oms_events.eventstore.projections.dynamodb import DynamoDBReadModels

        return DynamoDBReadModels(config)

    def create_personal_keys(self, *, wrapper: KeyWrapper | None = None) -> DynamoDBSubjectKeys:
        """The keys of personal data, not yet open; see `DynamoDBSubjectKeys` for `wrapper`.

        Raises `ConfigurationError` when none are configured.
        """
        config = _wanted(self.personal_keys, "table of personal keys", "OMS_PERSONAL_KEYS_TABLE", "personal_keys")
        from oms_events.eventstore.personal.dynamodb import DynamoDBSubjectKeys

        return DynamoDBSubjectKeys(config, wrapper=wrapper)

    def create_trigger_pipeline(
        self,
        handler: Handler | None = None,
        *,
        symbols: SymbolSource | None = None,
        rules: Sequence[BusinessRule] = (),
        events: EventReaders = DEFAULT_EVENTS,
        hooks: Iterable[Hook] = (),
    ) -> TriggerPipeline:
        """The pipeline of starts, not yet open; see `TriggerSettings.create_pipeline`.

        Raises `ConfigurationError` when no triggers are configured, or neither a handler nor a queue.
        """
        config = _wanted(self.triggers, "pipeline of triggers", "OMS_TRIGGERS_QUEUE_URL", "triggers")
        return config.create_pipeline(handler, symbols=symbols, rules=rules, events=events, hooks=hooks)

    def _nats_publisher(self) -> Publisher | None:
        if self.nats is None:
            return None
        # Imported here, so that the extra is needed only by those who use NATS.
        from oms_events.publishers.jetstream.publisher import JetStreamPublisher

        return JetStreamPublisher(self.nats, options=self.jetstream)

    @classmethod
    def _read(cls, document: object, env: Mapping[str, str], *, subject: str) -> Self:
        problems: list[str] = []
        rest = _section(document, "the file", problems) or {}
        tables = {name: _section(rest.pop(name), name, problems) for name in _SECTIONS if name in rest}
        # Options for JetStream mean that NATS is wanted, be it at its default address.
        nats_table = tables.get("nats", {} if "jetstream" in tables else None)
        values: dict[str, Any] = {
            "nats": nats_config(env, nats_table, problems),
            "jetstream": make_config(JetStreamOptions, "jetstream", tables.get("jetstream") or {}, problems),
            "eventbridge": eventbridge_config(env, tables.get("eventbridge"), problems),
            "router": make_config(RouterConfig, "router", tables.get("router") or {}, problems),
            "outbox": outbox_config(env, tables.get("outbox"), problems),
            "processor": make_config(ProcessorConfig, "processor", tables.get("processor") or {}, problems),
            "event_store": event_store_config(env, tables.get("event_store"), problems),
            "snapshots": snapshot_config(env, tables.get("snapshots"), problems),
            "projections": projection_tables(env, tables.get("projections"), problems),
            "personal_keys": personal_keys_config(env, tables.get("personal_keys"), problems),
            "triggers": trigger_settings(env, tables.get("triggers"), problems),
            "rules": _rules(rest.pop("rules", []), env, problems),
        }
        try:
            settings = cls(**rest, **{name: value for name, value in values.items() if value is not None})
        except ConfigurationError as error:
            raise ConfigurationError(subject, [*problems, *error.problems]) from None
        if problems:
            raise ConfigurationError(subject, problems)
        return settings


def _wanted(config: _Config | None, what: str, variables: str, section: str) -> _Config:
    if config is None:
        problem = f"no {what} is configured; set {variables}, or give the file a part [{section}]"
        raise ConfigurationError("settings", [problem])
    return config


def _section(value: object, name: str, problems: list[str]) -> dict[str, Any] | None:
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return dict(value)
    problems.append(f"{name} is {type(value).__name__}; write its fields by name")
    return None


def _rules(items: object, env: Mapping[str, str], problems: list[str]) -> list[RoutingRule] | None:
    rules = rules_of_environment(env, problems)
    if rules is not None:
        return rules
    try:
        return read_rules(items)
    except ConfigurationError as error:
        problems.extend(error.problems)
        return None
