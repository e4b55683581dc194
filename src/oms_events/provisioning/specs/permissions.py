"""What a role may do, and to what: statements that name their actions and their resources."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, PlainValidator, field_validator, model_validator

from oms_events.provisioning.specs.actions import SERVICES, WITHOUT_RESOURCE
from oms_events.provisioning.specs.base import Json, Name, Reference, Scope, Spec, check_arn

EVERYTHING: Final = "*"

_ACTION: Final = re.compile(r"([a-z0-9-]+):([A-Za-z][A-Za-z0-9]*)")
_SUFFIX: Final = re.compile(r"[/:][^\s\"]+")
_OPERATOR: Final = re.compile(
    r"(ForAllValues:|ForAnyValue:)?"
    r"(String(Not)?Equals(IgnoreCase)?|String(Not)?Like|Arn(Not)?(Equals|Like)|(Not)?IpAddress|Bool|BinaryEquals"
    r"|(Numeric|Date)((Not)?Equals|(Less|Greater)Than(Equals)?))(IfExists)?|Null"
)
_PSEUDO: Final = re.compile(r"\$\{AWS::\w+\}")
_CONDITION_KEY: Final = re.compile(r"[A-Za-z0-9-]+:\S+")

_BEGIN_WITH_A_NAME: Final = frozenset(("execute-api", "s3", "sns", "sqs"))
"""Services whose ARNs have no type before the resource's name."""

_MADE_BY_THE_CALL: Final = "network-interface"
"""The type of resource that nobody can name before: EC2 makes its id, and Lambda calls for it."""


class Suffixed(Reference):
    """What belongs to another resource of the stack: its ARN and a `suffix`, such as `/index/*` or `/*`."""

    suffix: str

    @classmethod
    def of(cls, reference: Reference, suffix: str) -> Self:
        """What belongs to the resource that `reference` means."""
        return cls(ref=reference.ref, attribute=reference.attribute, suffix=suffix)

    @field_validator("suffix")
    @classmethod
    def _check_suffix(cls, suffix: str) -> str:
        if _SUFFIX.fullmatch(suffix) is None:
            raise ValueError("a suffix begins with '/' or ':', such as '/index/*'")
        return suffix


def _check_some(values: tuple[object, ...]) -> tuple[object, ...]:
    if not values:
        raise ValueError("is empty; name one at least")
    return values


NOT_EMPTY: Final = AfterValidator(_check_some)
"""Unlike `min_length` it says nothing more where an item is at fault."""


def _read_resource(value: object) -> str | Reference:
    if isinstance(value, Mapping):
        value = (Suffixed if "suffix" in value else Reference)(**value)
    if isinstance(value, Reference):
        if not value.attribute.endswith("arn"):
            raise ValueError(
                f"ref = {value.ref!r}, attribute = {value.attribute!r}: a policy takes ARNs; use 'arn'"
            )
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is neither an ARN nor a reference {{ref: 'kind:key'}}")
    if value != EVERYTHING and (problem := _too_wide(check_arn(value))):
        raise ValueError(problem)
    return value


PolicyResource = Annotated[str | Reference, PlainValidator(_read_resource)]
"""An ARN, a reference to a resource of the stack, what belongs to one (`Suffixed`), or `*`."""


def _read_values(value: object) -> tuple[str | Reference, ...]:
    values = value if isinstance(value, list | tuple) else (value,)
    if not values:
        raise ValueError("has no values; name one")
    return tuple(_read_value(one) for one in values)


def _read_value(value: object) -> str | Reference:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return Reference(**value)
    if isinstance(value, int) or (isinstance(value, str) and value):
        return str(value)
    if isinstance(value, Reference):
        return value
    raise ValueError(f"{value!r} is no value of a condition; write text, a number, true or {{ref: 'kind:key'}}")


ConditionValues = Annotated[tuple[Name, ...], PlainValidator(_read_values)]


class StatementSpec(Spec):
    """What is allowed: `actions`, each by its whole name, on `resources`, under `conditions`, and `why`.

    `*` and what is as wide (`table/*`) are refused as resources, except where IAM knows none for the actions.
    `conditions` are `{operator: {key: value or values}}`.
    """

    actions: Annotated[tuple[str, ...], NOT_EMPTY]
    resources: Annotated[tuple[PolicyResource, ...], NOT_EMPTY]
    conditions: Mapping[str, Mapping[str, ConditionValues]] = {}
    why: str = Field(max_length=200, pattern=r"^\S[^\n]*$")
    """What it is for, in a line: the docs' table of permissions shows it."""
    sid: str = Field(default="", max_length=100, pattern=r"^[A-Za-z0-9]*$")

    def document(self, scope: Scope) -> Json:
        """The statement as it stands in a policy."""
        statement: dict[str, Json] = {"Sid": self.sid} if self.sid else {}
        statement |= {
            "Effect": "Allow",
            "Action": list(self.actions),
            "Resource": [_rendered(resource, scope) for resource in self.resources],
        }
        if self.conditions:
            statement["Condition"] = {
                operator: {key: [scope.resolve(value) for value in values] for key, values in keys.items()}
                for operator, keys in self.conditions.items()
            }
        return statement

    @field_validator("actions")
    @classmethod
    def _check_actions(cls, actions: tuple[str, ...]) -> tuple[str, ...]:
        if problems := [problem for action in actions if (problem := _action_problem(action))]:
            raise ValueError("; ".join(problems))
        return actions

    @field_validator("conditions")
    @classmethod
    def _check_conditions(
        cls, conditions: Mapping[str, Mapping[str, object]]
    ) -> Mapping[str, Mapping[str, object]]:
        for operator, keys in conditions.items():
            if _OPERATOR.fullmatch(operator) is None:
                raise ValueError(f"{operator!r} is no operator of IAM; use one such as StringEquals or ArnLike")
            if not keys:
                raise ValueError(f"{operator} has no keys; give it {{key: value}}")
            for key in keys:
                if _CONDITION_KEY.fullmatch(key) is None:
                    raise ValueError(f"{key!r} is no condition key; write service:name, such as aws:SourceArn")
        return conditions

    @model_validator(mode="after")
    def _check(self) -> Self:
        if problems := list(self._width_problems()):
            raise ValueError("; ".join(problems))
        return self

    def _width_problems(self) -> Iterator[str]:
        without = [action for action in self.actions if action in WITHOUT_RESOURCE]
        named = ", ".join(action for action in self.actions if action not in WITHOUT_RESOURCE)
        if EVERYTHING in self.resources:
            if named:
                yield f"resources = '*': {named} can be limited; name the resources, or split the statement"
            elif len(self.resources) > 1:
                yield "resources: '*' means the others too; leave them out"
        elif without:
            yield (
                f"actions: IAM knows no resources for {', '.join(without)}, and would allow nothing here; give a "
                "statement of their own with resources = ['*']"
            )


def plain_arn(arn: str) -> str:
    """An ARN to be taken apart: what stands for the partition, the Region or the account has colons of its own."""
    return _PSEUDO.sub("x", arn)


def _action_problem(action: str) -> str | None:
    if "*" in action or "?" in action:
        return f"{action!r} has a wildcard; name each action"
    found = _ACTION.fullmatch(action)
    if found is None:
        return f"{action!r} is no action; write service:Action, such as events:PutEvents"
    if found[1] not in SERVICES:
        return (
            f"{action!r}: no service known here has the prefix {found[1]!r} (EventBridge's is 'events', the "
            "logs' is 'logs'); correct it, or allow the service by one of managed_policies"
        )
    return None


def _too_wide(arn: str) -> str | None:
    """Why an ARN allows more than what somebody meant by name; None when it names something."""
    service, _, account, resource = plain_arn(arn).split(":", 5)[2:]
    first, *rest = re.split(r"[:/]+", resource)
    has_type = service not in _BEGIN_WITH_A_NAME and bool(rest)
    name = rest[0] if has_type else first
    if account == EVERYTHING:
        return f"{arn!r} is for all accounts; write the account, or ${{AWS::AccountId}}"
    if has_type and first == _MADE_BY_THE_CALL:
        return None
    if not name.strip("*?") or (has_type and not first.strip("*?")):
        return f"{arn!r} names no resource; write its name, or the part of it that all have"
    return None


def _rendered(resource: str | Reference, scope: Scope) -> Json:
    resolved = scope.resolve(resource)
    if isinstance(resource, Suffixed):
        return {"Fn::Sub": [f"${{Arn}}{resource.suffix}", {"Arn": resolved}]}
    return resolved
