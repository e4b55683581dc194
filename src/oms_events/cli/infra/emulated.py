"""The local stack's emulator: what its CloudFormation cannot make is made through the services' own APIs."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from oms_events import provisioning
from oms_events._aws.config import AwsConfig
from oms_events.cli.infra.showing import counted
from oms_events.cli.output import tell
from oms_events.devstack.left_out import make_left_out, remove_left_out
from oms_events.devstack.taken_names import refuse_taken_names
from oms_events.devstack.templates import Adapted, adapt, is_emulator
from oms_events.provisioning.deployment.destroy import Deletion
from oms_events.provisioning.deployment.progress import OnEvent
from oms_events.provisioning.deployment.stacks import StackState
from oms_events.provisioning.template import Template

_log = logging.getLogger("oms_events")


@dataclass(frozen=True, slots=True)
class Deployable:
    """A template as the endpoint takes it; `adapted` where that is the emulator."""

    template: Template
    adapted: Adapted | None = None

    def tell_left_out(self) -> None:
        """Tells in one line that the emulator's CloudFormation leaves something out, and logs what."""
        left_out = () if self.adapted is None else self.adapted.left_out
        if not left_out:
            return
        for part in left_out:
            # As a warning, which --debug shows without a level being set, and nothing else does.
            _log.warning("left out by the AWS emulator's CloudFormation: %s", part)
        missing = len({part.logical_id for part in left_out if not part.supplied})
        but = f", but for {missing} the emulator cannot do it" if missing else ""
        tell(
            "the AWS emulator's CloudFormation lacks parts of "
            f"{counted(len({part.logical_id for part in left_out}), 'resource')}; they are made through their "
            f"services{but} (--debug lists them)"
        )

    async def complete(self, config: AwsConfig) -> None:
        """After a deployment: makes what the emulator's CloudFormation left out."""
        if self.adapted is not None:
            await make_left_out(self.adapted, self.template.stack_name, config)


async def deployable(template: Template, config: AwsConfig) -> Deployable:
    """The template itself, or, for the emulator, what it takes of it.

    Raises `ProvisioningError` for names that exist outside the stack, over which the emulator would deploy.
    """
    if not await _is_emulated(config):
        return Deployable(template)
    adapted = adapt(template.document)
    await refuse_taken_names(adapted, template.stack_name, config)
    return Deployable(replace(template, document=adapted.document), adapted)


async def destroy_with_left_out(
    found: Deletion, config: AwsConfig, *, force: bool, on_event: OnEvent
) -> StackState:
    """Deletes the stack that was shown, and what was made for it beside the emulator's CloudFormation.

    Raises as `provisioning.destroy` does.
    """
    emulated = await _is_emulated(config)
    # Alarms beside the stack hold on to those in it, and go first; but not for a deletion that will be refused.
    if emulated and await provisioning.look(found.stack_id, config) == found:
        await remove_left_out(found.stack_name, config)
    state = await provisioning.destroy(found.stack_id, config, force=force, shown=found, on_event=on_event)
    if emulated:
        await remove_left_out(found.stack_name, config)
    return state


async def _is_emulated(config: AwsConfig) -> bool:
    return config.endpoint_url is not None and await is_emulator(config.endpoint_url)
