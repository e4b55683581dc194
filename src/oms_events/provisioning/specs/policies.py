"""Statements of the policies that stand on resources: who may use them, for whom, and only over TLS."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import orjson

from oms_events.provisioning.specs.base import Grant, Json

MAX_LISTED: Final = 10
"""Sources of one group that a policy names one by one; where there are more it names the group."""

_VERSION: Final = "2012-10-17"
_PRINCIPAL: Final = re.compile(
    r"([a-z0-9-]+(?:\.[a-z0-9-]+)*?)(?:\.(?:[a-z]{2}(?:-[a-z]+)+-\d+|\$\{AWS::Region\}))?\.amazonaws\.com(?:\.cn)?"
)


def service_of(principal: str) -> str:
    """The service that a principal is, without its Region: `logs` for `logs.us-east-1.amazonaws.com`.

    Raises `ValueError`.
    """
    found = _PRINCIPAL.fullmatch(principal)
    if found is None:
        raise ValueError("is no service principal; write one such as 'lambda.amazonaws.com'")
    return found[1]


def policy_document(statements: Sequence[Json]) -> Json:
    """The document around the statements."""
    return {"Version": _VERSION, "Statement": list(statements)}


def grant_statements(grants: Sequence[Grant], resource: Json) -> list[Json]:
    """One statement for each service and what it may do, limited to those for whom it acts (confused deputy).

    More than ten sources of one group are allowed as the group: ten rules of a bus by their names, and beyond that
    any rule of that bus in the account and Region.
    """
    together: dict[tuple[str, tuple[str, ...]], list[Grant]] = {}
    for grant in grants:
        together.setdefault((grant.principal, tuple(grant.actions)), []).append(grant)
    return [
        {
            "Sid": f"Allow{at}",
            "Effect": "Allow",
            "Principal": {"Service": principal},
            "Action": list(actions),
            "Resource": resource,
            "Condition": source_condition(same),
        }
        for at, ((principal, actions), same) in enumerate(together.items(), start=1)
    ]


def source_condition(grants: Sequence[Grant]) -> Json:
    """Limits a statement to those for whom a service acts: each by itself, or a group of which there are many."""
    members: dict[bytes, set[bytes]] = {}
    for grant in grants:
        members.setdefault(orjson.dumps(grant.group), set()).add(orjson.dumps(grant.source))
    wide = [grant.group is not None and len(members[orjson.dumps(grant.group)]) > MAX_LISTED for grant in grants]
    sources: list[Json] = []
    for grant, is_wide in zip(grants, wide, strict=True):
        source = grant.group if is_wide else grant.source
        if source not in sources:
            sources.append(source)
    return {"ArnLike" if any(wide) else "ArnEquals": {"aws:SourceArn": sources}}


def tls_statement(actions: str, resource: Json) -> Json:
    """Refuses everybody who does not come over TLS."""
    return {
        "Sid": "DenyWithoutTls",
        "Effect": "Deny",
        "Principal": "*",
        "Action": actions,
        "Resource": resource,
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
