"""The calls that make, change and undo what the emulator's CloudFormation leaves out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = Any
Properties = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a service: its operation, and the parameters under AWS's names."""

    service: str
    operation: str
    parameters: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Supply:
    """How a thing is made, and undone; `change` is called instead of `make` where it exists already."""

    make: Request
    undo: Request
    change: Request | None = None
