"""The local stack's emulator: what its CloudFormation cannot make is made through the services' own APIs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from oms_events._aws.config import AwsConfig
from oms_events.cli.output import tell
from oms_events.devstack.left_out import make_left_out, remove_left_out
from oms_events.devstack.taken_names import refuse_taken_names
from oms_events.devstack.templates import Adapted, adapt, is_emulator
from oms_events.provisioning.template import Template


@dataclass(frozen=True, slots=True)
class Deployable:
    """A template as the endpoint takes it; `adapted` where that is the emulator."""

    template: Template
    adapted: Adapted | None = None

    async def complete(self, config: AwsConfig) -> None:
        """After a deployment: makes what the emulator's CloudFormation left out."""
        if self.adapted is not None:
            await make_left_out(self.adapted, self.template.stack_name, config)


async def deployable(template: Template, config: AwsConfig) -> Deployable:
    """The template itself, or, for the emulator, what it takes of it: the difference is told in one line.

    Raises `ProvisioningError` for names that exist outside the stack, over which the emulator would deploy.
    """
    if not await _is_emulated(config):
        return Deployable(template)
    adapted = adapt(template.document)
    await refuse_taken_names(adapted, template.stack_name, config)
    if adapted.left_out:
        tell(f"the AWS emulator's CloudFormation lacks a part: {'; '.join(map(str, adapted.left_out))}")
    return Deployable(replace(template, document=adapted.document), adapted)


async def remove_supplied(stack_name: str, config: AwsConfig) -> None:
    """Before a stack is deleted: removes what was made for it beside the emulator's CloudFormation."""
    if await _is_emulated(config):
        await remove_left_out(stack_name, config)


async def _is_emulated(config: AwsConfig) -> bool:
    return config.endpoint_url is not None and await is_emulator(config.endpoint_url)
