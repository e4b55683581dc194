"""A whole stack: the specs that belong together, and what they give to others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Self

from pydantic import Field, PlainValidator, field_validator, model_validator

from oms_events.provisioning.specs.alarms import AlarmSpec
from oms_events.provisioning.specs.base import Reference, ResourceSpec, Spec, arn_service
from oms_events.provisioning.specs.buckets import BucketSpec
from oms_events.provisioning.specs.buses import ArchiveSpec, EventBusSpec
from oms_events.provisioning.specs.dashboards import DashboardSpec
from oms_events.provisioning.specs.endpoints import EndpointSpec
from oms_events.provisioning.specs.functions import FunctionSpec
from oms_events.provisioning.specs.keys import KeySpec
from oms_events.provisioning.specs.logs import LogGroupSpec
from oms_events.provisioning.specs.outputs import output_places, read_outputs, references_in
from oms_events.provisioning.specs.queues import QueueSpec
from oms_events.provisioning.specs.roles import RoleSpec
from oms_events.provisioning.specs.rules import RuleSpec
from oms_events.provisioning.specs.tables import TableSpec
from oms_events.provisioning.specs.topics import TopicSpec

MAX_OUTPUTS: Final = 200
"""Outputs of a template (CloudFormation quotas)."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,127}")

Outputs = Annotated[Mapping[str, Any], PlainValidator(read_outputs)]


class StackSpec(Spec):
    """Everything that is deployed together, as one CloudFormation stack.

    Keys are unique among specs of a kind. `outputs` are texts, references, maps of those, or None for what this
    stack does not have. `tags` are those of the stack, which CloudFormation gives to what it makes. Raises
    `SpecError` with all problems, those between specs only when each spec for itself is well.
    """

    name: str
    description: str | None = Field(default=None, max_length=1024)
    tags: Mapping[str, str] = Field(default_factory=dict, max_length=50)
    termination_protection: bool = False
    """Whether CloudFormation refuses to delete the stack."""

    keys: tuple[KeySpec, ...] = ()
    roles: tuple[RoleSpec, ...] = ()
    queues: tuple[QueueSpec, ...] = ()
    topics: tuple[TopicSpec, ...] = ()
    log_groups: tuple[LogGroupSpec, ...] = ()
    buckets: tuple[BucketSpec, ...] = ()
    tables: tuple[TableSpec, ...] = ()
    functions: tuple[FunctionSpec, ...] = ()
    buses: tuple[EventBusSpec, ...] = ()
    rules: tuple[RuleSpec, ...] = ()
    archives: tuple[ArchiveSpec, ...] = ()
    endpoints: tuple[EndpointSpec, ...] = ()
    alarms: tuple[AlarmSpec, ...] = ()
    dashboards: tuple[DashboardSpec, ...] = ()

    outputs: Outputs = Field(default_factory=dict)

    def specs(self) -> Iterator[ResourceSpec]:
        """All its specs, in the order in which they stand in the template."""
        for field in type(self).model_fields:
            value = getattr(self, field)
            if isinstance(value, tuple):
                yield from (spec for spec in value if isinstance(spec, ResourceSpec))

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if _NAME.fullmatch(name) is None:
            raise ValueError("a stack's name is a letter, and up to 127 letters, digits and '-'")
        return name

    @model_validator(mode="after")
    def _check(self) -> Self:
        if problems := [*self._doubles(), *self._dangling(), *self._queue_problems(), *self._output_problems()]:
            # One problem of one spec can show in several places.
            raise ValueError("; ".join(dict.fromkeys(problems)))
        return self

    def _doubles(self) -> Iterator[str]:
        specs = list(self.specs())
        for (kind, key), count in Counter((spec.kind, spec.key) for spec in specs).items():
            if count > 1:
                yield f"key {key!r} stands at {count} specs of the kind {kind}; give each a key of its own"
        for (kind, name), count in Counter((spec.kind, _scoped_name(spec)) for spec in specs).items():
            # A bucket may go without a name.
            if count > 1 and name:
                yield f"name {name!r} stands at {count} specs of the kind {kind}; AWS takes each once"
        known: dict[str, ResourceSpec] = {}
        for spec in specs:
            other = known.setdefault(spec.logical_id, spec)
            if other is not spec and (other.kind, other.key) != (spec.kind, spec.key):
                yield (
                    f"keys {other.key!r} and {spec.key!r} differ in signs only, and both give the logical id "
                    f"{spec.logical_id}; change one"
                )

    def _dangling(self) -> Iterator[str]:
        known = {(spec.kind, spec.key): spec for spec in self.specs()}
        for spec in self.specs():
            for reference in spec.references():
                if problem := _problem_of(reference, known):
                    yield f"{type(spec).__name__} {spec.key!r}: {problem}"
        for name, reference in references_in(self.outputs):
            if problem := _problem_of(reference, known):
                yield f"output {name!r}: {problem}"

    def _queue_problems(self) -> Iterator[str]:
        fifo = {queue.key: queue.fifo for queue in self.queues}
        for rule in self.rules:
            for target in rule.targets:
                where = f"RuleSpec {rule.key!r}: target {target.id!r}"
                is_fifo = _is_fifo(target.arn, fifo)
                if is_fifo and target.message_group_id is None:
                    yield f"{where}: message_group_id is missing; a FIFO queue wants one"
                if target.message_group_id is not None and not is_fifo:
                    yield f"{where}: message_group_id is for FIFO queues"
                if target.dead_letter is not None and _is_fifo(target.dead_letter, fifo):
                    yield f"{where}: dead_letter is a FIFO queue; EventBridge takes standard queues only"
        for queue in self.queues:
            if queue.dead_letter is not None and _is_fifo(queue.dead_letter, fifo) is not queue.fifo:
                yield f"QueueSpec {queue.key!r}: dead_letter is FIFO exactly when the queue is; change one"

    def _output_problems(self) -> Iterator[str]:
        places = [place for _, place, _ in output_places(self.outputs)]
        if len(places) > MAX_OUTPUTS:
            yield f"outputs: {len(places)}, and a template takes {MAX_OUTPUTS}; split the stack"
        for place, count in Counter(places).items():
            if count > 1:
                yield f"outputs: {count} of them give the template's output {place}; rename one"


def _problem_of(reference: Reference, known: Mapping[tuple[str, str], ResourceSpec]) -> str | None:
    spec = known.get((reference.kind, reference.key))
    if spec is None:
        keys = sorted(key for kind, key in known if kind == reference.kind)
        there = f"its {reference.kind} keys are {', '.join(keys)}" if keys else f"it has no {reference.kind}"
        return f"ref = {reference.ref!r} is not in this stack ({there})"
    if reference.attribute not in spec.returns:
        return (
            f"ref = {reference.ref!r} has no attribute {reference.attribute!r}; it has {', '.join(spec.returns)}"
        )
    return spec.why_without(reference.attribute)


def _scoped_name(spec: ResourceSpec) -> object:
    # Two buses may each have a rule of one name.
    return (str(spec.bus), spec.name) if isinstance(spec, RuleSpec) else spec.name


def _is_fifo(queue: str | Reference, known: Mapping[str, bool]) -> bool:
    if isinstance(queue, Reference):
        return queue.kind == "queue" and known.get(queue.key, False)
    return arn_service(queue) == "sqs" and queue.endswith(".fifo")
