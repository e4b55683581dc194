"""A hook that writes to the standard `logging`, with a stable key `action` for machines."""

from __future__ import annotations

import dataclasses
import logging

from oms_events.instrumentation.correlation import ATTRIBUTE, current_correlation_id
from oms_events.instrumentation.hooks import (
    ApiRequested,
    AppendConflict,
    Appended,
    BacklogMeasured,
    BreakerChanged,
    CallEnded,
    CheckEnded,
    ChunksSent,
    DeadLettered,
    Decided,
    Detail,
    DuplicateAcks,
    EventParked,
    FailedOver,
    GapsProbed,
    LateRecords,
    LeaseChanged,
    OutboxAlert,
    Projected,
    QuotaUsedUp,
    Relayed,
    RelayRetried,
    Replayed,
    Retried,
    Settled,
    SnapshotFailed,
    TriggerBreakerChanged,
    Triggered,
)

_ACTIONS = {
    ApiRequested: "api_requested",
    AppendConflict: "append_conflict",
    Appended: "appended",
    BacklogMeasured: "backlog_measured",
    BreakerChanged: "breaker_changed",
    CallEnded: "call_ended",
    CheckEnded: "check_ended",
    ChunksSent: "chunks_sent",
    DeadLettered: "dead_lettered",
    Decided: "decided",
    DuplicateAcks: "duplicate_acks",
    EventParked: "event_parked",
    FailedOver: "failed_over",
    GapsProbed: "gaps_probed",
    LateRecords: "late_records",
    LeaseChanged: "lease_changed",
    OutboxAlert: "outbox_alert",
    Projected: "projected",
    QuotaUsedUp: "quota_used_up",
    Relayed: "relayed",
    RelayRetried: "relay_retried",
    Replayed: "replayed",
    Retried: "retried",
    Settled: "settled",
    SnapshotFailed: "snapshot_failed",
    TriggerBreakerChanged: "trigger_breaker_changed",
    Triggered: "triggered",
}
_GONE_WELL = frozenset(("success", "duplicate", "delayed", "dry_run"))


class LoggingHook:
    """Logs what an operator should see as a warning, and all else at debug level.

    Warnings are failures, retries in place, failovers and breaker changes; of the outbox dead letters, leases that
    were lost or expired, duplicate acknowledgements, alerts, and a backlog that could not be measured; of the
    event store parked events, snapshots that failed, and replays with events that were not delivered; of triggers
    starts that did not go on, quotas that were used up, breaker changes, and chunks that were not sent.

    Records have `action` (`breaker_changed`, `retried`, ...) and the detail's fields as `extra` attributes
    with the prefix `oms_`, and `correlation_id` within a start; events' data and secrets are never among them.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._log = logger or logging.getLogger("oms_events")

    def __call__(self, detail: Detail) -> None:
        level = logging.WARNING if _is_notable(detail) else logging.DEBUG
        if not self._log.isEnabledFor(level):
            return
        fields = _fields(detail)
        action = _ACTIONS[type(detail)]
        text = " ".join(f"{name}={value}" for name, value in fields.items())
        extra = {f"oms_{name}": value for name, value in fields.items()}
        if correlation_id := fields.get(ATTRIBUTE) or current_correlation_id():
            extra[ATTRIBUTE] = correlation_id
        self._log.log(level, "%s %s", action, text, extra={"action": action, **extra})


def _is_notable(detail: Detail) -> bool:
    match detail:
        case BreakerChanged() | Retried() | FailedOver() | DeadLettered() | DuplicateAcks() | OutboxAlert():
            return True
        case EventParked() | SnapshotFailed() | QuotaUsedUp() | TriggerBreakerChanged():
            return True
        case Triggered(status=status):
            return status not in _GONE_WELL
        case ChunksSent(failed=failed):
            return failed > 0
        case Replayed(failed=failed):
            return failed > 0
        case LeaseChanged(change=change):
            return change in ("lost", "expired")
        case BacklogMeasured(available=available):
            return not available
        case CheckEnded(error=error):
            return error is not None
        case Settled(results=results):
            return not all(result.success for result in results)
    return False


def _fields(detail: Detail) -> dict[str, object]:
    if isinstance(detail, Settled):
        outcomes: dict[str, int] = {}
        for result in detail.results:
            outcomes[result.outcome] = outcomes.get(result.outcome, 0) + 1
        error = next((str(result.error) for result in detail.results if result.error is not None), None)
        return {"platform": detail.platform, **outcomes, **({"error": error} if error else {})}
    if isinstance(detail, Relayed):
        return {"events": detail.events, "slowest": max(detail.seconds, default=None)}
    if isinstance(detail, Projected):
        lag = max(detail.lag, default=None)
        return {"projection": detail.projection, "events": detail.events, "lag": lag}
    return {field.name: getattr(detail, field.name) for field in dataclasses.fields(detail)}
