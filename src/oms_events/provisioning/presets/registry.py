"""The presets by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from oms_events.provisioning.presets.base import Preset

PRESETS: Final[Mapping[str, type[Preset]]] = {}
