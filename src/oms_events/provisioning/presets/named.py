"""Variables that are several things, each with its name: as a table by name, or as a list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from oms_events.provisioning.specs.base import Spec


def by_name(value: object) -> dict[str, dict[str, Any]]:
    """What is given for each name, from `{name: {...}}` or `[{"name": name, ...}]`. Raises `ValueError`.

    In place of the fields a spec may stand: its fields that were given.
    """
    if isinstance(value, Mapping):
        entries = [(name, _fields(entry)) for name, entry in value.items()]
    elif isinstance(value, list | tuple):
        entries = [(fields.get("name"), fields) for fields in map(_fields, value)]
    else:
        raise ValueError(f"{type(value).__name__} is neither a table by name nor a list; write {{name: {{...}}}}")
    for name, fields in entries:
        if not isinstance(name, str) or not name:
            raise ValueError(f"{fields!r} has no name; write {{name: {{...}}}}, or a list of what has a name each")
    if twice := [name for name, count in Counter(name for name, _ in entries).items() if count > 1]:
        raise ValueError(f"{twice[0]!r} stands twice; name each once")
    return dict(entries)


def _fields(entry: object) -> dict[str, Any]:
    if isinstance(entry, Spec):
        return {field: getattr(entry, field) for field in entry.model_fields_set}
    if isinstance(entry, Mapping):
        return dict(entry)
    raise ValueError(f"{entry!r} has no fields; write {{name: {{...}}}}, or a list of what has a name each")
