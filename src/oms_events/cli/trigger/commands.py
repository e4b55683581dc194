"""The tree of the trigger commands."""

from __future__ import annotations

import click

from oms_events.cli.trigger.breakers import breaker
from oms_events.cli.trigger.dead_letters import dlq
from oms_events.cli.trigger.quotas import quotas
from oms_events.cli.trigger.running import run_
from oms_events.cli.trigger.schedules import next_, schedule
from oms_events.cli.trigger.tables import table


@click.group()
def trigger() -> None:
    """Starts of pipelines: schedules and their next runs, calls by hand, guards, dead letters."""


for command in (next_, schedule, run_, breaker, quotas, dlq, table):
    trigger.add_command(command)
