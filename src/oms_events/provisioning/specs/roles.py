"""IAM roles with all that they may do, and the table that says so."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Self

from pydantic import Field, field_validator, model_validator

from oms_events.provisioning.specs.base import Arn, Json, Reference, Resource, ResourceSpec, Scope
from oms_events.provisioning.specs.permissions import NOT_EMPTY, StatementSpec, Suffixed, plain_arn
from oms_events.provisioning.specs.policies import policy_document
from oms_events.provisioning.specs.trust import OidcTrust, PrincipalTrust, ServiceTrust, TrustSpec

__all__ = [
    "OidcTrust",
    "PermissionRow",
    "PrincipalTrust",
    "RoleSpec",
    "ServiceTrust",
    "StatementSpec",
    "Suffixed",
    "TrustSpec",
    "permission_rows",
]

_NAME: Final = re.compile(r"[\w+=,.@-]{1,64}", re.ASCII)
_DESCRIPTION: Final = re.compile(r"[\t\n\r\x20-\x7e\xa1-\xff]*")
_POLICY_ARN: Final = re.compile(r"arn:[^:]+:iam::[^:]+:policy/\S+")


class RoleSpec(ResourceSpec):
    """An IAM role: who may take it (`trust`), and what it may do (`statements`, and AWS's `managed_policies`).

    Names and limits: IAM API reference, CreateRole. A managed policy is as wide as its author made it.
    """

    kind: ClassVar[str] = "role"
    returns: ClassVar[Mapping[str, str]] = {"arn": "Arn", "name": "Ref"}

    description: str | None = Field(default=None, max_length=1000)
    trust: Annotated[tuple[TrustSpec, ...], NOT_EMPTY]
    statements: tuple[StatementSpec, ...] = ()
    managed_policies: tuple[Arn, ...] = ()
    max_session_duration: int = Field(default=3600, ge=3600, le=43_200)
    """Seconds for which somebody may take it; services renew by themselves."""
    permissions_boundary: Arn | None = None

    def resources(self, scope: Scope) -> dict[str, Resource]:
        properties: dict[str, Json] = {
            "RoleName": self.name,
            "Description": self.description,
            "AssumeRolePolicyDocument": policy_document([trust.statement(scope) for trust in self.trust]),
            "Policies": self._policies(scope),
            "ManagedPolicyArns": [scope.resolve(arn) for arn in self.managed_policies] or None,
            "MaxSessionDuration": self.max_session_duration,
            "PermissionsBoundary": None
            if self.permissions_boundary is None
            else scope.resolve(self.permissions_boundary),
        }
        return {self.logical_id: Resource(type="AWS::IAM::Role", properties=properties)}

    def _policies(self, scope: Scope) -> Json:
        if not self.statements:
            return None
        document = policy_document([statement.document(scope) for statement in self.statements])
        return [{"PolicyName": self.name, "PolicyDocument": document}]

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if _NAME.fullmatch(name) is None:
            raise ValueError("a role's name is 1 to 64 letters, digits and any of _+=,.@-")
        return name

    @field_validator("description")
    @classmethod
    def _check_description(cls, description: str | None) -> str | None:
        if description is not None and _DESCRIPTION.fullmatch(description) is None:
            raise ValueError("IAM takes characters of Latin-1 only; change the others")
        return description

    @field_validator("managed_policies", "permissions_boundary")
    @classmethod
    def _check_policies(cls, given: tuple[Arn, ...] | Arn | None) -> tuple[Arn, ...] | Arn | None:
        for arn in given if isinstance(given, tuple) else (given,):
            if isinstance(arn, str) and _POLICY_ARN.fullmatch(plain_arn(arn)) is None:
                raise ValueError(
                    f"{arn!r} is no policy; write arn:<partition>:iam::<account or aws>:policy/<name>"
                )
        return given

    @model_validator(mode="after")
    def _check_sids(self) -> Self:
        counts = Counter(statement.sid for statement in self.statements if statement.sid)
        if double := [sid for sid, count in counts.items() if count > 1]:
            raise ValueError(f"statements: sid {double[0]!r} stands twice; give each its own")
        return self


@dataclass(frozen=True, slots=True)
class PermissionRow:
    """One thing that a role may do, for people: `resource` names those of the stack as `kind:key`."""

    role: str
    action: str
    resource: str
    condition: str
    why: str


def permission_rows(roles: Iterable[RoleSpec]) -> Iterator[PermissionRow]:
    """What the roles may do, a row for each action on each resource, in the order of the specs."""
    for role in roles:
        for statement in role.statements:
            condition = " and ".join(_conditions(statement))
            for action in statement.actions:
                for resource in statement.resources:
                    yield PermissionRow(role.name, action, _text(resource), condition, statement.why)
        for policy in role.managed_policies:
            yield PermissionRow(role.name, _text(policy), "as the policy says", "", "a managed policy")


def _conditions(statement: StatementSpec) -> Iterator[str]:
    for operator, keys in statement.conditions.items():
        for key, values in keys.items():
            yield f"{key} {operator} {', '.join(map(_text, values))}"


def _text(value: str | Reference) -> str:
    if isinstance(value, str):
        return value
    attribute = "" if value.attribute == "arn" else f".{value.attribute}"
    return f"{value.ref}{attribute}{value.suffix if isinstance(value, Suffixed) else ''}"
