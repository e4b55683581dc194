"""What may be said of a failure of a service's own code where values are personal. Pure."""

from __future__ import annotations

import traceback
from pathlib import PurePath


def place_of(error: BaseException) -> str:
    """Where it failed, ` (models.py:12)`; nothing when that is not known."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({PurePath(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


def without_values(error: BaseException) -> str:
    """The class and the place of a failure; its own text may repeat values."""
    return f"{type(error).__name__}{place_of(error)}"
