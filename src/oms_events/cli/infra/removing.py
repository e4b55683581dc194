"""`oms-events infra destroy`."""

from __future__ import annotations

import asyncio
import sys

import click

from oms_events import provisioning
from oms_events._aws.config import AwsConfig
from oms_events.cli.common import ends_cleanly, run
from oms_events.cli.infra.emulated import remove_supplied
from oms_events.cli.infra.options import ask, asks_first, require_answer, takes_aws, takes_stack
from oms_events.cli.infra.showing import show_end, show_event
from oms_events.cli.output import print_table, tell
from oms_events.errors import DataLossRefusedError
from oms_events.provisioning.deployment.destroy import Deletion
from oms_events.provisioning.deployment.stacks import StackState


@click.command()
@asks_first
@click.option(
    "--force",
    is_flag=True,
    help="Also with data in it, and when it is protected: protection is switched off first.",
)
@ends_cleanly
@takes_stack
@takes_aws
def destroy(*, stack_name: str, config: AwsConfig, yes: bool, force: bool, as_json: bool) -> None:
    """Delete a stack with all that is in it, after showing it and asking.

    SOURCE is a preset's name, or a TOML or YAML file. Refuses while tables, queues, buckets or archives hold
    anything, or something is protected, unless forced. Ctrl-C ends this command, not the deletion.
    """
    require_answer(yes=yes)
    found = run(provisioning.look(stack_name, config))
    if not as_json:
        _show(found)
    for reason in found.reasons:
        tell(reason)
    if found.reasons and not force:
        raise DataLossRefusedError(
            f"stack {found.stack_name!r} was not deleted, for {len(found.reasons)} reasons: --force deletes it "
            "nevertheless",
            reasons=found.reasons,
        )
    ask(f"delete stack {found.stack_name} with these {len(found.resources)} resources?", yes=yes)
    try:
        state = run(_destroyed(found, config, force=force))
    except (KeyboardInterrupt, asyncio.CancelledError):
        tell(
            "stopped; a deletion that CloudFormation has begun goes on: "
            f"see it with `oms-events infra follow --stack-name {found.stack_id}`"
        )
        raise
    show_end(state, as_json=as_json)


async def _destroyed(found: Deletion, config: AwsConfig, *, force: bool) -> StackState:
    await remove_supplied(found.stack_name, config)
    return await provisioning.destroy(found.stack_id, config, force=force, shown=found, on_event=show_event)


def _show(found: Deletion) -> None:
    rows = [
        ("keep" if resource.kept else "remove", resource.logical_id, resource.type, resource.physical_id)
        for resource in found.resources
    ]
    if rows:
        print_table(("action", "resource", "type", "name"), rows)
    click.echo(f"stack {found.stack_name}: {len(rows)} resources")
    sys.stdout.flush()
