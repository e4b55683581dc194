"""The events that a configuration sends, as the platforms get them: of the OMS's catalogue, or the user's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import orjson
from cloudevents.core.v1.event import CloudEvent

from oms_events.errors import ConfigurationError, PublishError, UnroutableEventError
from oms_events.events import EncodedEvent, build_event, encode
from oms_events.oms import builders
from oms_events.oms.catalogue import EventFamily, EventType
from oms_events.provisioning.checks.configuration import CheckedConfiguration
from oms_events.provisioning.checks.report import Finding, problem, warning
from oms_events.publishers.eventbridge.config import EventBridgeConfig
from oms_events.publishers.eventbridge.entries import Entry
from oms_events.publishers.eventbridge.mapping import EventMapper
from oms_events.publishers.jetstream.config import JetStreamOptions
from oms_events.publishing import Platform
from oms_events.routing.rules import RuleSet
from oms_events.routing.strategies import make_plan

_AREA: Final = "events"
_PLATFORMS: Final = frozenset(platform.value for platform in Platform)
_EVENT_ID: Final = "00000000-0000-4000-8000-000000000000"
"""EventBridge gives each event an id of its own."""
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class _Names:
    """What an event is about: a pattern that looks at names should take all of them."""

    branch: str
    resource_type: str
    thing: str


_NAMES: Final = (_Names("main", "object", "sample"), _Names("feature/other", "policy", "other"))


@dataclass(frozen=True, slots=True)
class Sample:
    """An event with the name that findings call it by: its type, and its place where others are given besides."""

    name: str
    event: EncodedEvent


@dataclass(frozen=True, slots=True)
class Sent:
    """An entry of PutEvents as it would be sent, and the subject of its event."""

    name: str
    subject: str | None
    entry: Entry

    @property
    def described(self) -> str:
        """What tells it from others of its name, in words."""
        source, detail_type = self.marks
        about = "" if self.subject is None else f", subject {self.subject!r}"
        return f"source {source!r}, detail-type {detail_type!r}{about}"

    @property
    def marks(self) -> tuple[str, str]:
        """Its source and detail type, by which most patterns take it."""
        return self.entry.document["Source"], self.entry.document["DetailType"]

    def delivered(self, *, account: str, region: str) -> str:
        """The event as EventBridge delivers it, and as rules see it."""
        document = self.entry.document
        time = datetime.fromtimestamp(document["Time"], UTC) if "Time" in document else datetime.now(UTC)
        envelope = {
            "version": "0",
            "id": _EVENT_ID,
            "detail-type": document["DetailType"],
            "source": document["Source"],
            "account": account,
            "time": time.strftime(_TIME),
            "region": region,
            "resources": document.get("Resources", []),
            "detail": orjson.Fragment(document["Detail"]),
        }
        return orjson.dumps(envelope).decode()


@dataclass(frozen=True, slots=True)
class Routed:
    """The samples that go to each platform, and what is to be said of the others."""

    eventbridge: Sequence[Sample]
    nats: Sequence[Sample]
    findings: Sequence[Finding]


def oms_samples() -> list[Sample]:
    """Two events of each type of the OMS's catalogue, as its builders make them, about different things.

    Both have the type's name, so that what is found of both is told once.
    """
    return [
        Sample(kind.value, encode(_BUILDERS[kind.family](kind, names))) for kind in EventType for names in _NAMES
    ]


def samples_of(events: Sequence[CloudEvent | EncodedEvent]) -> list[Sample]:
    """The user's own events. Raises `ConfigurationError` for none, `InvalidEventError` for what is no event."""
    encoded = [event if isinstance(event, EncodedEvent) else encode(event) for event in events]
    if not encoded:
        raise ConfigurationError("check", ["events = []: give at least one, or None for those of the OMS"])
    types = Counter(event.type for event in encoded)
    return [
        Sample(event.type if types[event.type] == 1 else f"{event.type} (event {place})", event)
        for place, event in enumerate(encoded, start=1)
    ]


def routed(configuration: CheckedConfiguration, samples: Sequence[Sample]) -> Routed:
    """Decides by the configured rules where the events may go: backups of FAILOVER count."""
    rules = RuleSet(configuration.rules)
    platforms = configuration.platforms
    primary = configuration.primary or next(iter(platforms), None)
    refuses = configuration.router.unrouted == "refuse"
    by_platform: dict[str, list[Sample]] = {name: [] for name in platforms}
    findings = []
    for sample in samples if platforms else ():
        rule = rules.decide(sample.event)
        try:
            plan = make_plan(rule, registered=platforms, primary=None if rule is None and refuses else primary)
        except UnroutableEventError as error:
            findings.append(problem(_AREA, sample.name, "no routing rule takes it", str(error)))
            continue
        for name in plan.platforms:
            by_platform.get(name, []).append(sample)
        # Platforms of the user's own are none of ours to look at.
        if not by_platform.keys() & set(plan.platforms) and _PLATFORMS.issuperset(plan.platforms):
            message = f"routing rule {plan.rule} sends it to {', '.join(plan.platforms)}, not configured here"
            remedy = "configure the platform, or change the rule, unless you never send it: publishing it fails"
            findings.append(warning(_AREA, sample.name, message, remedy))
    return Routed(
        by_platform.get(Platform.EVENTBRIDGE.value, ()), by_platform.get(Platform.NATS.value, ()), findings
    )


def mapped(samples: Sequence[Sample], config: EventBridgeConfig) -> tuple[list[Sent], list[Finding]]:
    """The samples as entries of the bus, and those that the publisher would reject."""
    mapper = EventMapper(config)
    sent, findings = [], []
    for index, sample in enumerate(samples):
        try:
            sent.append(
                Sent(sample.name, sample.event.attributes.get("subject"), mapper.entry(sample.event, index))
            )
        except PublishError as error:
            findings.append(_rejected(sample, "EventBridge", error))
    return sent, findings


def subjects(samples: Sequence[Sample], options: JetStreamOptions) -> tuple[dict[str, str], list[Finding]]:
    """The subjects that the samples get on NATS, each with a sample's name, and those that get none."""
    template = options.subject_template()
    found: dict[str, str] = {}
    findings = []
    for sample in samples:
        try:
            found.setdefault(template(sample.event), sample.name)
        except PublishError as error:
            findings.append(_rejected(sample, "NATS", error))
    return found, findings


def _rejected(sample: Sample, platform: str, error: PublishError) -> Finding:
    remedy = "change the configuration of the platform, or the event"
    return problem(_AREA, sample.name, f"the publisher for {platform} rejects it: {error}", remedy)


def _schema(kind: EventType, names: _Names) -> CloudEvent:
    if kind.family is EventFamily.SCHEMA:
        return builders.create_schema_change_event(
            operation=kind.change,
            resource_type=names.resource_type,
            resource_id=names.thing,
            branch=names.branch,
            author="check",
        )
    # The OMS has no builder of its own for the families beside it, whose events have the same shape.
    data: dict[str, Any] = {
        "operation": kind.change.removesuffix("d"),
        "resource_type": kind.family.value,
        "resource_id": names.thing,
        "branch": names.branch,
    }
    subject = f"{kind.family.value}/{names.thing}"
    return build_event(
        kind.value, f"/oms/{quote(names.branch)}", data, subject=subject, partitionkey=subject,
        datacontenttype="application/json", branch=names.branch, author="check",
    )  # fmt: skip


def _branch(kind: EventType, names: _Names) -> CloudEvent:
    target = names.branch if kind is EventType.BRANCH_MERGED else None
    return builders.create_branch_event(
        operation=kind.change, branch_name=names.thing, author="check", target_branch=target
    )


def _proposal(kind: EventType, names: _Names) -> CloudEvent:
    return builders.create_proposal_event(
        operation=kind.change, proposal_id=names.thing, branch=names.branch, author="check", title=names.thing
    )


def _action(kind: EventType, names: _Names) -> CloudEvent:
    return builders.create_action_event(action_type=names.thing, job_id=names.thing, status=kind.change)


def _system(kind: EventType, names: _Names) -> CloudEvent:
    return builders.create_system_event(event_subtype=kind.change, component=names.thing, status="ok")


_BUILDERS: Final[dict[EventFamily, Callable[[EventType, _Names], CloudEvent]]] = {
    EventFamily.SCHEMA: _schema,
    EventFamily.OBJECT_TYPE: _schema,
    EventFamily.PROPERTY: _schema,
    EventFamily.LINK_TYPE: _schema,
    EventFamily.BRANCH: _branch,
    EventFamily.PROPOSAL: _proposal,
    EventFamily.ACTION: _action,
    EventFamily.SYSTEM: _system,
}
