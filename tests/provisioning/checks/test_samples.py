"""The events that are tried: those of the OMS, or the user's own."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from oms_events import EventBridgeConfig, NatsConfig, RoutingRule, build_event
from oms_events.errors import ConfigurationError
from oms_events.events import encode
from oms_events.oms.catalogue import EventType
from oms_events.oms.rules import default_rules
from oms_events.provisioning.checks.report import Level
from oms_events.provisioning.checks.samples import Sample, mapped
from oms_events.routing.config import RouterConfig
from tests.provisioning.checks.broken import PROBLEM, WARNING, assert_exactly
from tests.provisioning.checks.checked import ACCOUNT, BUS, CREATED, EVENTS, SYSTEM, World, Worlds


async def test_without_events_those_of_the_oms_are_tried_where_the_rules_send_them(worlds: Worlds) -> None:
    async with worlds(*BUS) as world:
        await world.put_rule("everything", {"source": [{"prefix": "oms."}]})
        both = {"nats": NatsConfig(), "rules": default_rules()}
        report = await world.check(events=None, **both, primary="nats")
        tried = {found.subject for found in report.findings if found.area == "events"}
    # Actions and proposals go to NATS alone.
    families = {"schema", "objecttype", "property", "linktype", "branch", "system"}
    assert tried == {kind.value for kind in EventType if kind.family in families}


async def test_the_events_of_the_oms_are_about_different_things(worlds: Worlds) -> None:
    kind = EventType.OBJECT_TYPE_CREATED.value
    async with worlds(*BUS) as world:
        await world.put_rule("main", {"source": ["oms.main"], "detail-type": [{"exists": True}]})
        await world.put_target("main", world.queue("orders"))
        report = await world.check(events=None)
    told = [found for found in report.findings if (found.area, found.subject) == ("events", kind)]
    # The rule of all worlds for every event of the OMS logs only.
    assert [found.level for found in told] == [Level.OK, Level.WARNING]
    assert told[0].message == "is taken by rules logged, main"
    assert "source 'oms.feature.other'" in told[1].message


async def test_every_event_of_a_type_that_comes_twice_has_a_line_of_its_own(bus_world: World) -> None:
    events = [build_event(CREATED, source, {}) for source in ("/shop/a", "/other")]
    report = await bus_world.check(events=events)
    told = [found for found in report.findings if found.area == "events"]
    assert [(found.subject, found.level) for found in told] == [
        (f"{CREATED} (event 1)", Level.OK),
        (f"{CREATED} (event 2)", PROBLEM),
    ]


async def test_an_event_that_its_publisher_would_reject_is_a_problem(bus_world: World) -> None:
    config = EventBridgeConfig(event_bus_name=bus_world.name, mapping="plain")
    report = await bus_world.check(eventbridge=config, events=[build_event(CREATED, "/shop", "text")])
    assert ("events", CREATED, PROBLEM) in [(one.area, one.subject, one.level) for one in report.findings]


async def test_an_event_that_no_routing_rule_takes_is_a_problem(stream_world: World) -> None:
    rules = (RoutingRule(name="schema", event_type_pattern=".*schema.*", platforms=("nats",), strategy="all"),)
    report = await stream_world.check(rules=rules, router=RouterConfig(unrouted="refuse"))
    told = [("events", kind, PROBLEM, "no routing rule") for kind in (CREATED, SYSTEM)]
    assert_exactly(report, told, stream_world.name)


async def test_an_event_for_a_platform_that_is_not_configured_is_told(bus_world: World) -> None:
    def rule(*platforms: str) -> RoutingRule:
        return RoutingRule(name="far", event_type_pattern=".*created.*", platforms=platforms, strategy="all")

    report = await bus_world.check(rules=(rule("nats"),), events=EVENTS[:1])
    [told] = [found for found in report.findings if found.area == "events"]
    assert (told.subject, told.level) == (CREATED, WARNING)
    assert told.message == "routing rule far sends it to nats, not configured here"
    # What becomes of it on a platform of the user's own nobody knows here.
    report = await bus_world.check(rules=(rule("mine"),), events=EVENTS[:1])
    assert [found for found in report.findings if found.area == "events"] == []


async def test_no_events_are_refused(bus_world: World) -> None:
    with pytest.raises(ConfigurationError, match="give at least one"):
        await bus_world.check(events=[])


async def test_what_is_tried_is_what_is_delivered(worlds: Worlds) -> None:
    """Mapping and envelope agree with what the bus hands to a target."""
    config = EventBridgeConfig(event_bus_name="b", resources=("arn:aws:s3:::r",))
    async with worlds(*BUS) as world:
        config = config.model_copy(update={"event_bus_name": world.name})
        [sent], _ = mapped([Sample(CREATED, encode(EVENTS[0]))], config)
        await world.clients["events"].put_events(
            Entries=[sent.entry.document | {"Time": datetime.fromtimestamp(sent.entry.document["Time"], UTC)}]
        )
        answer = await world.clients["sqs"].receive_message(QueueUrl=await world.url("orders"), WaitTimeSeconds=5)
    delivered = json.loads(answer["Messages"][0]["Body"])
    tried = json.loads(sent.delivered(account=ACCOUNT, region="us-east-1"))
    # The emulator ignores the time of an entry, and each event gets an id of its own.
    own = {"id", "time"}
    assert {k: v for k, v in tried.items() if k not in own} == {k: v for k, v in delivered.items() if k not in own}
    assert tried.keys() == delivered.keys()
