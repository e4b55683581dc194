"""What a preset is."""

from __future__ import annotations

from oms_events.provisioning.specs.base import Spec
from oms_events.provisioning.specs.stack import StackSpec


class Preset(Spec):
    """A whole system as one configuration object: its fields are the variables, `stack()` is what is deployed."""

    def stack(self) -> StackSpec:
        """The system as specs. Raises `SpecError` for variables that do not go together."""
        raise NotImplementedError
