"""Specs to a CloudFormation template. Pure: the same stack gives the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from oms_events.errors import SpecError
from oms_events.provisioning.circles import circle
from oms_events.provisioning.policy_sizes import size_problems
from oms_events.provisioning.specs.base import (
    AnySpec,
    Arn,
    Grant,
    Json,
    Name,
    Reference,
    Resource,
    ResourceSpec,
    logical_id,
    substituted,
)
from oms_events.provisioning.specs.outputs import output_places, outputs_layout
from oms_events.provisioning.specs.stack import StackSpec
from oms_events.provisioning.template import METADATA_KEY, Template

MAX_RESOURCES: Final = 500
"""Resources of a template (CloudFormation quotas)."""

_INVOKE: Final = "lambda:InvokeFunction"


def synthesize(stack: StackSpec) -> Template:
    """The stack as a template that CloudFormation, CDK, SAM or a pipeline can deploy.

    It has no parameters and no conditions: everything was decided by the specs. Raises `SpecError` for more than
    500 resources, for those that need each other, and for policies that are longer than AWS takes them. Raises
    `TypeError` for what is no StackSpec.
    """
    _check_type(stack)
    scope = _Scope(stack)
    resources = _resources(stack, scope)
    if len(resources) > MAX_RESOURCES:
        problem = f"{len(resources)} resources, and a stack takes {MAX_RESOURCES}; split it"
        raise SpecError(f"StackSpec {stack.name!r}", [problem])
    if path := circle(resources):
        names = {spec.logical_id: f"{spec.kind}:{spec.key}" for spec in stack.specs()}
        shown = " needs ".join(names.get(name, name) for name in path)
        problem = f"{shown}: CloudFormation cannot begin; write the name or ARN of one of them as text"
        raise SpecError(f"StackSpec {stack.name!r}", [problem])
    if problems := list(size_problems(resources)):
        raise SpecError(f"StackSpec {stack.name!r}", problems)
    document: dict[str, Json] = {"AWSTemplateFormatVersion": "2010-09-09"}
    if stack.description is not None:
        document["Description"] = stack.description
    if stack.outputs:
        document["Metadata"] = {METADATA_KEY: {"Outputs": outputs_layout(stack.outputs)}}
    document["Resources"] = {name: resource.document() for name, resource in resources.items()}
    places = list(output_places(stack.outputs))
    if places:
        document["Outputs"] = {
            place: {"Description": ".".join(path), "Value": scope.resolve(value)} for path, place, value in places
        }
    return Template(
        stack_name=stack.name,
        document=document,
        tags=dict(stack.tags),
        termination_protection=stack.termination_protection,
    )


def _check_type(stack: object) -> None:
    if not isinstance(stack, StackSpec):
        raise TypeError(f"synthesize takes a StackSpec, not {type(stack).__name__}: call .stack() of the preset")


class _Scope:
    def __init__(self, stack: StackSpec) -> None:
        self._specs = tuple(stack.specs())
        self._known = {(spec.kind, spec.key): spec for spec in self._specs}

    def find(self, reference: Reference) -> ResourceSpec:
        return self._known[reference.kind, reference.key]

    def resolve(self, value: Arn | Name) -> Json:
        if isinstance(value, Reference):
            return self.find(value).value_of(value.attribute)
        return substituted(value)

    def of_type(self, spec_type: type[AnySpec]) -> Sequence[AnySpec]:
        return tuple(spec for spec in self._specs if isinstance(spec, spec_type))


def _resources(stack: StackSpec, scope: _Scope) -> dict[str, Resource]:
    made: dict[str, Resource] = {}
    for spec in stack.specs():
        _add(made, spec.resources(scope))
    of_specs: dict[tuple[str, str], list[Grant]] = {}
    for spec in stack.specs():
        for grant in spec.grants(scope):
            if isinstance(grant.to, Reference):
                of_specs.setdefault((grant.to.kind, grant.to.key), []).append(grant)
            elif "*" in grant.to or "?" in grant.to:
                problem = f"{grant.to!r} stands for many, and {grant.principal} reaches one; write its name"
                raise SpecError(f"{type(spec).__name__} {spec.key!r}", [problem])
            elif _INVOKE in grant.actions:
                _add(made, _permission(spec, grant.to, grant))
    for spec in stack.specs():
        _add(made, spec.granted(of_specs.get((spec.kind, spec.key), []), scope))
    return made


def _permission(spec: ResourceSpec, function: str, grant: Grant) -> dict[str, Resource]:
    """Lets a service invoke a function that is not of this stack."""
    properties = {
        "Action": _INVOKE,
        "FunctionName": substituted(function),
        "Principal": grant.principal,
        "SourceArn": grant.source,
    }
    name = function.partition(":function:")[2] or function
    return {
        logical_id(spec.logical_id, "Invokes", name): Resource(
            type="AWS::Lambda::Permission", properties=properties
        )
    }


def _add(made: dict[str, Resource], more: dict[str, Resource]) -> None:
    for name, resource in more.items():
        known = made.setdefault(name, resource)
        if known != resource:
            raise SpecError(name, ["two different resources have this logical id; change the key of one spec"])
