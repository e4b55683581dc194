"""The tree of the outbox's commands."""

from __future__ import annotations

import click

from oms_events.cli.outbox.changing import bury, purge, replan, requeue
from oms_events.cli.outbox.looking import list_, show
from oms_events.cli.outbox.status import status
from oms_events.cli.outbox.tables import buckets, create
from oms_events.cli.outbox.working import drain, work


@click.group()
def outbox() -> None:
    """The transactional outbox: what waits, what is stuck, and a worker."""


@outbox.group()
def table() -> None:
    """The outbox's table."""


for command in (status, list_, show, requeue, purge, bury, replan, drain, work, buckets):
    outbox.add_command(command)
table.add_command(create)
