"""Builders of OMS events: pure functions from what happened to a CloudEvent that can be encoded.

| builder | source | subject | extensions |
|---|---|---|---|
| schema change | `/oms/{branch}` | `{resource_type}/{resource_id}` | branch, commit, author, resourceversion |
| branch | `/oms/{branch_name}` | the branch | branch, author |
| proposal | `/oms/{branch}` | the proposal id | branch, author |
| action | `/oms/actions` | the job id | |
| system | `/oms/system/{component}` | the component | |

Every event has its subject as `partitionkey` too: events of one resource, branch, proposal, job or component
keep their order wherever a platform keeps any. In a source, what a URI path cannot have is percent-encoded.
Every builder also takes what `EventOptions` lists. All raise `InvalidEventError` that names the argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypedDict, TypeVar, Unpack
from urllib.parse import quote

from cloudevents.core.v1.event import CloudEvent
from pydantic import ValidationError

from oms_events.errors import InvalidEventError
from oms_events.events import build_event, encode
from oms_events.oms.catalogue import EventType
from oms_events.oms.data import (
    ActionData,
    BranchData,
    OmsContext,
    OmsData,
    ProposalData,
    SchemaChangeData,
    SystemData,
)

_Model = TypeVar("_Model", bound=OmsData)

_PATH_CHARACTERS: Final = "/:@!$&'()*+,;="
"""RFC 3986, 3.3: what a path may have besides letters, digits and `-._~`."""

_SCHEMA_OPERATIONS: Final = {
    "create": EventType.SCHEMA_CREATED,
    "update": EventType.SCHEMA_UPDATED,
    "delete": EventType.SCHEMA_DELETED,
    "validate": EventType.SCHEMA_VALIDATED,
}
_BRANCH_OPERATIONS: Final = {
    "create": EventType.BRANCH_CREATED,
    "update": EventType.BRANCH_UPDATED,
    "delete": EventType.BRANCH_DELETED,
    "merge": EventType.BRANCH_MERGED,
}
_PROPOSAL_OPERATIONS: Final = {
    "create": EventType.PROPOSAL_CREATED,
    "update": EventType.PROPOSAL_UPDATED,
    "approve": EventType.PROPOSAL_APPROVED,
    "reject": EventType.PROPOSAL_REJECTED,
    "merge": EventType.PROPOSAL_MERGED,
}
_ACTION_STATUSES: Final = {
    "started": EventType.ACTION_STARTED,
    "completed": EventType.ACTION_COMPLETED,
    "failed": EventType.ACTION_FAILED,
    "cancelled": EventType.ACTION_CANCELLED,
}
_SYSTEM_SUBTYPES: Final = {
    "healthcheck": EventType.SYSTEM_HEALTH_CHECK,
    "error": EventType.SYSTEM_ERROR,
    "maintenance": EventType.SYSTEM_MAINTENANCE,
}


class EventOptions(TypedDict, total=False):
    """What every builder takes besides its own arguments; `id` is a UUID4 and `time` now unless given."""

    tenant: str | None
    workspace: str | None
    correlation_id: str | None
    causation_id: str | None
    id: str | None
    time: datetime | None


def create_schema_change_event(
    *,
    operation: str,
    resource_type: str,
    resource_id: str,
    branch: str,
    commit_id: str | None = None,
    author: str | None = None,
    old_value: Any = None,
    new_value: Any = None,
    resource_version: str | None = None,
    **options: Unpack[EventOptions],
) -> CloudEvent:
    """A resource was created, updated, deleted or validated: a `schema.*` event whatever its type.

    `operation` is create, update, delete or validate (or its past tense).
    """
    verb, event_type = _choose(_SCHEMA_OPERATIONS, "operation", operation)
    data = _checked(
        SchemaChangeData,
        operation=verb,
        resource_type=resource_type,
        resource_id=resource_id,
        branch=branch,
        commit_id=commit_id,
        author=author,
        old_value=old_value,
        new_value=new_value,
    )
    return _build(
        event_type,
        f"/oms/{_path(branch)}",
        f"{resource_type}/{resource_id}",
        data,
        branch=branch,
        commit=commit_id,
        author=author,
        resourceversion=resource_version,
        **options,
    )


def create_branch_event(
    *,
    operation: str,
    branch_name: str,
    author: str | None = None,
    target_branch: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    **options: Unpack[EventOptions],
) -> CloudEvent:
    """A branch was created, updated, deleted, or merged into `target_branch`.

    `operation` is create, update, delete or merge (or its past tense, which the data has).
    """
    _, event_type = _choose(_BRANCH_OPERATIONS, "operation", operation)
    data = _checked(
        BranchData,
        operation=event_type.change,
        branch_name=branch_name,
        author=author,
        target_branch=target_branch,
        metadata=metadata,
    )
    return _build(
        event_type,
        f"/oms/{_path(branch_name)}",
        branch_name,
        data,
        branch=branch_name,
        author=author,
        **options,
    )


def create_proposal_event(
    *,
    operation: str,
    proposal_id: str,
    branch: str,
    author: str | None = None,
    title: str | None = None,
    description: str | None = None,
    reviewers: Iterable[str] | None = None,
    **options: Unpack[EventOptions],
) -> CloudEvent:
    """A proposal on `branch` was created, updated, approved, rejected or merged.

    `operation` is create, update, approve, reject or merge (or its past tense, which the data has).
    """
    _, event_type = _choose(_PROPOSAL_OPERATIONS, "operation", operation)
    data = _checked(
        ProposalData,
        operation=event_type.change,
        proposal_id=proposal_id,
        branch=branch,
        author=author,
        title=title,
        description=description,
        reviewers=reviewers,
    )
    return _build(event_type, f"/oms/{_path(branch)}", proposal_id, data, branch=branch, author=author, **options)


def create_action_event(
    *,
    action_type: str,
    job_id: str,
    status: str,
    progress: float | None = None,
    result: Any = None,
    error_message: str | None = None,
    **options: Unpack[EventOptions],
) -> CloudEvent:
    """A job started, completed, failed or was cancelled: `status` says which."""
    _, event_type = _choose(_ACTION_STATUSES, "status", status)
    data = _checked(
        ActionData,
        action_type=action_type,
        job_id=job_id,
        status=status,
        progress=progress,
        result=result,
        error_message=error_message,
    )
    return _build(event_type, "/oms/actions", job_id, data, **options)


def create_system_event(
    *,
    event_subtype: str,
    component: str,
    status: str,
    details: Mapping[str, Any] | None = None,
    **options: Unpack[EventOptions],
) -> CloudEvent:
    """A component reports its health, an error or maintenance: `event_subtype` says which."""
    _, event_type = _choose(_SYSTEM_SUBTYPES, "event_subtype", event_subtype)
    data = _checked(SystemData, event_subtype=event_subtype, component=component, status=status, details=details)
    return _build(event_type, f"/oms/system/{_path(component)}", component, data, **options)


def _choose(known: Mapping[str, EventType], field: str, word: object) -> tuple[str, EventType]:
    for name, event_type in known.items():
        if word in (name, event_type.change):
            return name, event_type
    raise InvalidEventError(f"{field} = {word!r} is not known; give one of {', '.join(known)}", field=field)


def _path(name: str) -> str:
    return quote(name, safe=_PATH_CHARACTERS)


def _checked(model: type[_Model], **values: Any) -> _Model:
    try:
        return model(**values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        fields = [".".join(str(part) for part in problem["loc"]) for problem in problems]
        text = "; ".join(
            f"{field} = {problem['input']!r}: {problem['msg']}"
            for field, problem in zip(fields, problems, strict=True)
        )
        raise InvalidEventError(text, field=fields[0]) from error


def _build(
    event_type: EventType,
    source: str,
    subject: str,
    data: OmsData,
    *,
    branch: str | None = None,
    commit: str | None = None,
    author: str | None = None,
    resourceversion: str | None = None,
    tenant: str | None = None,
    workspace: str | None = None,
    correlation_id: str | None = None,
    causation_id: str | None = None,
    id: str | None = None,  # noqa: A002 - the attribute's name in the specification
    time: datetime | None = None,
) -> CloudEvent:
    context = _checked(
        OmsContext,
        branch=branch,
        commit=commit,
        author=author,
        resourceversion=resourceversion,
        tenant=tenant,
        workspace=workspace,
        correlationid=correlation_id,
        causationid=causation_id,
    )
    try:
        document = data.to_json()
    except ValueError as error:
        raise InvalidEventError(f"data has no JSON form: {error}", field="data") from error
    event = build_event(
        event_type.value,
        source,
        document,
        id=id,
        time=time,
        subject=subject,
        datacontenttype="application/json",
        partitionkey=subject,
        **context.to_json(),
    )
    encode(event)
    return event
