"""The catalogue of OMS event types: what can happen in an ontology, by family."""

from __future__ import annotations

from enum import StrEnum


class EventFamily(StrEnum):
    """What an OMS event is about: the last segment but one of its type."""

    SCHEMA = "schema"
    OBJECT_TYPE = "objecttype"
    PROPERTY = "property"
    LINK_TYPE = "linktype"
    BRANCH = "branch"
    PROPOSAL = "proposal"
    ACTION = "action"
    SYSTEM = "system"


class EventType(StrEnum):
    """Every event type of the OMS: `com.foundry.oms.<family>.<change>`. Members are plain strings."""

    SCHEMA_CREATED = "com.foundry.oms.schema.created"
    SCHEMA_UPDATED = "com.foundry.oms.schema.updated"
    SCHEMA_DELETED = "com.foundry.oms.schema.deleted"
    SCHEMA_VALIDATED = "com.foundry.oms.schema.validated"

    OBJECT_TYPE_CREATED = "com.foundry.oms.objecttype.created"
    OBJECT_TYPE_UPDATED = "com.foundry.oms.objecttype.updated"
    OBJECT_TYPE_DELETED = "com.foundry.oms.objecttype.deleted"

    PROPERTY_CREATED = "com.foundry.oms.property.created"
    PROPERTY_UPDATED = "com.foundry.oms.property.updated"
    PROPERTY_DELETED = "com.foundry.oms.property.deleted"

    LINK_TYPE_CREATED = "com.foundry.oms.linktype.created"
    LINK_TYPE_UPDATED = "com.foundry.oms.linktype.updated"
    LINK_TYPE_DELETED = "com.foundry.oms.linktype.deleted"

    BRANCH_CREATED = "com.foundry.oms.branch.created"
    BRANCH_UPDATED = "com.foundry.oms.branch.updated"
    BRANCH_DELETED = "com.foundry.oms.branch.deleted"
    BRANCH_MERGED = "com.foundry.oms.branch.merged"

    PROPOSAL_CREATED = "com.foundry.oms.proposal.created"
    PROPOSAL_UPDATED = "com.foundry.oms.proposal.updated"
    PROPOSAL_APPROVED = "com.foundry.oms.proposal.approved"
    PROPOSAL_REJECTED = "com.foundry.oms.proposal.rejected"
    PROPOSAL_MERGED = "com.foundry.oms.proposal.merged"

    ACTION_STARTED = "com.foundry.oms.action.started"
    ACTION_COMPLETED = "com.foundry.oms.action.completed"
    ACTION_FAILED = "com.foundry.oms.action.failed"
    ACTION_CANCELLED = "com.foundry.oms.action.cancelled"

    SYSTEM_HEALTH_CHECK = "com.foundry.oms.system.healthcheck"
    SYSTEM_ERROR = "com.foundry.oms.system.error"
    SYSTEM_MAINTENANCE = "com.foundry.oms.system.maintenance"

    @property
    def family(self) -> EventFamily:
        """What the event is about."""
        return EventFamily(self.value.split(".")[-2])

    @property
    def change(self) -> str:
        """What happened: the last segment of the type."""
        return self.value.rpartition(".")[2]
