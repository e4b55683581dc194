"""The tree of the replay commands."""

from __future__ import annotations

import click

from oms_events.cli.replay.archives import archive, cancel, list_, show
from oms_events.cli.replay.stored import store


@click.group()
def replay() -> None:
    """Events once more: from the event store through the router, or from an EventBridge archive."""


for command in (store, archive, show, cancel, list_):
    replay.add_command(command)
