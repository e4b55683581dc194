"""Who may take a role: AWS services, identities of accounts, and service accounts of a Kubernetes cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import PlainValidator, ValidationInfo, field_validator

from oms_events._config import fields_by_name
from oms_events.provisioning.specs.base import Arn, Json, Reference, Scope, Spec, substituted
from oms_events.provisioning.specs.permissions import NOT_EMPTY, plain_arn
from oms_events.provisioning.specs.policies import service_of

OWN_ACCOUNT: Final = "${AWS::AccountId}"

_TELL_THE_SOURCE: Final = frozenset(("ecs-tasks", "events", "firehose", "logs", "pipes", "scheduler", "states"))
"""Services that say for whom they take a role ("Confused deputy prevention" in the guide of each)."""

_TELL_NO_SOURCE: Final = frozenset(("ec2", "edgelambda", "lambda"))
"""Services that do not, and could not take a role that asks for it; `iam:PassRole` limits who gives them one."""

_TAG_SESSIONS: Final = frozenset(("pods.eks",))
"""Services that put tags on the sessions, and must be let (EKS user guide, "pod-id-role")."""

_ACCOUNT: Final = re.compile(r"\d{12}|\$\{AWS::AccountId\}")
_IDENTITY: Final = re.compile(
    r"arn:[^:]+:(?:iam::(?:\d{12}|x):(?:root|(?:role|user)/[^\s*?]+)"
    r"|sts::(?:\d{12}|x):(?:assumed-role/[^\s*?/]+|federated-user)/[^\s*?/]+)"
)
_EXTERNAL_ID: Final = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)
_PROVIDER: Final = re.compile(r"arn:[^:]+:iam::[^:]+:oidc-provider/[^\s*]+")
_SERVICE_ACCOUNT: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class ServiceTrust(Spec):
    """An AWS service, such as `lambda.amazonaws.com`, working for resources of this account.

    A condition limits it to the resources of `source_account` (and to `source_arns`) where either is given, and
    for services that are known to say for whom they work. A rule or the like that uses this role and stands in the
    same stack must be given as text, not as a reference: each would wait for the other.
    """

    service: str
    source_arns: tuple[Arn, ...] = ()
    """The resources it may work for; `*` and `?` may stand in them."""
    source_account: str | None = None

    def statement(self, scope: Scope) -> Json:
        service = service_of(self.service)
        statement: dict[str, Json] = {
            "Effect": "Allow",
            "Principal": {"Service": substituted(self.service)},
            "Action": ["sts:AssumeRole", "sts:TagSession"] if service in _TAG_SESSIONS else "sts:AssumeRole",
        }
        if self.source_arns or self.source_account or service in _TELL_THE_SOURCE:
            account = substituted(self.source_account or OWN_ACCOUNT)
            statement["Condition"] = {"StringEquals": {"aws:SourceAccount": account}}
        if self.source_arns:
            sources = [scope.resolve(arn) for arn in self.source_arns]
            statement["Condition"]["ArnLike"] = {"aws:SourceArn": sources}
        return statement

    @field_validator("service")
    @classmethod
    def _check_service(cls, service: str) -> str:
        service_of(service)
        return service

    @field_validator("source_arns", "source_account")
    @classmethod
    def _check_source(cls, given: tuple[Arn, ...] | str | None, info: ValidationInfo) -> object:
        service = info.data.get("service")
        if given and service is not None and service_of(service) in _TELL_NO_SOURCE:
            raise ValueError(
                f"{service} does not say for whom it works, and could not take the role; leave it out"
            )
        return given

    @field_validator("source_account")
    @classmethod
    def _check_account(cls, account: str | None) -> str | None:
        if account is not None and _ACCOUNT.fullmatch(account) is None:
            raise ValueError("is no account: write its 12 digits as text")
        return account


def _read_principal(value: object) -> str | Reference:
    if isinstance(value, Mapping):
        value = Reference(**fields_by_name(value))
    if isinstance(value, Reference) and (value.kind, value.attribute) == ("role", "arn"):
        return value
    if isinstance(value, str) and (_ACCOUNT.fullmatch(value) or _IDENTITY.fullmatch(plain_arn(value))):
        return value
    shown = value.ref if isinstance(value, Reference) else value
    raise ValueError(f"{shown!r} is no identity; write an account's 12 digits, or the ARN of one role or user")


class PrincipalTrust(Spec):
    """Identities: accounts, by their 12 digits (whom they let), or ARNs of roles and users; never everybody.

    `external_id` is for an account of somebody else, who must send it.
    """

    principals: Annotated[tuple[Annotated[str | Reference, PlainValidator(_read_principal)], ...], NOT_EMPTY]
    external_id: str | None = None

    def statement(self, scope: Scope) -> Json:
        statement: dict[str, Json] = {
            "Effect": "Allow",
            "Principal": {"AWS": [_principal(principal, scope) for principal in self.principals]},
            "Action": "sts:AssumeRole",
        }
        if self.external_id is not None:
            statement["Condition"] = {"StringEquals": {"sts:ExternalId": self.external_id}}
        return statement

    @field_validator("external_id")
    @classmethod
    def _check_external_id(cls, external_id: str | None) -> str | None:
        if external_id is not None and _EXTERNAL_ID.fullmatch(external_id) is None:
            raise ValueError("an external id is 2 to 1224 letters, digits and any of _+=,.@:/-")
        return external_id


class OidcTrust(Spec):
    """Service accounts of a Kubernetes cluster (EKS), as `namespace/name`, known by its OIDC provider in IAM.

    `provider` is text: IAM wants the issuer as the name of a condition key, where a template computes nothing.
    """

    provider: str
    service_accounts: Annotated[tuple[str, ...], NOT_EMPTY]
    audience: str = "sts.amazonaws.com"

    def statement(self, scope: Scope) -> Json:
        issuer = _issuer(self.provider)
        subjects = [f"system:serviceaccount:{account.replace('/', ':')}" for account in self.service_accounts]
        return {
            "Effect": "Allow",
            "Principal": {"Federated": substituted(self.provider)},
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": {"StringEquals": {f"{issuer}:sub": subjects, f"{issuer}:aud": self.audience}},
        }

    @field_validator("provider")
    @classmethod
    def _check_provider(cls, provider: str) -> str:
        if _PROVIDER.fullmatch(plain_arn(provider)) is None or "$" in _issuer(provider):
            raise ValueError(
                "is no provider; write arn:<partition>:iam::<account>:oidc-provider/oidc.eks.<region>."
                "amazonaws.com/id/<id>, from 'oidc-provider/' on without ${...}"
            )
        return provider

    @field_validator("service_accounts")
    @classmethod
    def _check_accounts(cls, accounts: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [account for account in accounts if _SERVICE_ACCOUNT.fullmatch(account) is None]:
            raise ValueError(f"{', '.join(map(repr, wrong))}: write namespace/name, without wildcards")
        return accounts


Trust = ServiceTrust | PrincipalTrust | OidcTrust

_KINDS: Final[Mapping[str, type[Trust]]] = {
    "service": ServiceTrust,
    "principals": PrincipalTrust,
    "provider": OidcTrust,
}


def _read_trust(value: object) -> Trust:
    if isinstance(value, Trust):
        return value
    kinds = [kind for field, kind in _KINDS.items() if isinstance(value, Mapping) and field in value]
    if isinstance(value, Mapping) and len(kinds) == 1:
        return kinds[0](**fields_by_name(value))
    raise ValueError(f"{value!r} says not who; give one of {', '.join(_KINDS)}")


TrustSpec = Annotated[Trust, PlainValidator(_read_trust)]


def _issuer(provider: str) -> str:
    return provider.partition("oidc-provider/")[2]


def _principal(principal: str | Reference, scope: Scope) -> Json:
    if isinstance(principal, str) and _ACCOUNT.fullmatch(principal):
        return {"Fn::Sub": f"arn:${{AWS::Partition}}:iam::{principal}:root"}
    return scope.resolve(principal)
