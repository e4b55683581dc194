"""What the trigger commands share: settings, payloads, and a pipeline of the user's own."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oms_events.cli.common import config_option, load_object, read_settings
from oms_events.errors import ConfigurationError
from oms_events.triggers.environment import trigger_settings
from oms_events.triggers.settings import TriggerSettings

if TYPE_CHECKING:
    from oms_events.triggers.pipeline import TriggerPipeline

Command = Callable[..., None]


def takes_settings(command: Command) -> Command:
    """Gives a command --config, as `settings`: those of triggers, or if there are none, where AWS is."""

    @config_option
    @functools.wraps(command)
    def with_settings(*, config_file: Path | None, **options: Any) -> None:
        command(settings=_read(config_file), **options)

    return with_settings


def _read(config_file: Path | None) -> TriggerSettings:
    found = read_settings(config_file).triggers
    if found is not None:
        return found
    problems: list[str] = []
    found = trigger_settings(os.environ, {}, problems)
    if found is None:
        raise ConfigurationError("environment", problems)
    return found


def not_configured(field: str) -> ConfigurationError:
    """What a command says that cannot do without a field of the settings."""
    problem = f"no {field} is configured; set OMS_TRIGGERS_{field.upper()}, or give the file a part [triggers]"
    return ConfigurationError("settings", [problem])


def to_pipeline(text: str) -> TriggerPipeline:
    """The pipeline at `module:name`, where the module may lie in the current folder. Raises `BadParameter`."""
    from oms_events.triggers.pipeline import TriggerPipeline

    return load_object(text, TriggerPipeline, example="orchestrator:pipeline")


def to_payload(text: str) -> Any:
    """The JSON of a file, of stdin (`-`) or of the text itself; what is no JSON stays text, and is answered so.

    Raises `BadParameter` for a file that cannot be read.
    """
    content: str | bytes = text
    if text == "-":
        content = sys.stdin.buffer.read()
    elif not text.lstrip().startswith(("{", "[", '"')):
        try:
            content = Path(text).read_bytes()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise click.BadParameter(f"{text!r} is no JSON, and no file that can be read ({reason})") from None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content
