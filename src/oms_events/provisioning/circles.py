"""Whether the resources of a template wait for each other, in which case CloudFormation refuses it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Final

from oms_events.provisioning.specs.base import Json, Resource

VARIABLE: Final = re.compile(r"\$\{([^!}][^}]*)\}")
"""What `Fn::Sub` fills in."""


def circle(resources: Mapping[str, Resource]) -> Sequence[str]:
    """Logical ids that each need the next, from one of them back to itself; empty where none do."""
    needs = {name: {*resource.depends_on, *_named(resource.properties)} for name, resource in resources.items()}
    # Sorted, so that the same template gives the same path; pseudo parameters are no resources.
    graph = {name: sorted(needed & resources.keys()) for name, needed in needs.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        path: list[str] = error.args[1]
        return path[::-1]
    return ()


def _named(value: Json) -> Iterator[str]:
    if isinstance(value, Mapping):
        match dict(value):
            case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), *_]}:
                yield name
            case {"Fn::Sub": str(text)} | {"Fn::Sub": [str(text), *_]}:
                yield from (found[1].partition(".")[0] for found in VARIABLE.finditer(text))
        for item in value.values():
            yield from _named(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _named(item)
