"""What each spec may be, and two of them cannot be together: FIFO queues, timeouts, a function after itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from oms_events.provisioning.specs.base import Reference
from oms_events.provisioning.specs.buses import EventBusSpec
from oms_events.provisioning.specs.functions import FunctionSpec
from oms_events.provisioning.specs.queues import QueueSpec
from oms_events.provisioning.specs.rules import RuleSpec
from oms_events.provisioning.specs.topics import TopicSpec

_FIFO: Final = ".fifo"


def problems_between(
    queues: Sequence[QueueSpec],
    buses: Sequence[EventBusSpec],
    rules: Sequence[RuleSpec],
    functions: Sequence[FunctionSpec],
    topics: Sequence[TopicSpec],
) -> Iterator[str]:
    """What AWS would refuse of a stack's specs together; all references in them must be to specs of the stack."""
    known = {f"queue:{queue.key}": queue for queue in queues}
    for where, arn in _standard_only(buses, rules, functions, topics):
        if _is_fifo(arn, known):
            yield f"{where}: is FIFO, and AWS takes standard queues and topics only; give another"
    yield from _group_problems(rules, known)
    for queue in queues:
        if queue.dead_letter is not None and _is_fifo(queue.dead_letter, known) is not queue.fifo:
            yield f"QueueSpec {queue.key!r}: dead_letter is FIFO exactly when the queue is; change one"
    for function in functions:
        yield from _function_problems(function, known)


def _standard_only(
    buses: Sequence[EventBusSpec],
    rules: Sequence[RuleSpec],
    functions: Sequence[FunctionSpec],
    topics: Sequence[TopicSpec],
) -> Iterator[tuple[str, str | Reference | None]]:
    """Where each queue stands that must be a standard one. (Lambda, SNS and EventBridge guides, dead letters.)"""
    for bus in buses:
        yield f"EventBusSpec {bus.key!r}: dead_letter", bus.dead_letter
    for rule in rules:
        for target in rule.targets:
            yield f"RuleSpec {rule.key!r}: target {target.id!r}: dead_letter", target.dead_letter
    for function in functions:
        yield f"FunctionSpec {function.key!r}: dead_letter", function.dead_letter
        for source in function.sources:
            yield f"FunctionSpec {function.key!r}: on_failure of {source.logical_id}", source.on_failure
    for topic in topics:
        for subscription in topic.subscriptions:
            yield f"TopicSpec {topic.key!r}: endpoint {subscription.endpoint}", subscription.endpoint
            yield f"TopicSpec {topic.key!r}: dead_letter of {subscription.endpoint}", subscription.dead_letter


def _group_problems(rules: Sequence[RuleSpec], known: dict[str, QueueSpec]) -> Iterator[str]:
    for rule in rules:
        for target in rule.targets:
            where = f"RuleSpec {rule.key!r}: target {target.id!r}"
            is_fifo = _is_fifo(target.arn, known)
            if is_fifo and target.message_group_id is None:
                yield f"{where}: message_group_id is missing; a FIFO queue wants one"
            queue = known.get(target.arn.ref) if isinstance(target.arn, Reference) else None
            if queue is not None and queue.fifo and not queue.content_based_deduplication:
                # aws/aws-cdk, issue 36498: rules give no deduplication id.
                yield f"{where}: set content_based_deduplication of queue {queue.key!r}, or nothing arrives"
            if target.message_group_id is not None and not is_fifo:
                yield f"{where}: message_group_id is for FIFO queues; leave it out"


def _function_problems(function: FunctionSpec, known: dict[str, QueueSpec]) -> Iterator[str]:
    where = f"FunctionSpec {function.key!r}"
    if isinstance(function.dead_letter, Reference) and function.dead_letter.ref == f"function:{function.key}":
        yield f"{where}: dead_letter is the function itself; give another place"
    for source in function.sources:
        queue = known.get(source.source.ref) if isinstance(source.source, Reference) else None
        if queue is None:
            continue
        if queue.fifo:
            yield from (f"{where}: source {queue.key!r}: {problem}" for problem in source.fifo_problems())
        if queue.visibility_timeout < function.timeout:
            yield (
                f"{where}: timeout = {function.timeout} is above visibility_timeout = {queue.visibility_timeout} "
                f"of the queue {queue.key!r}, which Lambda refuses; give it six times the timeout"
            )


def _is_fifo(arn: str | Reference | None, known: dict[str, QueueSpec]) -> bool:
    if isinstance(arn, Reference):
        return arn.ref in known and known[arn.ref].fifo
    return arn is not None and arn.startswith("arn:") and arn.endswith(_FIFO)
