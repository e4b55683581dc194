"""What OMS events carry: their data, one typed model per family, and their context, as extensions."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, FiniteFloat, StringConstraints

Name = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
"""A text that may stand in a CloudEvents attribute: not empty, no control characters (CloudEvents 1.0, 3.1)."""


class OmsData(BaseModel):
    """The base of all data of OMS events: `SchemaChangeData.model_validate(event.get_data())` reads it back.

    On the wire an absent field is left out, so that a condition can ask whether it exists; fields that a
    newer sender adds are ignored.
    """

    # NaN stays NaN, for the encoding to refuse; it must not become null without a word.
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, ser_json_inf_nan="constants")

    def to_json(self) -> dict[str, Any]:
        """A copy in the types of JSON: dates as RFC 3339 text, models as objects. Raises `ValueError`."""
        return {name: value for name, value in self.model_dump(mode="json").items() if value is not None}


class SchemaChangeData(OmsData):
    """A change of one resource of the schema: `operation` is create, update, delete or validate."""

    operation: Name
    resource_type: Name
    resource_id: Name
    branch: Name
    commit_id: Name | None = None
    author: Name | None = None
    old_value: Any = None
    new_value: Any = None


class BranchData(OmsData):
    """A change of a branch: `operation` is created, updated, deleted or merged (into `target_branch`)."""

    operation: Name
    branch_name: Name
    author: Name | None = None
    target_branch: Name | None = None
    metadata: dict[str, Any] | None = None


class ProposalData(OmsData):
    """A step of a proposal: `operation` is created, updated, approved, rejected or merged."""

    operation: Name
    proposal_id: Name
    branch: Name
    author: Name | None = None
    title: str | None = None
    description: str | None = None
    reviewers: tuple[Name, ...] | None = None


class ActionData(OmsData):
    """A step of a job: `status` is started, completed, failed or cancelled; `progress` as the job counts it."""

    action_type: Name
    job_id: Name
    status: Name
    progress: FiniteFloat | None = None
    result: Any = None
    error_message: str | None = None


class SystemData(OmsData):
    """A state of a component: `event_subtype` is healthcheck, error or maintenance."""

    event_subtype: Name
    component: Name
    status: str
    details: dict[str, Any] | None = None


class OmsContext(OmsData):
    """The context of an OMS event as its extension attributes.

    `OmsContext.model_validate(event.get_attributes())` reads it back.
    """

    branch: Name | None = None
    commit: Name | None = None
    author: Name | None = None
    tenant: Name | None = None
    workspace: Name | None = None
    resourceversion: Name | None = None
    correlationid: Name | None = None
    causationid: Name | None = None
