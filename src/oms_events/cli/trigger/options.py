"""What the trigger commands share: settings, payloads, and a pipeline of the user's own."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from oms_events.cli.common import config_option, load_object, read_settings
from oms_events.cli.output import tell
from oms_events.errors import ConfigurationError
from oms_events.triggers.environment import PREFIX, trigger_settings
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


_GUARDS: Final = {
    "idempotency_table": "the same start may run twice",
    "breaker_table": "what keeps failing is not stopped, and exclusive starts may run together",
    "rate_table": "quotas do not count",
}


def tell_of_pipeline(settings: TriggerSettings) -> None:
    """Says on stderr as what the settings' pipeline runs in this process: environment, defaults, missing guards.

    Raises `ConfigurationError` when it sends to a queue, and nobody said whose environment that is.
    """
    config, is_said = settings.config, "environment" in settings.config.model_fields_set
    if settings.queue_url is not None and not is_said:
        problem = (
            "a queue is configured, but not its environment, whose defaults would be sent there; set "
            f"{PREFIX}ENVIRONMENT to dev, staging or prod, or `environment` in the file's part [triggers.config]"
        )
        raise ConfigurationError("settings", [problem])
    said = ", ".join(
        f"{name} {len(value)} symbols" if name == "symbols" else f"{name} {value}"
        for name, value in config.defaults.model_dump().items()
    )
    tell(f"environment {config.environment}{'' if is_said else ' (nobody said one)'}; by default {said}")
    if settings.queue_url is None:
        return
    for field, risk in _GUARDS.items():
        if getattr(settings, field) is None:
            tell(f"unguarded: no {field} is configured: {risk}")


def moment_text(moment: datetime | None) -> str | None:
    """A time as all that comes in and out has it: `2026-09-09T22:00:00Z`."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def wait_text(seconds: float) -> str:
    """When something may go on."""
    return f"in {seconds:.0f} s" if seconds else "now"


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
