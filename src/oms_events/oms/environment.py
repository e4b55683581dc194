"""The environment variables of the OMS, and the router that they describe.

| variable | means |
|---|---|
| `OMS_NATS_URL` | NATS servers, separated by commas; turns NATS on |
| `OMS_NATS_CREDENTIALS_FILE` | a `.creds` file |
| `OMS_NATS_USER`, `OMS_NATS_PASSWORD` | user and password |
| `OMS_NATS_TOKEN` | a token |
| `OMS_ENABLE_NATS` | true or false, whatever the others imply; true without a URL is nats://127.0.0.1:4222 |
| `OMS_EVENTBRIDGE_BUS_NAME` | the event bus, by name or ARN; turns EventBridge on |
| `OMS_ENABLE_EVENTBRIDGE` | true or false, whatever the others imply |
| `OMS_OUTBOX_TABLE` | the outbox's table on DynamoDB; turns the outbox on |
| `OMS_OUTBOX_BUCKETS` | the number of buckets that the table must have |
| `OMS_EVENT_STORE_TABLE`, else `EVENT_STORE_TABLE` | the event store's table on DynamoDB; turns it on |
| `OMS_EVENT_STORE_SOURCE` | the `source` of its events |
| `OMS_SNAPSHOT_TABLE`, else `SNAPSHOT_TABLE` | the table of snapshots; turns them on |
| `OMS_READ_MODEL_TABLE`, else `READ_MODEL_TABLE` | the table of read models; turns projections on |
| `OMS_CHECKPOINT_TABLE`, else `CHECKPOINT_TABLE` | the table of their checkpoints, which they need too |
| `OMS_PERSONAL_KEYS_TABLE`, else `PERSONAL_KEYS_TABLE` | the table of the keys of personal data; turns them on |
| `AWS_REGION`, else `AWS_DEFAULT_REGION` | the region of the bus and the tables |
| `AWS_ENDPOINT_URL_EVENTBRIDGE`, else `AWS_ENDPOINT_URL` | another endpoint: a VPC endpoint, an emulator |
| `AWS_ENDPOINT_URL_DYNAMODB`, else `AWS_ENDPOINT_URL` | the same for the tables |
| `OMS_RULES_FILE` | a TOML or YAML file of rules, which stand beside the default rules |

The names without `OMS_` are those that the preset `event-sourcing` gives its functions. An empty variable counts
as not set. AWS credentials come from the normal AWS chain.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from oms_events._config import ConfigModel, make_config, set_variables
from oms_events._nats.config import NatsConfig
from oms_events.errors import ConfigurationError
from oms_events.eventstore.config import EventStoreConfig, PersonalKeysConfig, ProjectionTables, SnapshotConfig
from oms_events.oms.factory import create_oms_multi_platform_router
from oms_events.outbox.config import OutboxConfig
from oms_events.publishers.eventbridge.config import EventBridgeConfig
from oms_events.routing.router import EventRouter
from oms_events.routing.rulefile import load_rules
from oms_events.routing.rules import RoutingRule

_Config = TypeVar("_Config", bound=ConfigModel)

_NATS: Final = {
    "servers": ("OMS_NATS_URL",),
    "credentials_file": ("OMS_NATS_CREDENTIALS_FILE",),
    "user": ("OMS_NATS_USER",),
    "password": ("OMS_NATS_PASSWORD",),
    "token": ("OMS_NATS_TOKEN",),
}
_EVENTBRIDGE: Final = {
    "event_bus_name": ("OMS_EVENTBRIDGE_BUS_NAME",),
    "aws_region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "endpoint_url": ("AWS_ENDPOINT_URL_EVENTBRIDGE", "AWS_ENDPOINT_URL"),
}
_DYNAMODB: Final = {
    "aws_region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "endpoint_url": ("AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL"),
}
_OUTBOX: Final = {
    "table_name": ("OMS_OUTBOX_TABLE",),
    "buckets": ("OMS_OUTBOX_BUCKETS",),
}
_EVENT_STORE: Final = {
    "table_name": ("OMS_EVENT_STORE_TABLE", "EVENT_STORE_TABLE"),
    "source": ("OMS_EVENT_STORE_SOURCE",),
}
_SNAPSHOTS: Final = {"table_name": ("OMS_SNAPSHOT_TABLE", "SNAPSHOT_TABLE")}
_PROJECTIONS: Final = {
    "read_model_table": ("OMS_READ_MODEL_TABLE", "READ_MODEL_TABLE"),
    "checkpoint_table": ("OMS_CHECKPOINT_TABLE", "CHECKPOINT_TABLE"),
}
_PERSONAL_KEYS: Final = {"table_name": ("OMS_PERSONAL_KEYS_TABLE", "PERSONAL_KEYS_TABLE")}
_SWITCH: Final = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


@asynccontextmanager
async def router_from_environment(env: Mapping[str, str] = os.environ) -> AsyncIterator[EventRouter]:
    """The open router that the environment describes, for the length of an `async with`.

    Raises `ConfigurationError` with all problems, each naming variable, value and remedy, never a secret;
    `MissingExtraError` for a platform whose client is not installed.
    """
    # The rules lie in a file, which must not hold up the loop.
    async with await asyncio.to_thread(_make_router, env) as router:
        yield router


def _make_router(env: Mapping[str, str]) -> EventRouter:
    problems: list[str] = []
    nats = nats_config(env, None, problems)
    eventbridge = eventbridge_config(env, None, problems)
    rules = rules_of_environment(env, problems)
    if nats is None and eventbridge is None and not problems:
        problems.append("no platform; set OMS_NATS_URL or OMS_EVENTBRIDGE_BUS_NAME, or give a router")
    if problems:
        raise ConfigurationError("environment", problems)
    return create_oms_multi_platform_router(nats, eventbridge, rules=rules or ())


def nats_config(env: Mapping[str, str], table: Mapping[str, Any] | None, problems: list[str]) -> NatsConfig | None:
    """The connection to NATS: the values of `table` under those of the environment; None when not wanted.

    `table` is a part of a configuration file. What is wrong is added to `problems`.
    """
    variables = set_variables(env, _NATS)
    values: dict[str, Any] = {field: env[name] for field, name in variables.items()}
    if "servers" in values:
        servers = (server.strip() for server in values["servers"].split(","))
        values["servers"] = [_with_scheme(server) for server in servers if server]
    wanted = _switch(env, "OMS_ENABLE_NATS", problems)
    if wanted is None:
        wanted = table is not None or "servers" in values
    if not wanted:
        return None
    return make_config(NatsConfig, "nats", {**(table or {}), **values}, problems, variables=variables)


def eventbridge_config(
    env: Mapping[str, str], table: Mapping[str, Any] | None, problems: list[str]
) -> EventBridgeConfig | None:
    """The event bus: the values of `table` under those of the environment; None when not wanted.

    `table` is a part of a configuration file. What is wrong is added to `problems`.
    """
    variables = set_variables(env, _EVENTBRIDGE)
    values: dict[str, Any] = {field: env[name] for field, name in variables.items()}
    wanted = _switch(env, "OMS_ENABLE_EVENTBRIDGE", problems)
    if wanted is None:
        wanted = table is not None or "event_bus_name" in values
    if not wanted:
        return None
    if table is None and "event_bus_name" not in values:
        # The configuration's own default is the account's default bus, where nobody expects these events.
        problems.append(
            "OMS_EVENTBRIDGE_BUS_NAME is not set, but OMS_ENABLE_EVENTBRIDGE is on; name the bus "
            "(`default` for the account's default bus)"
        )
        return None
    return make_config(
        EventBridgeConfig, "eventbridge", {**(table or {}), **values}, problems, variables=variables
    )


def outbox_config(
    env: Mapping[str, str], table: Mapping[str, Any] | None, problems: list[str]
) -> OutboxConfig | None:
    """The outbox: the values of `table` under those of the environment; None when not wanted.

    `table` is a part of a configuration file. What is wrong is added to `problems`.
    """
    return _dynamodb_config(OutboxConfig, "outbox", _OUTBOX, env, table, problems)


def event_store_config(
    env: Mapping[str, str], table: Mapping[str, Any] | None, problems: list[str]
) -> EventStoreConfig | None:
    """As `outbox_config`, of the event store."""
    return _dynamodb_config(EventStoreConfig, "event_store", _EVENT_STORE, env, table, problems)


def snapshot_config(
    env: Mapping[str, str], table: Mapping[str, Any] | None, problems: list[str]
) -> SnapshotConfig | None:
    """As `outbox_config`, of snapshots."""
    return _dynamodb_config(SnapshotConfig, "snapshots", _SNAPSHOTS, env, table, problems)


def projection_tables(
    env: Mapping[str, str], table: Mapping[str, Any] | None, problems: list[str]
) -> ProjectionTables | None:
    """As `outbox_config`, of the tables of projections."""
    return _dynamodb_config(ProjectionTables, "projections", _PROJECTIONS, env, table, problems)


def personal_keys_config(
    env: Mapping[str, str], table: Mapping[str, Any] | None, problems: list[str]
) -> PersonalKeysConfig | None:
    """As `outbox_config`, of the table of the keys that personal data is encrypted under."""
    return _dynamodb_config(PersonalKeysConfig, "personal_keys", _PERSONAL_KEYS, env, table, problems)


def rules_of_environment(env: Mapping[str, str], problems: list[str]) -> list[RoutingRule] | None:
    """The rules of the file that `OMS_RULES_FILE` names, None when it is not set. Blocks on the disk."""
    path = env.get("OMS_RULES_FILE")
    if not path:
        return None
    try:
        return load_rules(path)
    except ConfigurationError as error:
        problems.extend(f"OMS_RULES_FILE = {path!r}: {problem}" for problem in error.problems)
        return None


def _dynamodb_config(
    model: type[_Config],
    section: str,
    fields: Mapping[str, tuple[str, ...]],
    env: Mapping[str, str],
    table: Mapping[str, Any] | None,
    problems: list[str],
) -> _Config | None:
    """What is on DynamoDB; wanted when the file has the section, or a variable names one of its tables."""
    variables = set_variables(env, {**fields, **_DYNAMODB})
    tables = [field for field in fields if field.endswith(("table", "table_name"))]
    if table is None and not any(field in variables for field in tables):
        return None
    values = {**(table or {}), **{field: env[name] for field, name in variables.items()}}
    found: list[str] = []
    config = make_config(model, section, values, found, variables=variables)
    for problem in found:
        missing = next((field for field in tables if f"field {field!r} is missing" in problem), None)
        # Which variable gives it nobody could guess.
        remedy = "" if missing is None else f" (variable {fields[missing][0]})"
        problems.append(f"{problem}{remedy}")
    return config


def _switch(env: Mapping[str, str], name: str, problems: list[str]) -> bool | None:
    text = env.get(name)
    if not text:
        return None
    switch = _SWITCH.get(text.strip().lower())
    if switch is None:
        problems.append(f"{name} = {text!r}: write true or false")
    return switch


def _with_scheme(server: str) -> str:
    return server if "://" in server else f"nats://{server}"
