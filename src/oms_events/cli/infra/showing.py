"""How plans, deletions and events are shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import asdict
from typing import Any, Final

import click

from oms_events.cli.output import print_json, print_table, tell
from oms_events.provisioning.deployment.changes import Action, Change, Plan, PropertyChange
from oms_events.provisioning.deployment.destroy import Deletion
from oms_events.provisioning.deployment.progress import StackEvent
from oms_events.provisioning.deployment.stacks import StackState

_SHOWN_VALUE: Final = 40
"""Characters of a property's value in the table; --json has all."""


def show_plan(plan: Plan, *, as_json: bool = False) -> None:
    """The table of changes, those that lose data in red, and what there is besides.

    It stands on stderr where stdout is for JSON: whoever answers sees it either way.
    """
    with _beside_json(as_json):
        _print_plan(plan)
    for line in plan.data_loss:
        tell(f"loses data: {line}")
    if plan.protects:
        tell("termination protection will be switched on")


def show_deletion(found: Deletion, *, as_json: bool) -> None:
    """The table of what would be deleted and kept, as `show_plan`; what speaks against it."""
    rows = [
        ("keep" if resource.kept else "remove", resource.logical_id, resource.type, resource.physical_id)
        for resource in found.resources
    ]
    with _beside_json(as_json):
        if rows:
            print_table(("action", "resource", "type", "name"), rows)
        click.echo(f"stack {found.stack_name}: {counted(len(rows), 'resource')}")
    for reason in found.reasons:
        tell(reason)


def _beside_json(as_json: bool) -> AbstractContextManager[object]:
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def _print_plan(plan: Plan) -> None:
    if plan.changes:
        rows = [(_action(change), change.logical_id, change.type, _what(change)) for change in plan.changes]
        print_table(("action", "resource", "type", "what changes"), rows)
    counts = [
        f"{count} to {action}"
        for action in Action
        if (count := sum(change.action is action for change in plan.changes))
    ]
    subject = f"stack {plan.stack_name} ({'new' if plan.creates else 'exists'})"
    if plan.is_empty:
        click.echo(f"{subject}: nothing to change")
    else:
        click.echo(f"{subject}: {', '.join(counts) or 'no resource changes, only outputs or tags of the stack'}")


def describe_plan(plan: Plan) -> dict[str, Any]:
    """The plan as JSON."""
    return {
        "stack": plan.stack_name,
        "creates": plan.creates,
        "empty": plan.is_empty,
        "changes": [{**asdict(change), "loses_data": change.loses_data} for change in plan.changes],
        "data_loss": plan.data_loss,
        "termination_protection_on": plan.protects,
    }


def show_event(event: StackEvent) -> None:
    """A line of progress on stderr."""
    reason = f": {event.reason}" if event.reason else ""
    what = "the stack" if event.of_stack else f"{event.logical_id} ({event.type})"
    tell(f"{event.time:%H:%M:%S} {event.status.ljust(20)} {what}{reason}")


def show_end(state: StackState, *, as_json: bool) -> None:
    """How an operation that went well has ended."""
    if state.reason:
        tell(state.reason)
    if as_json:
        print_json({"stack": state.name, "id": state.id, "status": state.status})
    else:
        click.echo(f"stack {state.name}: {state.status}")


def _action(change: Change) -> str:
    word = f"may {change.action}" if change.conditional else change.action.value
    return f"{word} (loses data)" if change.loses_data else word


def _what(change: Change) -> str:
    parts = [_described(one) for one in change.properties]
    if change.kept:
        parts.append("the old one is kept")
    return ", ".join(parts)


def _described(one: PropertyChange) -> str:
    values = f" {_short(one.before)} -> {_short(one.after)}" if one.before or one.after else ""
    return f"{one.path}{values}{' (replaces)' if one.replaces else ''}"


def _short(value: str | None) -> str:
    text = "-" if value is None else value
    return text if len(text) <= _SHOWN_VALUE else f"{text[: _SHOWN_VALUE - 3]}..."


def counted(number: int, noun: str) -> str:
    """A number of things, in words that agree with it."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def flat(outputs: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """Outputs as lines: the entries of a map by their path."""
    for name, value in outputs.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{path}", item) for path, item in flat(value))
        else:
            yield name, value
