"""The tree of the event store's commands."""

from __future__ import annotations

import click

from oms_events.cli.store.checking import stats_, verify_
from oms_events.cli.store.following import tail
from oms_events.cli.store.looking import show
from oms_events.cli.store.tables import create


@click.group()
def store() -> None:
    """The event store: histories, new events, what it holds, whether it is whole."""


@store.group()
def table() -> None:
    """The tables of event sourcing."""


for command in (show, tail, stats_, verify_):
    store.add_command(command)
table.add_command(create)
