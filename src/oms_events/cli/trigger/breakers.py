"""`oms-events trigger breaker list` and `reset`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict

import click

from oms_events.cli.common import ExitCode, ends_cleanly, run
from oms_events.cli.output import print_json, print_table, tell
from oms_events.cli.trigger.options import moment_text, not_configured, takes_settings, wait_text
from oms_events.triggers.guards.breaker import BreakerView
from oms_events.triggers.request import WORD, WORD_REMEDY
from oms_events.triggers.settings import TriggerSettings


def to_word(text: str) -> str:
    """A domain's or table's name. Raises `BadParameter`."""
    if WORD.fullmatch(text) is None:
        raise click.BadParameter(f"{text!r}: {WORD_REMEDY}")
    return text


@click.group()
def breaker() -> None:
    """The breakers, which stop the starts of a domain and table that keep failing."""


@breaker.command("list")
@ends_cleanly
@takes_settings
def list_(*, settings: TriggerSettings, as_json: bool) -> None:
    """List the breakers that are open, or count failures; reads their whole table.

    All others are closed.
    """
    views = run(_views(settings))
    if as_json:
        for view in views:
            times = {"last_failure": moment_text(view.last_failure), "opened_at": moment_text(view.opened_at)}
            print_json({**asdict(view), **times, "state": view.state.value})
        return
    columns = ("domain", "table", "state", "failures", "last failure", "opened", "next trial")
    print_table(columns, [_row(view) for view in views])
    if not views:
        tell("all breakers are closed, without a failure that counts")


@breaker.command()
@click.argument("domain", type=to_word)
@click.argument("table_name", metavar="TABLE", type=to_word)
@ends_cleanly
@takes_settings
def reset(*, domain: str, table_name: str, settings: TriggerSettings, as_json: bool) -> None:
    """Close the breaker of DOMAIN and TABLE, and forget its failures.

    Starts go on at once. Ends with 1 when there is nothing to reset.
    """
    was_there = run(_reset(settings, domain, table_name))
    if as_json:
        print_json({"domain": domain, "table_name": table_name, "reset": was_there})
    elif was_there:
        click.echo(f"the breaker of {domain} {table_name} is closed")
    else:
        tell(f"the breaker of {domain} {table_name} is closed already, without a failure that counts")
    sys.exit(ExitCode.OK if was_there else ExitCode.FAILED)


async def _views(settings: TriggerSettings) -> Sequence[BreakerView]:
    breakers = settings.create_breakers()
    if breakers is None:
        raise not_configured("breaker_table")
    async with breakers:
        return await breakers.views()


async def _reset(settings: TriggerSettings, domain: str, table_name: str) -> bool:
    breakers = settings.create_breakers()
    if breakers is None:
        raise not_configured("breaker_table")
    async with breakers:
        return await breakers.reset(domain, table_name)


def _row(view: BreakerView) -> tuple[object, ...]:
    trial = "at work" if view.trial_running else None if view.opened_at is None else wait_text(view.retry_after)
    times = moment_text(view.last_failure), moment_text(view.opened_at)
    return view.domain, view.table_name, view.state.value, view.failures, *times, trial
