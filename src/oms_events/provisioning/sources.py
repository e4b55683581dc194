"""Where the commands get a stack from: a preset's name, or a file, and settings over it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from oms_events.errors import ConfigurationError, SpecError
from oms_events.provisioning.presets.registry import PRESETS
from oms_events.provisioning.specs.stack import StackSpec
from oms_events.routing.rulefile import read_document

_PRESET: Final = "preset"
_FILES: Final = (".toml", ".yaml", ".yml")


def read_source(source: str, settings: Sequence[str] = ()) -> StackSpec:
    """The stack of a preset, or of a TOML or YAML file. Blocks on the disk.

    A file holds the fields of a StackSpec, or `preset = "name"` and the preset's variables. `settings` are
    `key=value`, the key with dots for fields within fields, the value JSON where it is JSON, else text; they go
    before the file's. Raises `ConfigurationError` with all problems.
    """
    document = _read(source)
    for setting in settings:
        _set(document, setting)
    name = document.pop(_PRESET, None)
    if name is None:
        return StackSpec(**document)
    preset = PRESETS.get(name) if isinstance(name, str) else None
    if preset is None:
        raise ConfigurationError(source, [f"preset = {name!r}: known presets: {', '.join(PRESETS)}"])
    return preset(**document).stack()


def _read(source: str) -> dict[str, Any]:
    if source in PRESETS:
        return {_PRESET: source}
    if not source.endswith(_FILES):
        problem = f"is neither a preset ({', '.join(PRESETS)}) nor a file that ends with {', '.join(_FILES)}"
        raise ConfigurationError(source, [problem])
    document = read_document(Path(source))
    if not isinstance(document, dict):
        raise ConfigurationError(source, [f"is {type(document).__name__}; write the stack's fields by name"])
    return dict(document)


def _set(document: dict[str, Any], setting: str) -> None:
    path, equals, text = setting.partition("=")
    *steps, last = path.strip().split(".")
    if not equals or not all((*steps, last)):
        raise SpecError(
            "--set", [f"{setting!r}: write key=value, such as name=orders or archive_config.enabled=false"]
        )
    inner = document
    for step in steps:
        value = inner.get(step, {})
        if not isinstance(value, Mapping):
            raise SpecError("--set", [f"{setting!r}: {step!r} is {type(value).__name__} and has no fields"])
        # A copy, for what was read from a file may be shared.
        inner[step] = dict(value)
        inner = inner[step]
    inner[last] = _value(text)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
