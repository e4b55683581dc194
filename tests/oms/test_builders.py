from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from oms_events.errors import InvalidEventError
from oms_events.events import encode, parse_event
from oms_events.oms import builders
from oms_events.oms.data import ActionData, BranchData, OmsContext, ProposalData, SchemaChangeData, SystemData

URI_PATH = re.compile(r"(/([A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-F]{2})*)+")

Builder = Callable[..., CloudEvent]
schema_change: Builder = builders.create_schema_change_event
branch: Builder = builders.create_branch_event
proposal: Builder = builders.create_proposal_event
action: Builder = builders.create_action_event
system: Builder = builders.create_system_event

SCHEMA = {"resource_type": "object_type", "resource_id": "User", "branch": "main"}
BRANCH = {"branch_name": "feature/x", "author": "ann"}
DEV = {"branch_name": "dev"}
LINK = {"resource_type": "link_type", "resource_id": "owns", "branch": "main"}
PROPOSAL = {"proposal_id": "PR-7", "branch": "feature/x", "author": "ann"}
ACTION = {"action_type": "reindex", "job_id": "job-1"}
SYSTEM = {"component": "search", "status": "degraded"}

TABLE: list[tuple[Builder, dict[str, Any], str, str, str]] = [
    (schema_change, {"operation": "create", **SCHEMA}, "schema.created", "/oms/main", "object_type/User"),
    (schema_change, {"operation": "update", **SCHEMA}, "schema.updated", "/oms/main", "object_type/User"),
    (schema_change, {"operation": "delete", **SCHEMA}, "schema.deleted", "/oms/main", "object_type/User"),
    (schema_change, {"operation": "validate", **SCHEMA}, "schema.validated", "/oms/main", "object_type/User"),
    (schema_change, {"operation": "create", **LINK}, "schema.created", "/oms/main", "link_type/owns"),
    (branch, {"operation": "created", **BRANCH}, "branch.created", "/oms/feature/x", "feature/x"),
    (branch, {"operation": "updated", **DEV}, "branch.updated", "/oms/dev", "dev"),
    (branch, {"operation": "delete", **DEV}, "branch.deleted", "/oms/dev", "dev"),
    (branch, {"operation": "merged", "target_branch": "m", **DEV}, "branch.merged", "/oms/dev", "dev"),
    (proposal, {"operation": "created", **PROPOSAL}, "proposal.created", "/oms/feature/x", "PR-7"),
    (proposal, {"operation": "updated", **PROPOSAL}, "proposal.updated", "/oms/feature/x", "PR-7"),
    (proposal, {"operation": "approve", **PROPOSAL}, "proposal.approved", "/oms/feature/x", "PR-7"),
    (proposal, {"operation": "rejected", **PROPOSAL}, "proposal.rejected", "/oms/feature/x", "PR-7"),
    (proposal, {"operation": "merge", **PROPOSAL}, "proposal.merged", "/oms/feature/x", "PR-7"),
    (action, {"status": "started", "progress": 0.5, **ACTION}, "action.started", "/oms/actions", "job-1"),
    (action, {"status": "completed", "result": [3], **ACTION}, "action.completed", "/oms/actions", "job-1"),
    (action, {"status": "failed", "error_message": "full", **ACTION}, "action.failed", "/oms/actions", "job-1"),
    (action, {"status": "cancelled", **ACTION}, "action.cancelled", "/oms/actions", "job-1"),
    (system, {"event_subtype": "healthcheck", **SYSTEM}, "system.healthcheck", "/oms/system/search", "search"),
    (system, {"event_subtype": "error", **SYSTEM, "details": {}}, "system.error", "/oms/system/search", "search"),
    (system, {"event_subtype": "maintenance", **SYSTEM}, "system.maintenance", "/oms/system/search", "search"),
]  # fmt: skip


@pytest.mark.parametrize(("build", "arguments", "change", "source", "subject"), TABLE)
def test_builders_give_type_source_subject_and_survive_the_wire(
    build: Builder, arguments: dict[str, Any], change: str, source: str, subject: str
) -> None:
    event = build(**arguments, tenant="acme", workspace="ws-1", correlation_id="c-1", causation_id="c-0")
    attributes = event.get_attributes()
    assert attributes["type"] == f"com.foundry.oms.{change}"
    assert (attributes["source"], attributes["subject"], attributes["partitionkey"]) == (source, subject, subject)
    assert (attributes["tenant"], attributes["workspace"]) == ("acme", "ws-1")
    assert (attributes["correlationid"], attributes["causationid"]) == ("c-1", "c-0")
    again = parse_event(encode(event).json)
    assert again.get_attributes() == attributes
    assert again.get_data() == event.get_data()
    operation = {"operation", "status", "event_subtype"} & arguments.keys()
    for name, value in arguments.items():
        if name not in operation:
            assert event.get_data()[name] == value


def test_schema_change_carries_typed_data_and_context() -> None:
    event = builders.create_schema_change_event(
        operation="update",
        resource_type="object_type",
        resource_id="User",
        branch="main",
        commit_id="abc123",
        author="dev@example.com",
        old_value={"title": None},
        new_value={"title": "User", "since": date(2026, 1, 2)},
        resource_version="v9",
        correlation_id="c-1",
    )
    assert event.get_data() == {
        "operation": "update",
        "resource_type": "object_type",
        "resource_id": "User",
        "branch": "main",
        "commit_id": "abc123",
        "author": "dev@example.com",
        "old_value": {"title": None},
        "new_value": {"title": "User", "since": "2026-01-02"},
    }
    context = OmsContext.model_validate(event.get_attributes())
    assert context == OmsContext(
        branch="main", commit="abc123", author="dev@example.com", resourceversion="v9", correlationid="c-1"
    )


def test_absent_values_are_left_out() -> None:
    event = builders.create_branch_event(operation="deleted", branch_name="dev")
    assert event.get_data() == {"operation": "deleted", "branch_name": "dev"}
    assert "author" not in event.get_attributes()


def test_either_spelling_of_an_operation_gives_one_word_in_the_data() -> None:
    words = ("merge", "merged")
    data = [builders.create_branch_event(operation=word, branch_name="dev").get_data() for word in words]
    assert data[0] == data[1]
    assert BranchData.model_validate(data[0]).operation == "merged"
    event = builders.create_schema_change_event(operation="created", **SCHEMA)
    assert SchemaChangeData.model_validate(event.get_data()).operation == "create"


def test_data_reads_back_into_its_model() -> None:
    proposal = builders.create_proposal_event(operation="created", **PROPOSAL, reviewers=["bob", "eve"])
    assert ProposalData.model_validate(proposal.get_data()).reviewers == ("bob", "eve")
    action = builders.create_action_event(status="started", progress=12.5, **ACTION)
    assert ActionData.model_validate(action.get_data()).progress == 12.5
    system = builders.create_system_event(event_subtype="error", **SYSTEM)
    assert SystemData.model_validate({**system.get_data(), "added_later": 1}).component == "search"


def test_id_and_time_may_be_given() -> None:
    at = datetime(2026, 5, 1, 12, tzinfo=UTC)
    event = builders.create_action_event(status="started", **ACTION, id="e-1", time=at)
    assert (event.get_id(), event.get_time()) == ("e-1", at)


def test_later_changes_of_the_caller_do_not_reach_the_event() -> None:
    value = {"tags": ["a"]}
    event = builders.create_schema_change_event(operation="create", **SCHEMA, new_value=value)
    value["tags"].append("b")
    assert event.get_data()["new_value"] == {"tags": ["a"]}


@pytest.mark.parametrize(
    ("build", "arguments", "field", "known"),
    [
        (schema_change, {"operation": "rename", **SCHEMA}, "operation", "create, update, delete, validate"),
        (branch, {"operation": "", "branch_name": "x"}, "operation", "create, update, delete, merge"),
        (proposal, {"operation": None, **PROPOSAL}, "operation", "create, update, approve, reject, merge"),
        (action, {"status": "paused", **ACTION}, "status", "started, completed, failed, cancelled"),
        (system, {"event_subtype": [], **SYSTEM}, "event_subtype", "healthcheck, error, maintenance"),
    ],
)  # fmt: skip
def test_unknown_words_are_refused_with_the_known_ones(
    build: Builder, arguments: dict[str, Any], field: str, known: str
) -> None:
    with pytest.raises(InvalidEventError, match=known) as caught:
        build(**arguments)
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("build", "arguments", "field"),
    [
        (schema_change, {"operation": "create", **SCHEMA, "branch": ""}, "branch"),
        (schema_change, {"operation": "create", **SCHEMA, "resource_id": 7}, "resource_id"),
        (schema_change, {"operation": "create", **SCHEMA, "author": "a\nb"}, "author"),
        (schema_change, {"operation": "create", **SCHEMA, "tenant": ""}, "tenant"),
        (schema_change, {"operation": "create", **SCHEMA, "new_value": object()}, "data"),
        (schema_change, {"operation": "create", **SCHEMA, "new_value": float("nan")}, "data"),
        (schema_change, {"operation": "create", **SCHEMA, "new_value": "\ud800"}, "data"),
        (branch, {"operation": "create", "branch_name": "\ud800"}, "branch_name"),
        (proposal, {"operation": "create", **PROPOSAL, "reviewers": "ann"}, "reviewers"),
        (action, {"status": "started", **ACTION, "progress": "half"}, "progress"),
        (action, {"status": "started", **ACTION, "time": datetime(2026, 1, 1)}, "time"),  # noqa: DTZ001
        (system, {"event_subtype": "error", **SYSTEM, "details": [1]}, "details"),
    ],
)  # fmt: skip
def test_bad_values_are_refused_by_name(build: Builder, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidEventError) as caught:
        build(**arguments)
    assert caught.value.field == field


def test_a_misspelt_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="tennant"):
        builders.create_action_event(status="started", **ACTION, tennant="acme")  # type: ignore[call-arg]


names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)


@given(branch=names, component=names)
def test_sources_are_uri_paths_whatever_the_names(branch: str, component: str) -> None:
    events = [
        builders.create_branch_event(operation="create", branch_name=branch),
        builders.create_system_event(event_subtype="error", component=component, status="bad"),
    ]
    for event in events:
        assert URI_PATH.fullmatch(event.get_source())
        assert parse_event(encode(event).json).get_attributes() == event.get_attributes()
