"""Where the commands get a stack from: a preset's name, or a file, and settings over it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from oms_events._config import plain_json, suggestion
from oms_events.errors import ConfigurationError, SpecError
from oms_events.provisioning.presets.registry import PRESETS
from oms_events.provisioning.specs.stack import StackSpec
from oms_events.routing.rulefile import read_document

_PRESET: Final = "preset"
_NAMES: Final = ", ".join(PRESETS)
_FILES: Final = (".toml", ".yaml", ".yml")
_STEP: Final = re.compile(r'\s*(?:"([^"]+)"|([^\s".=](?:[^".=]*[^\s".=])?))\s*([.=])')


def read_source(source: str, settings: Sequence[str] = ()) -> StackSpec:
    """The stack of a preset, or of a TOML or YAML file. Blocks on the disk.

    A file holds the fields of a StackSpec, or `preset = "name"` and the preset's variables. `settings` are
    `key=value`, the key with dots for fields within fields (a name with dots stands in double quotes), the value
    JSON where it is JSON, else text; a number, true and false are text where the field takes text alone. They go
    before the file's. Raises `ConfigurationError` with all problems.
    """
    document = _read(source)
    given = [_parse(setting) for setting in settings]
    try:
        return _stack_of(source, document, given)
    except ConfigurationError as error:
        texts = [setting.as_text() if setting.is_refused(error) else setting for setting in given]
        if texts == given:
            raise
    return _stack_of(source, document, texts)


def _stack_of(source: str, read: Mapping[str, Any], settings: Sequence[_Setting]) -> StackSpec:
    document = dict(read)
    for setting in settings:
        setting.put_into(document)
    try:
        document = plain_json(document)
    except ValueError as error:
        raise ConfigurationError(source, [str(error)]) from None
    name = document.pop(_PRESET, None)
    if name is None:
        return StackSpec(**document)
    preset = PRESETS.get(name) if isinstance(name, str) else None
    if preset is None:
        hint = isinstance(name, str) and suggestion(name, PRESETS)
        problem = f"preset = {name!r}: {hint or f'known presets: {_NAMES}'}"
        raise ConfigurationError(source, [problem])
    return preset(**document).stack()


def _read(source: str) -> dict[str, Any]:
    if source in PRESETS:
        return {_PRESET: source}
    if not source.endswith(_FILES):
        hint = suggestion(source, PRESETS)
        presets, question = ("", f"; {hint}") if hint else (f" ({_NAMES})", "")
        problem = f"is neither a preset{presets} nor a file that ends with {', '.join(_FILES)}{question}"
        raise ConfigurationError(source, [problem])
    document = read_document(Path(source))
    if not isinstance(document, dict):
        raise ConfigurationError(source, [f"is {type(document).__name__}; write the stack's fields by name"])
    return dict(document)


@dataclass(frozen=True, slots=True)
class _Setting:
    """One `key=value`; `text` is the value as it was written."""

    path: tuple[str, ...]
    value: Any
    text: str

    def put_into(self, document: dict[str, Any]) -> None:
        inner = document
        *steps, last = self.path
        for step in steps:
            value = inner.get(step, {})
            if not isinstance(value, Mapping):
                key = ".".join(self.path)
                raise SpecError("--set", [f"{key!r}: {step!r} is {type(value).__name__} and has no fields"])
            # A copy, for what was read from a file may be shared.
            inner[step] = dict(value)
            inner = inner[step]
        inner[last] = self.value

    def is_refused(self, error: ConfigurationError) -> bool:
        """Whether one of the problems is about this value."""
        return any(f"{self.path[-1]} = {self.value!r}: " in problem for problem in error.problems)

    def as_text(self) -> _Setting:
        """A number, true or false as it was written, for a field that takes text; any other value stays."""
        return replace(self, value=self.text) if isinstance(self.value, int | float) else self


def _parse(setting: str) -> _Setting:
    path: list[str] = []
    end = 0
    while step := _STEP.match(setting, end):
        quoted, plain, sign = step.groups()
        path.append(quoted or plain)
        end = step.end()
        if sign == "=":
            if path[0] == _PRESET:
                raise SpecError("--set", [f"{setting!r}: the preset is what SOURCE says; give another SOURCE"])
            return _Setting(tuple(path), _value(setting, setting[end:]), setting[end:])
    raise SpecError(
        "--set",
        [
            f"{setting!r}: write key=value, such as name=orders or archive_config.enabled=false, and a name with "
            'dots in quotes: tags."cost.center"=7'
        ],
    )


def _value(setting: str, text: str) -> Any:
    def fields(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise SpecError("--set", [f"{setting!r}: a key stands twice; keep one"])
        return made

    try:
        return json.loads(text, object_pairs_hook=fields)
    except SpecError:
        raise
    except (ValueError, RecursionError):
        return text
