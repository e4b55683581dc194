"""What a stack gives to others: named texts and references, and maps of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from oms_events._config import check_depth, fields_by_name
from oms_events.provisioning.specs.base import Reference, logical_id

ABSENT: Final = ""
"""In the layout, an output that this stack does not have: CloudFormation takes no nulls."""

OutputItem = str | Reference
OutputValue = OutputItem | None | Mapping[str, "OutputValue"]


def read_outputs(values: object) -> Mapping[str, OutputValue]:
    """The outputs from their form in a file. Raises `ValueError`."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{type(values).__name__} is no mapping; write outputs by name")
    check_depth(values)
    return {name: _read(name, value) for name, value in fields_by_name(values).items()}


def output_places(
    outputs: Mapping[str, OutputValue], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str, OutputItem]]:
    """Each output's path of names, its key in the template, which takes letters and digits only, and its value."""
    for name, value in outputs.items():
        here = (*path, name)
        if isinstance(value, Mapping):
            yield from output_places(value, here)
        elif value is not None:
            yield here, logical_id(*here), value


def outputs_layout(outputs: Mapping[str, OutputValue], path: tuple[str, ...] = ()) -> dict[str, Any]:
    """How the outputs are put together again, see `Template.outputs_layout`."""
    return {
        name: outputs_layout(value, (*path, name))
        if isinstance(value, Mapping)
        else (ABSENT if value is None else logical_id(*path, name))
        for name, value in outputs.items()
    }


def references_in(outputs: Mapping[str, OutputValue]) -> Iterator[tuple[str, Reference]]:
    """The outputs that are references, with their names."""
    for path, _, item in output_places(outputs):
        if isinstance(item, Reference):
            yield ".".join(path), item


def _read(name: str, value: object) -> OutputValue:
    if value is None or isinstance(value, Reference):
        return value
    if isinstance(value, str):
        if not value:
            raise ValueError(f"{name}: is empty, which CloudFormation refuses; write null for what there is not")
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: {value!r} is no text, no reference {{ref: 'kind:key'}}, and no map of those")
    if "ref" in value and set(value) <= {"ref", "attribute"}:
        return Reference(**value)
    return {key: _read(f"{name}.{key}", item) for key, item in fields_by_name(value).items()}
