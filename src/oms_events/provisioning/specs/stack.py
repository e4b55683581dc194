"""A whole stack: the specs that belong together, and what they give to others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import Field, PlainValidator, field_validator

from oms_events.provisioning.specs.alarms import AlarmSpec
from oms_events.provisioning.specs.base import Reference, ResourceSpec, Spec
from oms_events.provisioning.specs.between import problems_between
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

MAX_OUTPUT_NAME: Final = 255
"""Characters (CloudFormation quotas)."""

MAX_DESCRIPTION: Final = 1024
"""Bytes (CloudFormation quotas)."""

MAX_TAG_KEY: Final = 128
MAX_TAG_VALUE: Final = 256
"""Characters (CloudFormation API reference, Tag)."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,127}")
_OUTPUT_NAME: Final = re.compile(r"(?=[^A-Za-z0-9]*[A-Za-z0-9])[\x20-\x7e]+")

Outputs = Annotated[Mapping[str, Any], PlainValidator(read_outputs)]


class StackSpec(Spec):
    """Everything that is deployed together, as one CloudFormation stack.

    Keys are unique among specs of a kind. `outputs` are texts, references, maps of those, or None for what this
    stack does not have. `tags` are those of the stack, which CloudFormation gives to what it makes. Raises
    `SpecError` with all problems, those between specs only when each spec for itself is well.
    """

    name: str
    description: str | None = None
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

    @field_validator("description")
    @classmethod
    def _check_description(cls, text: str | None) -> str | None:
        if text is not None and len(text.encode()) > MAX_DESCRIPTION:
            raise ValueError(f"has more than {MAX_DESCRIPTION} bytes; shorten it")
        return text

    @field_validator("tags")
    @classmethod
    def _check_tags(cls, tags: Mapping[str, str]) -> Mapping[str, str]:
        for key, value in tags.items():
            if not 1 <= len(key) <= MAX_TAG_KEY or key.lower().startswith("aws:"):
                raise ValueError(
                    f"{key!r}: a tag's key is 1 to {MAX_TAG_KEY} characters, and 'aws:' belongs to AWS"
                )
            if len(value) > MAX_TAG_VALUE:
                raise ValueError(f"{key!r}: a tag's value is at most {MAX_TAG_VALUE} characters; shorten it")
        return tags

    def _problems_together(self) -> Iterator[str]:
        if not any(True for _ in self.specs()):
            yield "has no resources, and CloudFormation takes no empty stack; give it one spec at least"
        problems = [*self._doubles(), *self._dangling(), *self._output_problems()]
        # The rest follows references.
        yield from problems or problems_between(self.queues, self.buses, self.rules, self.functions, self.topics)

    def _doubles(self) -> Iterator[str]:
        specs = list(self.specs())
        for (kind, key), count in Counter((spec.kind, spec.key) for spec in specs).items():
            if count > 1:
                yield f"key {key!r} stands at {count} specs of the kind {kind}; give each a key of its own"
        for (kind, name), count in Counter((spec.kind, self._scoped_name(spec)) for spec in specs).items():
            # A bucket may go without a name.
            if count > 1 and name:
                yield f"name {name!r} stands at {count} specs of the kind {kind}; AWS takes each once"
        groups = {group.name for group in self.log_groups}
        for function in self.functions:
            if function.own_log_group in groups:
                yield (
                    f"FunctionSpec {function.key!r}: makes the log group {function.own_log_group!r}, which is "
                    "among log_groups too; give the function its name as log_group"
                )
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

    def _scoped_name(self, spec: ResourceSpec) -> object:
        if not isinstance(spec, RuleSpec):
            return spec.name
        # Two buses may each have a rule of one name, and a bus may be named or referred to.
        names = {bus.key: bus.name for bus in self.buses}
        return (names.get(spec.bus.key) if isinstance(spec.bus, Reference) else spec.bus, spec.name)

    def _output_problems(self) -> Iterator[str]:
        places = []
        for path, place, _ in output_places(self.outputs):
            places.append(place)
            if not all(map(_OUTPUT_NAME.fullmatch, path)) or len(place) >= MAX_OUTPUT_NAME:
                yield (
                    f"output {'.'.join(path)!r}: a name has a letter or digit, no letters beyond ASCII, and all "
                    f"together are at most {MAX_OUTPUT_NAME} characters; change it"
                )
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
