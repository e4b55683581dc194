"""The AWS side from typed specs: `StackSpec` -> `synthesize` -> `plan` and `apply`, through CloudFormation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oms_events._aws.config import AwsConfig
    from oms_events.provisioning.checks.checking import check
    from oms_events.provisioning.checks.configuration import CheckedConfiguration
    from oms_events.provisioning.checks.report import Finding, Level, Report
    from oms_events.provisioning.deployment.changes import Action, Change, Plan, PropertyChange, discard, plan
    from oms_events.provisioning.deployment.deploy import apply, deploy
    from oms_events.provisioning.deployment.destroy import Deletion, StackResource, destroy, look
    from oms_events.provisioning.deployment.drift import Difference, Drift, DriftStatus, drift
    from oms_events.provisioning.deployment.holdings import Holding
    from oms_events.provisioning.deployment.progress import StackEvent, follow
    from oms_events.provisioning.deployment.stacks import StackState, outputs
    from oms_events.provisioning.presets.base import Preset
    from oms_events.provisioning.presets.event_sourcing import EventSourcingPreset
    from oms_events.provisioning.presets.ingestion_triggers import IngestionTriggersPreset
    from oms_events.provisioning.presets.oms import OmsPreset
    from oms_events.provisioning.presets.oms_endpoint import OmsEndpoint
    from oms_events.provisioning.presets.oms_relay import OmsRelay
    from oms_events.provisioning.presets.registry import PRESETS
    from oms_events.provisioning.presets.ticket_events import ArchiveConfig, TicketEventsPreset, TicketRuleSpec
    from oms_events.provisioning.presets.ticket_tables import TicketTablesPreset
    from oms_events.provisioning.sources import read_source
    from oms_events.provisioning.specs.alarms import AlarmSpec, MetricSpec
    from oms_events.provisioning.specs.base import Reference
    from oms_events.provisioning.specs.buckets import BucketSpec
    from oms_events.provisioning.specs.buses import ArchiveSpec, EventBusSpec
    from oms_events.provisioning.specs.capacity import AutoscalingSpec, OnDemandSpec, ProvisionedSpec
    from oms_events.provisioning.specs.dashboards import (
        AlarmWidget,
        DashboardSpec,
        ExpressionSpec,
        LogWidget,
        MetricWidget,
        TextWidget,
    )
    from oms_events.provisioning.specs.endpoints import EndpointSpec
    from oms_events.provisioning.specs.functions import CodeSpec, FunctionSpec
    from oms_events.provisioning.specs.keys import KeySpec, KeyUseSpec
    from oms_events.provisioning.specs.logs import LogGroupSpec
    from oms_events.provisioning.specs.mappings import StreamSourceSpec
    from oms_events.provisioning.specs.permissions import StatementSpec, Suffixed
    from oms_events.provisioning.specs.queues import QueueSpec
    from oms_events.provisioning.specs.roles import PermissionRow, RoleSpec, permission_rows
    from oms_events.provisioning.specs.rules import RuleSpec
    from oms_events.provisioning.specs.stack import StackSpec
    from oms_events.provisioning.specs.tables import IndexSpec, TableSpec
    from oms_events.provisioning.specs.targets import InputTransformerSpec, RetryPolicySpec, TargetSpec
    from oms_events.provisioning.specs.topics import SubscriptionSpec, TopicSpec
    from oms_events.provisioning.specs.trust import OidcTrust, PrincipalTrust, ServiceTrust
    from oms_events.provisioning.synthesis import synthesize
    from oms_events.provisioning.template import Template
else:

    def __getattr__(name):
        from importlib import import_module

        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return value

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = [
    "Action",
    "AlarmSpec",
    "AlarmWidget",
    "ArchiveConfig",
    "ArchiveSpec",
    "AutoscalingSpec",
    "AwsConfig",
    "BucketSpec",
    "Change",
    "CheckedConfiguration",
    "CodeSpec",
    "DashboardSpec",
    "Deletion",
    "Difference",
    "Drift",
    "DriftStatus",
    "EndpointSpec",
    "EventBusSpec",
    "EventSourcingPreset",
    "ExpressionSpec",
    "Finding",
    "FunctionSpec",
    "Holding",
    "IndexSpec",
    "IngestionTriggersPreset",
    "InputTransformerSpec",
    "KeySpec",
    "KeyUseSpec",
    "Level",
    "LogGroupSpec",
    "LogWidget",
    "MetricSpec",
    "MetricWidget",
    "OidcTrust",
    "OmsEndpoint",
    "OmsPreset",
    "OmsRelay",
    "OnDemandSpec",
    "PRESETS",
    "PermissionRow",
    "Plan",
    "Preset",
    "PrincipalTrust",
    "PropertyChange",
    "ProvisionedSpec",
    "QueueSpec",
    "Reference",
    "Report",
    "RetryPolicySpec",
    "RoleSpec",
    "RuleSpec",
    "ServiceTrust",
    "StackEvent",
    "StackResource",
    "StackSpec",
    "StackState",
    "StatementSpec",
    "StreamSourceSpec",
    "SubscriptionSpec",
    "Suffixed",
    "TableSpec",
    "TargetSpec",
    "Template",
    "TextWidget",
    "TicketEventsPreset",
    "TicketRuleSpec",
    "TicketTablesPreset",
    "TopicSpec",
    "apply",
    "check",
    "deploy",
    "destroy",
    "discard",
    "drift",
    "follow",
    "look",
    "outputs",
    "permission_rows",
    "plan",
    "read_source",
    "synthesize",
]

_MODULES = {
    "Action": "oms_events.provisioning.deployment.changes",
    "AlarmSpec": "oms_events.provisioning.specs.alarms",
    "AlarmWidget": "oms_events.provisioning.specs.dashboards",
    "ArchiveConfig": "oms_events.provisioning.presets.ticket_events",
    "ArchiveSpec": "oms_events.provisioning.specs.buses",
    "AutoscalingSpec": "oms_events.provisioning.specs.capacity",
    "AwsConfig": "oms_events._aws.config",
    "BucketSpec": "oms_events.provisioning.specs.buckets",
    "Change": "oms_events.provisioning.deployment.changes",
    "CheckedConfiguration": "oms_events.provisioning.checks.configuration",
    "CodeSpec": "oms_events.provisioning.specs.functions",
    "DashboardSpec": "oms_events.provisioning.specs.dashboards",
    "Deletion": "oms_events.provisioning.deployment.destroy",
    "Difference": "oms_events.provisioning.deployment.drift",
    "Drift": "oms_events.provisioning.deployment.drift",
    "DriftStatus": "oms_events.provisioning.deployment.drift",
    "EndpointSpec": "oms_events.provisioning.specs.endpoints",
    "EventBusSpec": "oms_events.provisioning.specs.buses",
    "EventSourcingPreset": "oms_events.provisioning.presets.event_sourcing",
    "ExpressionSpec": "oms_events.provisioning.specs.dashboards",
    "Finding": "oms_events.provisioning.checks.report",
    "FunctionSpec": "oms_events.provisioning.specs.functions",
    "Holding": "oms_events.provisioning.deployment.holdings",
    "IndexSpec": "oms_events.provisioning.specs.tables",
    "IngestionTriggersPreset": "oms_events.provisioning.presets.ingestion_triggers",
    "InputTransformerSpec": "oms_events.provisioning.specs.targets",
    "KeySpec": "oms_events.provisioning.specs.keys",
    "KeyUseSpec": "oms_events.provisioning.specs.keys",
    "Level": "oms_events.provisioning.checks.report",
    "LogGroupSpec": "oms_events.provisioning.specs.logs",
    "LogWidget": "oms_events.provisioning.specs.dashboards",
    "MetricSpec": "oms_events.provisioning.specs.alarms",
    "MetricWidget": "oms_events.provisioning.specs.dashboards",
    "OidcTrust": "oms_events.provisioning.specs.trust",
    "OmsEndpoint": "oms_events.provisioning.presets.oms_endpoint",
    "OmsPreset": "oms_events.provisioning.presets.oms",
    "OmsRelay": "oms_events.provisioning.presets.oms_relay",
    "OnDemandSpec": "oms_events.provisioning.specs.capacity",
    "PRESETS": "oms_events.provisioning.presets.registry",
    "PermissionRow": "oms_events.provisioning.specs.roles",
    "Plan": "oms_events.provisioning.deployment.changes",
    "Preset": "oms_events.provisioning.presets.base",
    "PrincipalTrust": "oms_events.provisioning.specs.trust",
    "PropertyChange": "oms_events.provisioning.deployment.changes",
    "ProvisionedSpec": "oms_events.provisioning.specs.capacity",
    "QueueSpec": "oms_events.provisioning.specs.queues",
    "Reference": "oms_events.provisioning.specs.base",
    "Report": "oms_events.provisioning.checks.report",
    "RetryPolicySpec": "oms_events.provisioning.specs.targets",
    "RoleSpec": "oms_events.provisioning.specs.roles",
    "RuleSpec": "oms_events.provisioning.specs.rules",
    "ServiceTrust": "oms_events.provisioning.specs.trust",
    "StackEvent": "oms_events.provisioning.deployment.progress",
    "StackResource": "oms_events.provisioning.deployment.destroy",
    "StackSpec": "oms_events.provisioning.specs.stack",
    "StackState": "oms_events.provisioning.deployment.stacks",
    "StatementSpec": "oms_events.provisioning.specs.permissions",
    "StreamSourceSpec": "oms_events.provisioning.specs.mappings",
    "SubscriptionSpec": "oms_events.provisioning.specs.topics",
    "Suffixed": "oms_events.provisioning.specs.permissions",
    "TableSpec": "oms_events.provisioning.specs.tables",
    "TargetSpec": "oms_events.provisioning.specs.targets",
    "Template": "oms_events.provisioning.template",
    "TextWidget": "oms_events.provisioning.specs.dashboards",
    "TicketEventsPreset": "oms_events.provisioning.presets.ticket_events",
    "TicketRuleSpec": "oms_events.provisioning.presets.ticket_events",
    "TicketTablesPreset": "oms_events.provisioning.presets.ticket_tables",
    "TopicSpec": "oms_events.provisioning.specs.topics",
    "apply": "oms_events.provisioning.deployment.deploy",
    "check": "oms_events.provisioning.checks.checking",
    "deploy": "oms_events.provisioning.deployment.deploy",
    "destroy": "oms_events.provisioning.deployment.destroy",
    "discard": "oms_events.provisioning.deployment.changes",
    "drift": "oms_events.provisioning.deployment.drift",
    "follow": "oms_events.provisioning.deployment.progress",
    "look": "oms_events.provisioning.deployment.destroy",
    "outputs": "oms_events.provisioning.deployment.stacks",
    "permission_rows": "oms_events.provisioning.specs.roles",
    "plan": "oms_events.provisioning.deployment.changes",
    "read_source": "oms_events.provisioning.sources",
    "synthesize": "oms_events.provisioning.synthesis",
}
