"""`check`: looks at everything that a configuration needs, and reports; it changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from cloudevents.core.v1.event import CloudEvent

from oms_events.errors import AccessError
from oms_events.events import EncodedEvent
from oms_events.idempotency.config import IdempotencyConfig
from oms_events.outbox.config import OutboxConfig
from oms_events.provisioning.checks import stream, tables
from oms_events.provisioning.checks.access import View, view_of
from oms_events.provisioning.checks.bus import check_archives, check_bus
from oms_events.provisioning.checks.caller import AREA as PERMISSIONS
from oms_events.provisioning.checks.caller import Calls, check_caller, identify
from oms_events.provisioning.checks.configuration import CheckedConfiguration
from oms_events.provisioning.checks.matching import Matcher
from oms_events.provisioning.checks.report import Finding, Report, together, unchecked
from oms_events.provisioning.checks.rules import check_rules
from oms_events.provisioning.checks.samples import Sent, mapped, oms_samples, routed, samples_of, subjects
from oms_events.provisioning.checks.services import Clients
from oms_events.provisioning.presets.oms_access import OUTBOX_ACTIONS
from oms_events.publishers.eventbridge.config import EventBridgeConfig

if TYPE_CHECKING:
    import aioboto3

_IDEMPOTENCY_ACTIONS: Final = ("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:DeleteItem")

_Check = tuple[str, str, AsyncIterator[Finding]]


async def check(
    configuration: CheckedConfiguration,
    *,
    events: Sequence[CloudEvent | EncodedEvent] | None = None,
    session: aioboto3.Session | None = None,
) -> Report:
    """Compares what is deployed with what the configuration needs.

    `events` are samples of what is sent, one of each type and shape: two of each type of the OMS without. A
    `session` brings its own credentials, which look at everything then. Each check stands alone: one that is
    denied or fails is a finding "not checked". Raises `ConfigurationError` when `events` is empty and for a
    region, profile or file that is missing, `InvalidEventError` for what is no event, `RuleError` for rules that
    cannot stand together. Changes nothing.
    """
    going = routed(configuration, oms_samples() if events is None else samples_of(events))
    findings = list(going.findings)
    checks: list[_Check] = []
    async with AsyncExitStack() as stack:
        clients = Clients(stack, session)
        looking = partial(view_of, clients=clients, aws=configuration.aws)
        if (bus := configuration.eventbridge) is not None:
            sent, rejected = mapped(going.eventbridge, bus)
            findings += rejected
            checks += _bus_checks(bus, looking(bus, "events"), sent)
        if configuration.nats is not None:
            found, rejected = subjects(going.nats, configuration.jetstream)
            findings += rejected
            checking = stream.check_stream(configuration.nats, configuration.jetstream, found)
            checks.append((stream.AREA, configuration.jetstream.stream_name or "JetStream", checking))
        if (outbox := configuration.outbox) is not None:
            view = looking(outbox, "dynamodb")
            checks += _outbox_checks(outbox, view, session, has_stream=configuration.outbox_stream)
        if (idempotency := configuration.idempotency) is not None:
            checks += _idempotency_checks(idempotency, looking(idempotency, "dynamodb"), session)
        # A queue that the bus and its rules share would tell the same twice, and so would two events of a type.
        return Report(tuple(dict.fromkeys((*findings, *await together(checks)))))


def _bus_checks(config: EventBridgeConfig, view: View, sent: Sequence[Sent]) -> list[_Check]:
    name = config.event_bus_name
    return [
        ("bus", name, check_bus(view.services, name)),
        ("rules", name, _on_bus(config, view, sent)),
        (PERMISSIONS, name, _bus_calls(config, view)),
    ]


async def _on_bus(config: EventBridgeConfig, view: View, sent: Sequence[Sent]) -> AsyncIterator[Finding]:
    name = config.event_bus_name
    arn = await _bus_arn(config, view)
    if arn is None:
        yield unchecked("rules", name, "there is no such bus", "make the bus first")
        return
    region, account = arn.split(":")[3:5]
    matcher = Matcher(view.services, sent, account=account, region=region)
    parts = [
        ("rules", name, check_rules(view.services, name, matcher)),
        ("archive", name, check_archives(view.services, arn, matcher)),
    ]
    for finding in await together(parts):
        yield finding


async def _bus_calls(config: EventBridgeConfig, view: View) -> AsyncIterator[Finding]:
    actions = ("events:PutEvents", *(("events:DescribeEventBus",) if config.verify_bus else ()))
    bus = await _bus(config, view)
    calls = [Calls(actions, await _arn_by_name(config, view), None if bus is None else bus.get("Policy"))]
    async for finding in check_caller(view.services, view.own, config.event_bus_name, calls):
        yield finding


def _outbox_checks(
    config: OutboxConfig, view: View, session: aioboto3.Session | None, *, has_stream: bool
) -> list[_Check]:
    table, services = config.table_name, view.services
    looks = [
        tables.check_outbox(view.of(config), session=session),
        tables.check_outbox_ttl(services, table),
        tables.check_safety(services, table),
    ]
    if has_stream:
        looks.append(tables.check_outbox_stream(services, table))
    return [*((tables.OUTBOX, table, look) for look in looks), (PERMISSIONS, table, _outbox_calls(config, view))]


async def _outbox_calls(config: OutboxConfig, view: View) -> AsyncIterator[Finding]:
    table = await _table_arn(config.table_name, view)
    calls = [Calls(OUTBOX_ACTIONS, table)]
    if (claim := config.claim_check) is not None:
        calls.append(Calls(("s3:PutObject",), f"arn:{table.split(':')[1]}:s3:::{claim.bucket}/{claim.prefix}*"))
    async for finding in check_caller(view.services, view.own, config.table_name, calls):
        yield finding


def _idempotency_checks(config: IdempotencyConfig, view: View, session: aioboto3.Session | None) -> list[_Check]:
    table = config.table_name
    return [
        (tables.IDEMPOTENCY, table, tables.check_idempotency(view.of(config), session=session)),
        (tables.IDEMPOTENCY, table, tables.check_idempotency_ttl(view.services, config)),
        (PERMISSIONS, table, _idempotency_calls(config, view)),
    ]


async def _idempotency_calls(config: IdempotencyConfig, view: View) -> AsyncIterator[Finding]:
    looks = ("dynamodb:DescribeTable",) if config.verify_table else ()
    calls = [Calls((*_IDEMPOTENCY_ACTIONS, *looks), await _table_arn(config.table_name, view))]
    async for finding in check_caller(view.services, view.own, config.table_name, calls):
        yield finding


async def _bus_arn(config: EventBridgeConfig, view: View) -> str | None:
    """The bus's ARN as the service tells it, else as it must be; None when there is no such bus."""
    bus = await _bus(config, view)
    return None if bus is None else bus.get("Arn") or await _arn_by_name(config, view)


async def _bus(config: EventBridgeConfig, view: View) -> Mapping[str, Any] | None:
    """What EventBridge says of the bus: nothing when that is denied, None when there is no such bus."""
    try:
        return await view.services.find("events", "DescribeEventBus", Name=config.event_bus_name)
    except AccessError:
        return {}


async def _arn_by_name(config: EventBridgeConfig, view: View) -> str:
    name = config.event_bus_name
    return name if name.startswith("arn:") else await _arn(view, "events", f"event-bus/{name}")


async def _table_arn(table: str, view: View) -> str:
    return await _arn(view, "dynamodb", f"table/{table}")


async def _arn(view: View, service: str, resource: str) -> str:
    identity = await identify(view.own)
    region = await view.services.region(service)
    return f"arn:{identity.partition}:{service}:{region}:{identity.account}:{resource}"
