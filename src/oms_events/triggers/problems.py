"""What can be wrong with a start, as codes that stay; each with field, value and remedy. Pure."""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

_SHOWN: Final = 200
"""Characters of a wrong value that an answer repeats."""
_LONGEST_NUMBER: Final = 2**64


class Code(StrEnum):
    """Why a start did not go on. A business rule may have codes of its own."""

    # Structural: the sender is broken.
    NOT_JSON = "NOT_JSON"
    NOT_AN_OBJECT = "NOT_AN_OBJECT"
    TOO_LARGE = "TOO_LARGE"
    WRONG_TYPE = "WRONG_TYPE"
    UNKNOWN_SHAPE = "UNKNOWN_SHAPE"
    UNKNOWN_EVENT = "UNKNOWN_EVENT"
    # Values: present, but invalid.
    INVALID_DATA_SOURCE = "INVALID_DATA_SOURCE"
    INVALID_DATA_TYPE = "INVALID_DATA_TYPE"
    INVALID_DOMAIN = "INVALID_DOMAIN"
    INVALID_TABLE_NAME = "INVALID_TABLE_NAME"
    INVALID_SYMBOLS = "INVALID_SYMBOLS"
    INVALID_PERIOD = "INVALID_PERIOD"
    INVALID_INTERVAL = "INVALID_INTERVAL"
    INVALID_FILE_FORMAT = "INVALID_FILE_FORMAT"
    INVALID_TRIGGER_TIME = "INVALID_TRIGGER_TIME"
    INVALID_CORRELATION_ID = "INVALID_CORRELATION_ID"
    INVALID_OVERRIDE = "INVALID_OVERRIDE"
    INVALID_DETAIL = "INVALID_DETAIL"
    # The user's own rules.
    BUSINESS_RULE = "BUSINESS_RULE"
    # Guards.
    RATE_LIMITED = "RATE_LIMITED"
    BREAKER_OPEN = "BREAKER_OPEN"
    ALREADY_RUNNING = "ALREADY_RUNNING"
    IN_PROGRESS = "IN_PROGRESS"
    PAYLOAD_MISMATCH = "PAYLOAD_MISMATCH"
    # What failed here.
    SYMBOLS_UNAVAILABLE = "SYMBOLS_UNAVAILABLE"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"
    FAILED = "FAILED"


STRUCTURAL: Final = frozenset(
    (Code.NOT_JSON, Code.NOT_AN_OBJECT, Code.TOO_LARGE, Code.WRONG_TYPE, Code.UNKNOWN_SHAPE, Code.UNKNOWN_EVENT)
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: which field has which value, and what to do."""

    code: str
    remedy: str
    field: str | None = None
    value: Any = None

    def document(self) -> dict[str, Any]:
        """It as JSON; a long value is cut."""
        return {"code": str(self.code), "field": self.field, "value": _short(self.value), "remedy": self.remedy}

    def __str__(self) -> str:
        place = "" if self.field is None else f"{self.field} = {_short(self.value)!r}: "
        return f"{self.code}: {place}{self.remedy}"


def _short(value: Any) -> Any:
    """It as JSON takes it, and short: whatever it is."""
    if value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) < _LONGEST_NUMBER):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    text = value if isinstance(value, str) else _told(value)
    cut = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text):,} characters)"
    # Half a character would break what writes it out.
    return cut.encode("utf-8", "backslashreplace").decode()


def _told(value: object) -> str:
    try:
        return reprlib.repr(value)
    except Exception:
        # It is too large a number, or breaks when it is asked.
        return f"a {type(value).__name__}"
