"""`oms-events infra synth`, `plan` and `apply`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final

import click

from oms_events import provisioning
from oms_events._aws.config import AwsConfig
from oms_events.cli.common import ends_cleanly, run
from oms_events.cli.infra.emulated import Deployable, deployable
from oms_events.cli.infra.options import ask, asks_first, require_answer, takes_aws, takes_template
from oms_events.cli.infra.showing import counted, describe_plan, show_end, show_event, show_plan
from oms_events.cli.output import print_json, tell
from oms_events.errors import DataLossRefusedError, ProvisioningError
from oms_events.provisioning.deployment.changes import Plan
from oms_events.provisioning.deployment.stacks import StackState
from oms_events.provisioning.template import Template


def _yaml(template: Template) -> str:
    # Imported here, so that the extra is needed only by those who want YAML.
    import yaml

    text: str = yaml.safe_dump(json.loads(template.body), sort_keys=False, allow_unicode=True, width=115)
    return text


_FORMATS: Final = {"json": Template.to_json, "yaml": _yaml}

_bucket_option = click.option(
    "--template-bucket", metavar="NAME",
    help="A bucket of the region for a template above 51,200 bytes; it stays there.",
)  # fmt: skip


@click.command()
@click.option(
    "--format", "form", type=click.Choice(list(_FORMATS)), default="json", show_default=True,
    help="How the template is written.",
)  # fmt: skip
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write it there.")
@ends_cleanly
@takes_template
def synth(*, template: Template, form: str, output: Path | None, as_json: bool) -> None:
    """Print the CloudFormation template of SOURCE: a preset's name, or a TOML or YAML file.

    The same input gives the same bytes. --json prints it in one line, as CloudFormation gets it. Needs no AWS.
    """
    text = f"{template.body}\n" if as_json else _FORMATS[form](template)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
        resources = counted(len(template.resources), "resource")
        tell(f"wrote {output}: {resources}, {len(template.body.encode()):,} bytes")


@click.command()
@_bucket_option
@ends_cleanly
@takes_template
@takes_aws
def plan(*, template: Template, config: AwsConfig, template_bucket: str | None, as_json: bool) -> None:
    """Show what `apply` would change, and change nothing.

    SOURCE is a preset's name, or a TOML or YAML file. CloudFormation works the changes out; what it made for that
    is removed again. Ends with 0, with changes and without.
    """
    _, made = run(_planned(template, config, template_bucket))
    try:
        if as_json:
            print_json(describe_plan(made))
        else:
            show_plan(made)
    finally:
        run(_discarded(made, config))


@click.command()
@asks_first
@click.option("--allow-data-loss", is_flag=True, help="Also when tables, queues and the like lose what they hold.")
@_bucket_option
@ends_cleanly
@takes_template
@takes_aws
def apply(
    *,
    template: Template,
    config: AwsConfig,
    template_bucket: str | None,
    yes: bool,
    allow_data_loss: bool,
    as_json: bool,
) -> None:
    """Show what would change, ask, and do exactly that.

    SOURCE is a preset's name, or a TOML or YAML file. Each step of CloudFormation is told on stderr. What fails is
    rolled back, and the failing resource's reason is told. Ctrl-C ends this command, not the deployment.
    """
    require_answer(yes=yes)
    ready, made = run(_planned(template, config, template_bucket))
    try:
        show_plan(made, as_json=as_json)
        if made.data_loss and not allow_data_loss:
            raise DataLossRefusedError(
                f"{counted(len(made.data_loss), 'resource')} would lose data, and nothing was done: "
                "--allow-data-loss allows it",
                reasons=made.data_loss,
            )
        if not made.is_empty:
            ask("apply this?", yes=yes)
    except BaseException:
        _discard(made, config)
        raise
    try:
        state = run(_applied(ready, made, config))
    except (KeyboardInterrupt, asyncio.CancelledError):
        tell(
            "stopped; what CloudFormation has begun goes on: "
            f"see it with `oms-events infra follow --stack-name {made.stack_id}`"
        )
        raise
    show_end(state, as_json=as_json)


async def _planned(template: Template, config: AwsConfig, bucket: str | None) -> tuple[Deployable, Plan]:
    ready = await deployable(template, config)
    made = await provisioning.plan(ready.template, config, template_bucket=bucket)
    if not made.is_empty:
        ready.tell_left_out()
    return ready, made


def _discard(made: Plan, config: AwsConfig) -> None:
    try:
        run(_discarded(made, config))
    except ProvisioningError as error:
        # Why the command ends matters more.
        tell(f"the plan's change set {made.change_set_id} could not be removed: {error}")


async def _discarded(made: Plan, config: AwsConfig) -> None:
    """Removes the plan, also when it is interrupted once: nobody would see what stays."""
    removing = asyncio.create_task(provisioning.discard(made, config), name="discard-plan")
    try:
        await asyncio.shield(removing)
    except asyncio.CancelledError:
        await removing
        raise


async def _applied(ready: Deployable, made: Plan, config: AwsConfig) -> StackState:
    # Whoever got here has seen the plan, and allowed what it loses.
    state = await provisioning.apply(made, config, allow_data_loss=True, on_event=show_event)
    await ready.complete(config)
    return state
