"""The environment variables of a pipeline, and the pipeline that the preset's function is.

| variable | means |
|---|---|
| `ENVIRONMENT` | `dev`, `staging` or `prod` |
| `QUEUE_URL` | the queue that chunks are sent to |
| `DELAY_QUEUE_URL` | the FIFO queue of starts that came too fast |
| `DEAD_LETTER_QUEUE_URL` | the queue of dead letters |
| `IDEMPOTENCY_TABLE` | which starts have been |
| `BREAKER_TABLE` | breakers and leases |
| `RATE_TABLE` | what quotas count |
| `CHUNK_SIZE` | symbols of a chunk |
| `SQS_SEND_BATCH_SIZE` | messages of a call to SQS |
| `SYMBOLS_SSM_PARAM` | the parameter that symbols are loaded from |
| `EVENT_BUS_NAME` | the event bus for starts that go on as events |
| `AWS_REGION`, else `AWS_DEFAULT_REGION` | the region of all of them |
| `AWS_ENDPOINT_URL_SQS`, `_DYNAMODB`, `_SSM`, `_EVENTBRIDGE`, `_LAMBDA`, else `AWS_ENDPOINT_URL` | an endpoint |

These are the names that the preset `ingestion-triggers` gives its function. Settings for everything else
(`oms_events.settings`) read the same variables under `OMS_TRIGGERS_...`, but for AWS's own. An empty variable
counts as not set.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Self, get_args

from oms_events._aws.config import TableName
from oms_events._aws.queue_urls import FifoUrl, QueueUrl
from oms_events._config import make_config, set_variables
from oms_events.errors import ConfigurationError
from oms_events.instrumentation.hooks import Hook
from oms_events.triggers.config import Environment, RunOptions, TriggerConfig
from oms_events.triggers.reading.custom_events import DEFAULT_EVENTS
from oms_events.triggers.reading.event_table import EventReaders
from oms_events.triggers.settings import TriggerSettings
from oms_events.triggers.start import Handler

if TYPE_CHECKING:
    from oms_events.triggers.pipeline import TriggerPipeline
    from oms_events.triggers.rules import BusinessRule

PREFIX: Final = "OMS_TRIGGERS_"

_PARTS: Final = {
    "queue_url": "QUEUE_URL",
    "delay_queue_url": "DELAY_QUEUE_URL",
    "dead_letter_queue_url": "DEAD_LETTER_QUEUE_URL",
    "idempotency_table": "IDEMPOTENCY_TABLE",
    "breaker_table": "BREAKER_TABLE",
    "rate_table": "RATE_TABLE",
    "symbols_parameter": "SYMBOLS_SSM_PARAM",
    "event_bus_name": "EVENT_BUS_NAME",
}
_OPTIONS: Final = {"chunk_size": "CHUNK_SIZE", "sqs_send_batch_size": "SQS_SEND_BATCH_SIZE"}
_ENVIRONMENT: Final = "ENVIRONMENT"
_AWS: Final = {"aws_region": ("AWS_REGION", "AWS_DEFAULT_REGION"), "endpoint_url": ("AWS_ENDPOINT_URL",)}
_ENDPOINTS: Final = {
    "dynamodb": ("AWS_ENDPOINT_URL_DYNAMODB",),
    "sqs": ("AWS_ENDPOINT_URL_SQS",),
    "ssm": ("AWS_ENDPOINT_URL_SSM",),
    "events": ("AWS_ENDPOINT_URL_EVENTBRIDGE",),
    "lambda": ("AWS_ENDPOINT_URL_LAMBDA",),
}

_NEEDED: Final = {
    _ENVIRONMENT: "dev, staging or prod",
    "QUEUE_URL": "the URL of the queue that chunks go to",
    "DELAY_QUEUE_URL": "the URL of the FIFO queue of starts that came too fast",
    "DEAD_LETTER_QUEUE_URL": "the URL of the queue of dead letters",
    "IDEMPOTENCY_TABLE": "the name of the table of starts",
    "BREAKER_TABLE": "the name of the table of breakers",
    "RATE_TABLE": "the name of the table of quotas",
}


class IngestionEnvironment(TriggerSettings):
    """What the preset `ingestion-triggers` tells its function."""

    queue_url: QueueUrl
    """The queue that chunks are sent to."""
    delay_queue_url: FifoUrl
    """The FIFO queue of starts that came too fast."""
    dead_letter_queue_url: QueueUrl
    """The queue of dead letters."""
    idempotency_table: TableName
    """Which starts have been."""
    breaker_table: TableName
    """Breakers and leases."""
    rate_table: TableName
    """What quotas count."""

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Self:
        """What the variables say. Does no I/O.

        Raises `ConfigurationError` with all problems, each naming variable, value and remedy.
        """
        problems = [
            f"{name} is not set; set it to {meaning}, as the preset ingestion-triggers does"
            for name, meaning in _NEEDED.items()
            if not env.get(name)
        ]
        if not any(env.get(name) for name in _AWS["aws_region"]):
            problems.append("AWS_REGION is not set; set it to the region of the queues and tables")
        found = trigger_settings(env, {}, problems, prefix="")
        if problems or found is None:
            raise ConfigurationError("environment", problems)
        return cls(**dict(found))


def create_ingestion_pipeline(
    env: Mapping[str, str] = os.environ,
    *,
    handler: Handler | None = None,
    rules: Sequence[BusinessRule] = (),
    events: EventReaders = DEFAULT_EVENTS,
    hooks: Iterable[Hook] | None = None,
) -> TriggerPipeline:
    """The pipeline of the preset's function; `create_ingestion_pipeline().lambda_handler` is its entry point.

    Without a `handler`, symbols go to the queue in chunks; without `hooks`, starts are measured by CloudWatch's
    embedded metric format. Does no I/O: the first start connects. Raises `ConfigurationError` with all problems of
    the environment, each naming variable, value and remedy.
    """
    if hooks is None:
        from oms_events.instrumentation.cloudwatch import CloudWatchHook

        hooks = (CloudWatchHook(),)
    return IngestionEnvironment.read(env).create_pipeline(handler, rules=rules, events=events, hooks=hooks)


def trigger_settings(
    env: Mapping[str, str], table: Mapping[str, Any] | None, problems: list[str], *, prefix: str = PREFIX
) -> TriggerSettings | None:
    """A pipeline's settings: the values of `table` under those of the environment; None when not wanted.

    `table` is a part of a configuration file. What is wrong is added to `problems`.
    """
    parts = set_variables(env, {field: (prefix + name,) for field, name in _PARTS.items()})
    options = set_variables(env, {field: (prefix + name,) for field, name in _OPTIONS.items()})
    environment = prefix + _ENVIRONMENT
    if table is None and not (parts or options or env.get(environment)):
        return None
    values = dict(table or {})
    variables = {**parts, **set_variables(env, _AWS)}
    values.update({field: env[name] for field, name in variables.items()})
    endpoints = set_variables(env, _ENDPOINTS)
    if endpoints and isinstance(urls := values.get("endpoint_urls", {}), Mapping):
        values["endpoint_urls"] = {**urls, **{service: env[name] for service, name in endpoints.items()}}
        variables["endpoint_urls"] = ", ".join(endpoints.values())
    if isinstance(config := values.get("config", {}), Mapping):
        values["config"] = _config(env, config, environment, options, problems)
    return make_config(TriggerSettings, "triggers", values, problems, variables=variables)


def _config(
    env: Mapping[str, str],
    table: Mapping[str, Any],
    environment: str,
    options: Mapping[str, str],
    problems: list[str],
) -> TriggerConfig:
    """The configuration of the environment that is named; what is wrong is told, and then goes on by default."""
    values = dict(table)
    variables: dict[str, str] = {}
    if env.get(environment):
        values["environment"] = env[environment]
        variables["environment"] = environment
    named, defaults = values.get("environment", "dev"), values.get("defaults", {})
    if named in get_args(Environment) and isinstance(defaults, Mapping):
        values["defaults"] = {**dict(TriggerConfig.of(named).defaults), **defaults}
    if isinstance(chosen := values.get("options", {}), Mapping):
        chosen = {**chosen, **{field: env[name] for field, name in options.items()}}
        run = make_config(RunOptions, "triggers.config.options", chosen, problems, variables=options)
        values["options"] = run or RunOptions()
    return make_config(TriggerConfig, "triggers.config", values, problems, variables=variables) or TriggerConfig()
