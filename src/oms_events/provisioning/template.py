"""A CloudFormation template as a value: what synthesis gives, and what a deployment takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

METADATA_KEY: Final = "OmsEvents"
"""The part of a template's `Metadata` that says how its outputs go together, see `Template.outputs_layout`."""

_NAMED_IAM: Final = "CAPABILITY_NAMED_IAM"
_IAM: Final = "AWS::IAM::"


@dataclass(frozen=True, slots=True)
class Template:
    """A template with the name of its stack; made by `synthesize`, or from any template that is JSON.

    The same input gives the same bytes: keys stand in the order of the specs.
    """

    stack_name: str
    document: Mapping[str, Any]
    tags: Mapping[str, str] = field(default_factory=dict)
    termination_protection: bool = False

    @property
    def resources(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.document.get("Resources", {})
        return found

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What CloudFormation wants to be told: that roles with names of their own are made."""
        makes_roles = any(
            str(entry.get("Type", "")).startswith(_IAM)
            for entry in self.resources.values()
            # A loop of a transform (Fn::ForEach) is a list.
            if isinstance(entry, Mapping)
        )
        return (_NAMED_IAM,) if makes_roles else ()

    @property
    def outputs_layout(self) -> Mapping[str, Any]:
        """Output name to the key of the template's output, to a map of such, or to an empty text for none."""
        layout: Mapping[str, Any] = self.document.get("Metadata", {}).get(METADATA_KEY, {}).get("Outputs", {})
        return layout

    @property
    def body(self) -> str:
        """The template as CloudFormation gets it: JSON without spaces."""
        return json.dumps(self.document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    @property
    def digest(self) -> str:
        """A short name for these bytes."""
        return hashlib.sha256(self.body.encode()).hexdigest()[:12]

    def to_json(self) -> str:
        """The template for people and files: indented JSON, ending with a line break."""
        return json.dumps(self.document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def assembled_outputs(layout: Mapping[str, Any], outputs: Mapping[str, str]) -> dict[str, Any]:
    """The outputs under the names and in the maps of the specs, from a stack's plain outputs; None for absent."""
    return {
        name: assembled_outputs(place, outputs) if isinstance(place, Mapping) else outputs.get(place)
        for name, place in layout.items()
    }
