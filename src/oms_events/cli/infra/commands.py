"""The group of commands for the AWS side."""

from __future__ import annotations

import click

from oms_events.cli.infra.check import check
from oms_events.cli.infra.deploying import apply, plan, synth
from oms_events.cli.infra.looking import drift, follow, outputs
from oms_events.cli.infra.removing import destroy


@click.group()
def infra() -> None:
    """The AWS side, from presets or files: templates, and their stacks in CloudFormation."""


for command in (synth, plan, apply, outputs, drift, check, follow, destroy):
    infra.add_command(command)
