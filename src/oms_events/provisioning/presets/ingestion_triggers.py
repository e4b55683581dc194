"""The preset `ingestion-triggers`: schedules, events and new objects that start one guarded function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal

from pydantic import Field

from oms_events.errors import ConfigurationError, SpecError
from oms_events.provisioning.presets.base import Preset
from oms_events.provisioning.presets.handlers import code_options
from oms_events.provisioning.presets.ingestion_triggers_parts import (
    FUNCTION,
    make_guards,
    make_queues,
    orchestrator_role,
    variables,
)
from oms_events.provisioning.presets.ingestion_triggers_rules import (
    EVENT_PATTERNS,
    MULTI_SOURCE_PATTERN,
    SCHEDULES,
    SOURCES,
    object_pattern,
    schedule_input,
    scheduled_request,
)
from oms_events.provisioning.presets.ingestion_triggers_watching import make_alarms, make_dashboard
from oms_events.provisioning.specs.base import Arn
from oms_events.provisioning.specs.buckets import BucketSpec
from oms_events.provisioning.specs.buses import EventBusSpec
from oms_events.provisioning.specs.functions import CodeSpec, FunctionSpec
from oms_events.provisioning.specs.mappings import StreamSourceSpec
from oms_events.provisioning.specs.permissions import StatementSpec
from oms_events.provisioning.specs.rules import DEFAULT_BUS, RuleSpec
from oms_events.provisioning.specs.stack import StackSpec
from oms_events.provisioning.specs.targets import TargetSpec
from oms_events.triggers.request import DEFAULT_SYMBOLS, TriggerRequest

CUSTOM_BUS: Final = "custom-ingestion-bus"

SEND_BATCH: Final = 10
"""Messages that SQS takes in one call."""


class IngestionTriggersPreset(Preset):
    """One function that ingestions start with, and what starts it, limits it, and takes what it sends on.

    Names begin with the environment. IAM's names are the account's, not the Region's: one account takes an
    environment once. Without `code` the function is made and refuses every start; what comes meanwhile goes to the
    dead-letter queue.
    """

    environment: Literal["dev", "staging", "prod"] = "dev"

    code: CodeSpec | None = None
    """Where the function's code is; a function without code when absent."""
    handler: str | None = None
    """`module.function`; `orchestrator.handler` when absent, `index.handler` of inline code."""
    runtime: str = "python3.13"
    lambda_timeout: int = Field(default=60, ge=1, le=900)
    """Seconds."""
    lambda_memory_size: int = Field(default=256, ge=128, le=10_240)
    """MB."""
    reserved_concurrency: int | None = Field(default=None, ge=1)
    """How many starts run at a time; 1 never lets two overlap. The account's free ones when absent."""
    enable_xray_tracing: bool = False
    statements: tuple[StatementSpec, ...] = ()
    """What the function may do besides, such as reading its upstream's credentials."""

    schedule: str | None = None
    """`cron(...)` or `rate(...)` in UTC; each day at 22:00 (dev), 21:00 (staging) and 20:00 (prod) when absent."""
    schedule_enabled: bool = True
    data_source: str = "yahoo_finance"
    data_type: str = "prices"
    domain: str = "market"
    table_name: str = "prices"
    symbols: tuple[str, ...] | None = None
    """Empty: the function loads them. AAPL, MSFT and GOOGL in dev, and empty elsewhere, when absent."""
    period: str = "1mo"
    interval: str = "1d"
    file_format: str = "json"
    symbols_parameter: str | None = Field(default=None, pattern=r"^/?[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$")
    """The parameter of Systems Manager that the function loads symbols from."""

    multi_source_rule: bool = False
    """One rule for all events of transform.pipeline, symbol.universe and ops.manual, instead of four."""
    enable_custom_bus: bool = False
    """Whether events come over the bus `custom-ingestion-bus`, instead of the account's default bus."""
    allowed_accounts: tuple[str, ...] = ()
    """Other accounts that may put events of the four sources on that bus."""
    publish_to_custom_bus: bool = False
    """Whether the function may put events on that bus too, and is told its name."""

    create_bucket: bool = True
    bucket_name: str | None = None
    """`<environment>-ingestion-<account>-<region>` when absent; with `create_bucket = false` one that is there."""
    object_prefix: str = "market/prices/"
    object_suffix: str = ".json"

    chunk_size: int = Field(default=5, ge=1, le=100)
    """Symbols of a chunk."""
    chunk_visibility_timeout: int = Field(default=900, ge=0, le=43_200)
    """Seconds that a received chunk is hidden; for a worker on Lambda at least six times its timeout."""
    delay_seconds: int = Field(default=60, ge=0, le=900)
    """How long starts wait that came too fast."""

    enable_cloudwatch_alarms: bool = True
    enable_dashboard: bool = True
    alarm_topic_arn: Arn | None = None
    """A topic of yours that is told of alarms and of their end; its policy, and its key's, must let CloudWatch use
    it."""
    enable_deletion_protection: bool = False
    """Whether the tables refuse to be deleted."""

    @property
    def function_name(self) -> str:
        return f"{self.environment}-customer-data-orchestrator"

    @property
    def schedule_name(self) -> str:
        return f"{self.environment}-customer-ingestion-schedule"

    def stack(self) -> StackSpec:
        queues = make_queues(
            self.environment,
            timeout=self.lambda_timeout,
            delay=self.delay_seconds,
            chunk_visibility=self.chunk_visibility_timeout,
        )
        guards = make_guards(self.environment, deletion_protection=self.enable_deletion_protection)
        bus = self._bus()
        published_to = bus if self.publish_to_custom_bus else None
        role = orchestrator_role(
            self.function_name,
            queues,
            guards,
            published_to,
            symbols_parameter=self.symbols_parameter,
            tracing=self.enable_xray_tracing,
            more=self.statements,
        )
        function = FunctionSpec(
            name=self.function_name,
            key=FUNCTION,
            description="Turns triggers into guarded ingestion requests",
            **code_options(self.code, handler=self.handler, default="orchestrator.handler", runtime=self.runtime),
            role=role.arn,
            timeout=self.lambda_timeout,
            memory=self.lambda_memory_size,
            reserved_concurrency=self.reserved_concurrency,
            tracing=self.enable_xray_tracing,
            environment={**variables(self.environment, queues, guards, published_to), **self._settings()},
            dead_letter=queues.dead_letters.arn,
            sources=(StreamSourceSpec(source=queues.delay.arn, batch_size=1),),
        )
        schedule = self._schedule(function, queues.dead_letters.arn)
        events = tuple(self._event_rules(function, queues.dead_letters.arn, bus))
        bucket = self._bucket_spec() if self.create_bucket else None
        rules = (schedule, *events)
        dashboard = make_dashboard(
            f"{self.environment}-ingestion-triggers",
            schedule=schedule,
            events=events,
            function=self.function_name,
            queues=queues,
        )
        return StackSpec(
            name=f"{self.environment}-ingestion-triggers",
            description=f"What starts ingestions, {self.environment}",
            tags={"Environment": self.environment},
            roles=(role,),
            queues=queues.all,
            buckets=() if bucket is None else (bucket,),
            tables=guards.all,
            functions=(function,),
            buses=() if bus is None else (bus,),
            rules=rules,
            alarms=tuple(make_alarms(rules, queues, self.alarm_topic_arn))
            if self.enable_cloudwatch_alarms
            else (),
            dashboards=(dashboard,) if self.enable_dashboard else (),
            outputs={
                "function_name": function.reference("name"),
                "function_arn": function.arn,
                "schedule_rule_name": schedule.name,
                "rule_names": {rule.key: rule.name for rule in rules},
                "rule_arns": {rule.key: rule.arn for rule in rules},
                "bucket_name": self._bucket if bucket is None else bucket.reference("name"),
                "event_bus_name": None if bus is None else bus.reference("name"),
                "event_bus_arn": None if bus is None else bus.arn,
                "queue_urls": {queue.key: queue.reference("url") for queue in queues.all},
                "table_names": {table.key: table.reference("name") for table in guards.all},
                "dashboard_name": dashboard.reference("name") if self.enable_dashboard else None,
            },
        )

    def _schedule(self, function: FunctionSpec, dead_letters: Arn) -> RuleSpec:
        target = TargetSpec(
            id=FUNCTION,
            arn=function.arn,
            dead_letter=dead_letters,
            input_transformer=schedule_input(self._request()),
        )
        return RuleSpec(
            name=self.schedule_name,
            key="schedule",
            description="The daily ingestion",
            schedule=self.schedule or SCHEDULES[self.environment],
            enabled=self.schedule_enabled,
            targets=(target,),
        )

    def _event_rules(
        self, function: FunctionSpec, dead_letters: Arn, bus: EventBusSpec | None
    ) -> Iterator[RuleSpec]:
        target = TargetSpec(id=FUNCTION, arn=function.arn, dead_letter=dead_letters)
        of_sources = {"multi-source": MULTI_SOURCE_PATTERN} if self.multi_source_rule else EVENT_PATTERNS
        for part, pattern in of_sources.items():
            yield RuleSpec(
                name=f"{self.environment}-ingestion-{part}",
                key=part,
                description="Events that start an ingestion",
                bus=DEFAULT_BUS if bus is None else bus.reference("name"),
                pattern=pattern,
                targets=(target,),
            )
        # S3 sends to the account's default bus, and to no other.
        yield RuleSpec(
            name=f"{self.environment}-ingestion-objects",
            key="objects",
            description="New objects that start an ingestion",
            pattern=object_pattern(self._bucket, self.object_prefix, self.object_suffix),
            targets=(target,),
        )

    def _request(self) -> TriggerRequest:
        of_environment = DEFAULT_SYMBOLS if self.environment == "dev" else ()
        return scheduled_request(
            self.schedule_name,
            data_source=self.data_source,
            data_type=self.data_type,
            domain=self.domain,
            table_name=self.table_name,
            symbols=of_environment if self.symbols is None else self.symbols,
            period=self.period,
            interval=self.interval,
            file_format=self.file_format,
        )

    def _settings(self) -> Mapping[str, str]:
        settings = {"CHUNK_SIZE": str(self.chunk_size), "SQS_SEND_BATCH_SIZE": str(SEND_BATCH)}
        if self.symbols_parameter is not None:
            settings["SYMBOLS_SSM_PARAM"] = self.symbols_parameter
        return settings

    @property
    def _bucket(self) -> str:
        return self.bucket_name or f"{self.environment}-ingestion-${{AWS::AccountId}}-${{AWS::Region}}"

    def _bucket_spec(self) -> BucketSpec:
        return BucketSpec(name=self._bucket, key="objects", eventbridge=True)

    def _bus(self) -> EventBusSpec | None:
        if not self.enable_custom_bus:
            return None
        return EventBusSpec(
            name=CUSTOM_BUS,
            description="Events that start ingestions",
            allowed_accounts=self.allowed_accounts,
            allowed_sources=SOURCES if self.allowed_accounts else (),
        )

    def _problems_together(self) -> Iterator[str]:
        try:
            self._request()
        except ConfigurationError as error:
            yield from error.problems
        if self.allowed_accounts and not self.enable_custom_bus:
            yield (
                f"allowed_accounts = {', '.join(self.allowed_accounts)}: other accounts get the custom bus, never "
                "the default one; set enable_custom_bus = true, or leave them out"
            )
        if self.publish_to_custom_bus and not self.enable_custom_bus:
            yield "publish_to_custom_bus needs enable_custom_bus = true: it is for that bus"
        try:
            self._bucket_spec()
        except SpecError as error:
            yield from (f"bucket_{problem}" for problem in error.problems)
        if not self.create_bucket and self.bucket_name is None:
            yield "bucket_name is missing: with create_bucket = false, name the bucket that is there"
