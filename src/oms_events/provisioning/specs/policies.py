"""Statements of the policies that stand on resources: who may use them, for whom, and only over TLS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from oms_events.provisioning.specs.base import Grant, Json

_VERSION: Final = "2012-10-17"


def policy_document(statements: Sequence[Json]) -> Json:
    """The document around the statements."""
    return {"Version": _VERSION, "Statement": list(statements)}


def grant_statements(grants: Sequence[Grant], resource: Json) -> list[Json]:
    """One statement for each service and what it may do, limited to those for whom it acts (confused deputy)."""
    together: dict[tuple[str, tuple[str, ...]], list[Json]] = {}
    for grant in grants:
        sources = together.setdefault((grant.principal, tuple(grant.actions)), [])
        if grant.source not in sources:
            sources.append(grant.source)
    return [
        {
            "Sid": f"Allow{at}",
            "Effect": "Allow",
            "Principal": {"Service": principal},
            "Action": list(actions),
            "Resource": resource,
            "Condition": {"ArnEquals": {"aws:SourceArn": sources}},
        }
        for at, ((principal, actions), sources) in enumerate(together.items(), start=1)
    ]


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
