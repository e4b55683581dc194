"""`oms-events infra outputs`, `drift` and `follow`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict

import click

from oms_events import provisioning
from oms_events._aws.config import AwsConfig
from oms_events.cli.common import ExitCode, ends_cleanly, run
from oms_events.cli.infra.options import takes_aws, takes_stack
from oms_events.cli.infra.showing import counted, flat, show_end, show_event
from oms_events.cli.output import print_fields, print_json, print_table
from oms_events.provisioning.deployment.drift import Drift


@click.command()
@ends_cleanly
@takes_stack
@takes_aws
def outputs(*, stack_name: str, config: AwsConfig, as_json: bool) -> None:
    """Print what a deployed stack gives to others: names, ARNs, addresses.

    SOURCE is a preset's name, or a TOML or YAML file. --json prints them as one object, with maps as maps.
    """
    found = run(provisioning.outputs(stack_name, config))
    if as_json:
        print_json(found)
    elif lines := dict(flat(found)):
        print_fields(lines)


@click.command()
@ends_cleanly
@takes_stack
@takes_aws
def drift(*, stack_name: str, config: AwsConfig, as_json: bool) -> None:
    """Find what somebody changed or deleted by hand since the stack was deployed.

    SOURCE is a preset's name, or a TOML or YAML file. Ends with 1 when there is any.
    """
    found = run(provisioning.drift(stack_name, config))
    if as_json:
        print_json([asdict(one) for one in found])
    elif found:
        rows = [row for one in found for row in _rows(one)]
        print_table(("resource", "type", "drift", "property", "expected", "actual"), rows)
    if not as_json:
        differ = f"{counted(len(found), 'resource')} {'differs' if len(found) == 1 else 'differ'}"
        click.echo(f"stack {stack_name}: {differ if found else 'as its template says'}")
    sys.exit(ExitCode.FAILED if found else ExitCode.OK)


@click.command()
@ends_cleanly
@takes_stack
@takes_aws
def follow(*, stack_name: str, config: AwsConfig, as_json: bool) -> None:
    """Show the steps of the deployment that is under way, or else of the last one, and wait for its end.

    SOURCE is a preset's name, or a TOML or YAML file; --stack-name may be a stack's id, which also finds one that
    was deleted. Ends with 1 when the deployment failed.
    """
    show_end(run(provisioning.follow(stack_name, config, on_event=show_event)), as_json=as_json)


def _rows(drift: Drift) -> Iterator[tuple[object, ...]]:
    resource = (drift.logical_id, drift.type, drift.status.value)
    for one in drift.differences:
        yield (*resource, one.path, one.expected, one.actual)
    if not drift.differences:
        yield (*resource, drift.reason or None, None, None)
