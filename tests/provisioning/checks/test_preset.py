"""The preset `oms` as it is deployed, checked with the settings of a service that uses it."""

from __future__ import annotations

from typing import Any

from oms_events import EventBridgeConfig, OutboxConfig
from oms_events.devstack import AwsEmulator
from oms_events.idempotency.config import IdempotencyConfig
from oms_events.oms.catalogue import EventType
from oms_events.provisioning.checks.checking import check
from oms_events.provisioning.checks.configuration import CheckedConfiguration
from oms_events.provisioning.checks.report import Level, Report
from oms_events.provisioning.presets.oms import OmsPreset
from oms_events.provisioning.specs.queues import QueueSpec
from oms_events.provisioning.specs.targets import TargetSpec
from oms_events.provisioning.synthesis import synthesize
from tests.provisioning.checks.broken import wrong
from tests.provisioning.checks.checked import CA
from tests.provisioning.embedded import DeployedStack, deployed

CREATED = EventType.SCHEMA_CREATED.value
INBOX = QueueSpec(name="checked-inbox")
PRESET = OmsPreset(
    event_bus_name="checked",
    queues=(INBOX,),
    default_targets=(TargetSpec(id="inbox", arn=INBOX.arn),),
    deletion_protection=True,
)


async def checked(stack: DeployedStack) -> Report:
    """The service has the publisher's role; who looks is an operator."""
    operator = stack.config.model_copy(update={"ca_bundle": CA})
    own: dict[str, Any] = dict(operator) | {
        "role_arn": stack.outputs["publisher_role_arn"],
        "sts_endpoint_url": stack.emulator.endpoint_url,
    }
    configuration = CheckedConfiguration(
        eventbridge=EventBridgeConfig(event_bus_name=stack.outputs["event_bus_name"], **own),
        outbox=OutboxConfig(table_name=stack.outputs["outbox_table_name"], **own),
        idempotency=IdempotencyConfig(table_name=stack.outputs["idempotency_table_name"], **own),
        # All events of the OMS go to the bus.
        rules=(),
        aws=operator,
    )
    return await check(configuration)


async def test_what_the_preset_deploys_is_what_the_settings_need(emulator: AwsEmulator) -> None:
    async with deployed(synthesize(PRESET.stack()), emulator) as stack:
        report = await checked(stack)
        # Nothing has written to the outbox yet; all else was looked at, and is right.
        assert [(one.area, one.level) for one in wrong(report)] == [("outbox", Level.WARNING)]
        assert "no layout yet" in wrong(report)[0].message
        taken = [found.subject for found in report.findings if found.area == "events"]
        assert sorted(taken) == sorted(kind.value for kind in EventType)

        rule = stack.outputs["rule_names"][CREATED]
        await (await stack.client("events")).disable_rule(Name=rule, EventBusName="checked")
        report = await checked(stack)
        problems = report.at(Level.PROBLEM)
        # Both events of the type, which differ in their source.
        assert [(one.area, one.subject) for one in problems] == [
            ("events", CREATED),
            ("events", CREATED),
            ("rules", rule),
        ]
        assert problems[0].remedy == f"enable rule {rule}, which would take it"
