"""Variables that are several things, each with its name: as a table by name, or as a list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

_NAME: Final = "name"


def by_name(value: object) -> dict[str, dict[str, Any]]:
    """What is given for each name, from `{name: {...}}` or from `[{"name": name, ...}]`. Raises `ValueError`."""
    if isinstance(value, Mapping):
        entries = [(str(name), entry) for name, entry in value.items()]
    elif isinstance(value, list | tuple):
        entries = [(entry.get(_NAME, "") if isinstance(entry, Mapping) else "", entry) for entry in value]
    else:
        raise ValueError(f"{type(value).__name__} is neither a table by name nor a list; write {{name: {{...}}}}")
    for name, entry in entries:
        if not isinstance(entry, Mapping) or not isinstance(name, str) or not name:
            raise ValueError(
                f"{entry!r} has no name or no fields; write {{name: {{...}}}} or [{{name = '...', ...}}]"
            )
    if twice := [name for name, count in Counter(name for name, _ in entries).items() if count > 1]:
        raise ValueError(f"{twice[0]!r} stands twice; name each once")
    return {name: dict(entry) for name, entry in entries}
