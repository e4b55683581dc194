"""`oms-events infra destroy`."""

from __future__ import annotations

import asyncio

import click

from oms_events import provisioning
from oms_events._aws.config import AwsConfig
from oms_events.cli.common import ends_cleanly, run
from oms_events.cli.infra.emulated import destroy_with_left_out
from oms_events.cli.infra.options import ask, asks_first, require_answer, takes_aws, takes_stack
from oms_events.cli.infra.showing import counted, show_deletion, show_end, show_event
from oms_events.cli.output import tell
from oms_events.errors import DataLossRefusedError


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
    show_deletion(found, as_json=as_json)
    if found.reasons and not force:
        raise DataLossRefusedError(
            f"stack {found.stack_name!r} was not deleted, for {counted(len(found.reasons), 'reason')}: "
            "--force deletes it nevertheless",
            reasons=found.reasons,
        )
    resources = counted(len(found.resources), "resource")
    ask(f"delete stack {found.stack_name} with {resources}?", yes=yes)
    try:
        state = run(destroy_with_left_out(found, config, force=force, on_event=show_event))
    except (KeyboardInterrupt, asyncio.CancelledError):
        tell(
            "stopped; a deletion that CloudFormation has begun goes on: "
            f"see it with `oms-events infra follow --stack-name {found.stack_id}`"
        )
        raise
    show_end(state, as_json=as_json)
    # Its name finds it no more.
    tell(f"see its end again with `oms-events infra follow --stack-name {state.id}`")
