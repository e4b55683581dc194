"""What a role may do, and to what: statements that name their actions and their resources."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, PlainValidator, field_validator

from oms_events._config import fields_by_name
from oms_events.provisioning.specs.actions import SLIPS, WITHOUT_RESOURCE
from oms_events.provisioning.specs.base import Json, Name, Reference, Scope, Spec, check_arn, escaped

EVERYTHING: Final = "*"

_ACTION: Final = re.compile(r"([a-z0-9-]+):([A-Za-z][A-Za-z0-9]*)")
_SUFFIX: Final = re.compile(r"[/:][^\s\"]+")
_OPERATOR: Final = re.compile(
    r"(ForAllValues:|ForAnyValue:)?"
    r"(String(Not)?Equals(IgnoreCase)?|String(Not)?Like|Arn(Not)?(Equals|Like)|(Not)?IpAddress|Bool|BinaryEquals"
    r"|(Numeric|Date)((Not)?Equals|(Less|Greater)Than(Equals)?))(IfExists)?|Null"
)
_VARIABLE: Final = re.compile(r"\$\{[^}]*\}")
_CONDITION_KEY: Final = re.compile(r"[A-Za-z0-9-]+:\S+")

_BEGIN_WITH_A_NAME: Final = frozenset(("execute-api", "s3", "sns", "sqs"))
"""Services whose ARNs have no type before the resource's name; in S3 those with an account have one."""

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
        value = (Suffixed if "suffix" in value else Reference)(**fields_by_name(value))
    if isinstance(value, Reference):
        if not value.attribute.endswith("arn"):
            raise ValueError(
                f"ref = {value.ref!r}, attribute = {value.attribute!r}: a policy takes ARNs; use 'arn'"
            )
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is neither an ARN nor a reference {{ref: 'kind:key'}}")
    return value if value == EVERYTHING else check_width(check_arn(value))


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
        return Reference(**fields_by_name(value))
    if isinstance(value, int) or (isinstance(value, str) and value):
        return str(value)
    if isinstance(value, Reference):
        return value
    raise ValueError(f"{value!r} is no value of a condition; write text, a number, true or {{ref: 'kind:key'}}")


ConditionValues = Annotated[tuple[Name, ...], PlainValidator(_read_values)]


def _check_conditions(conditions: Mapping[str, Mapping[str, object]]) -> Mapping[str, Mapping[str, object]]:
    for operator, keys in conditions.items():
        if _OPERATOR.fullmatch(operator) is None:
            raise ValueError(f"{operator!r} is no operator of IAM; use one such as StringEquals or ArnLike")
        if not keys:
            raise ValueError(f"{operator} has no keys; give it {{key: value}}")
        for key in keys:
            if _CONDITION_KEY.fullmatch(key) is None:
                raise ValueError(f"{key!r} is no condition key; write service:name, such as aws:SourceArn")
    return conditions


Conditions = Annotated[Mapping[str, Mapping[str, ConditionValues]], AfterValidator(_check_conditions)]
"""`{operator: {key: value or values}}`."""


def condition_block(conditions: Conditions, scope: Scope) -> Json:
    """The conditions as they stand in a policy."""
    return {
        operator: {key: [scope.resolve(value) for value in values] for key, values in keys.items()}
        for operator, keys in conditions.items()
    }


def check_actions(actions: tuple[str, ...]) -> tuple[str, ...]:
    """Actions of IAM, each by its whole name. Raises `ValueError`."""
    if problems := [problem for action in actions if (problem := _action_problem(action))]:
        raise ValueError("; ".join(problems))
    return actions


Actions = Annotated[tuple[str, ...], NOT_EMPTY, AfterValidator(check_actions)]


class StatementSpec(Spec):
    """What is allowed: `actions`, each by its whole name, on `resources`, under `conditions`.

    `*` and what is as wide (`table/*`) are refused as resources, except where IAM knows none for the actions: the
    library knows that of those that it needs, and `any_resource` says it of others. `conditions` are
    `{operator: {key: value or values}}`.
    """

    actions: Actions
    resources: Annotated[tuple[PolicyResource, ...], NOT_EMPTY]
    conditions: Conditions = Field(default_factory=dict)
    any_resource: bool = False
    """Says that IAM knows no resources for the actions (Service Authorization Reference), where the library does
    not know it: `resources` are `*` then."""
    why: str = Field(default="", max_length=200, pattern=r"^(\S[^\n]*)?$")
    """What it is for, in a line, for the table of permissions (`permission_rows`); `any_resource` needs it."""
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
            statement["Condition"] = condition_block(self.conditions, scope)
        return statement

    def _problems_together(self) -> Iterator[str]:
        if self.any_resource and not self.why:
            yield "any_resource = true needs `why`: say in a line what it is for"
        without = [action for action in self.actions if action in WITHOUT_RESOURCE]
        named = ", ".join(action for action in self.actions if action not in WITHOUT_RESOURCE)
        if EVERYTHING in self.resources:
            if named and not self.any_resource:
                yield (
                    f"resources = '*': name the resources of {named}; where IAM knows none for it, set "
                    "any_resource = true"
                )
            elif len(self.resources) > 1:
                yield "resources: '*' means the others too; leave them out"
        elif self.any_resource:
            yield "any_resource is for resources = ['*']; leave it out where they are named"
        elif without:
            yield (
                f"actions: IAM knows no resources for {', '.join(without)}, and would allow nothing here; give a "
                "statement of their own with resources = ['*']"
            )


def plain_arn(arn: str) -> str:
    """An ARN to be taken apart: what stands for the account, and other variables, have colons of their own."""
    return _VARIABLE.sub("x", arn)


def _action_problem(action: str) -> str | None:
    if "*" in action or "?" in action:
        return f"{action!r} has a wildcard; name each action"
    found = _ACTION.fullmatch(action)
    if found is None:
        return f"{action!r} is no action; write service:Action, such as events:PutEvents"
    if meant := SLIPS.get(found[1]):
        return f"{action!r}: no service has the prefix {found[1]!r}; write {meant}:{found[2]}"
    return None


def check_width(arn: str) -> str:
    """An ARN that names a resource, if only by a part of its name. Raises `ValueError` for one that is wider."""
    parts = plain_arn(arn).split(":", 5)
    if len(parts) < 6:
        raise ValueError(f"{arn!r} is no ARN; its variables hide the parts of it")
    service, _, account, resource = parts[2:]
    # API Gateway's begin with a slash.
    first, *rest = re.split(r"[:/]+", resource.lstrip("/"))
    has_type = service not in _BEGIN_WITH_A_NAME or (service == "s3" and bool(account))
    if _has_wildcard(account):
        raise ValueError(f"{arn!r} is for all accounts; write the account, or ${{AWS::AccountId}}")
    name = rest[0] if has_type and rest else first
    is_known = name.strip("*?") or (has_type and first == _MADE_BY_THE_CALL)
    if not is_known or (has_type and _has_wildcard(first)):
        raise ValueError(f"{arn!r} names no resource; write its name, or the part of it that all have")
    return arn


def _has_wildcard(text: str) -> bool:
    return not set("*?").isdisjoint(text)


def _rendered(resource: str | Reference, scope: Scope) -> Json:
    resolved = scope.resolve(resource)
    if isinstance(resource, Suffixed):
        return {"Fn::Sub": [f"${{Arn}}{escaped(resource.suffix)}", {"Arn": resolved}]}
    return resolved
