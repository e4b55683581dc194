"""Templates through cfn-lint, in this process: a run of its own would cost seconds each time."""

from __future__ import annotations

from cfnlint.api import lint
from cfnlint.config import ManualArgs

from oms_events.provisioning.template import Template


def findings(*templates: Template) -> list[str]:
    """What cfn-lint says of the templates: errors, warnings and remarks."""
    config = ManualArgs(regions=["us-east-1"], include_checks=["I"])
    return [
        f"{template.stack_name}: {found.rule.id} {'/'.join(map(str, found.path or ()))}: {found.message}"
        for template in templates
        for found in lint(template.to_json(), config=config)
    ]
