"""The request that every start becomes, whatever it came from. Pure."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from pydantic import Field, field_validator

from oms_events._config import ConfigModel

TriggerType = Literal["schedule", "event", "s3", "manual"]
"""What started it: a schedule, an event (of EventBridge or a CloudEvent), a new object, or somebody."""

TRIGGER_TYPES: Final[tuple[TriggerType, ...]] = ("schedule", "event", "s3", "manual")

DEFAULT_SYMBOLS: Final = ("AAPL", "MSFT", "GOOGL")
"""What the development environment ingests; the others load theirs."""

MAX_SYMBOLS: Final = 100
MAX_CORRELATION_ID: Final = 512
"""Characters: room for a bucket, a key and a sequencer; longer ones are told by their digest."""

TABLE_NAME: Final = re.compile(r"[A-Za-z_]{1,50}")
WORD: Final = re.compile(r"[A-Za-z0-9_.-]{1,50}")
SYMBOL: Final = re.compile(r"[A-Za-z0-9.^=_-]{1,20}")

TABLE_NAME_REMEDY: Final = "give 1 to 50 letters and '_'"
WORD_REMEDY: Final = "give 1 to 50 letters, digits, '_', '.' and '-'"
SYMBOL_REMEDY: Final = "a symbol is 1 to 20 letters, digits and any of .^=_-"

REQUEST_FIELDS: Final = (
    "data_source", "data_type", "domain", "table_name", "symbols", "period", "interval", "file_format",
    "trigger_type", "trigger_time", "correlation_id", "urgent",
)  # fmt: skip
"""All that a request is made of; other keys of what came in are kept beside it."""


class TriggerRequest(ConfigModel):
    """What is to be ingested, and why: `trigger_type` started it at `trigger_time` (RFC 3339).

    Without `symbols` whoever handles it loads them. A start that is delivered again has the same `correlation_id`.
    Raises `ConfigurationError` for values that no request may have.
    """

    data_source: str = "yahoo_finance"
    data_type: str = "prices"
    domain: str = "market"
    table_name: str = "prices"
    symbols: tuple[str, ...] = Field(default=(), max_length=MAX_SYMBOLS)
    period: str = "1mo"
    interval: str = "1d"
    file_format: str = "json"
    trigger_type: TriggerType
    trigger_time: str | None = None
    correlation_id: str | None = None
    urgent: bool = False

    def document(self) -> dict[str, Any]:
        """It as JSON, without what is not known."""
        return self.model_dump(mode="json", exclude_none=True)

    @field_validator("table_name")
    @classmethod
    def _check_table_name(cls, table_name: str) -> str:
        if TABLE_NAME.fullmatch(table_name) is None:
            raise ValueError(TABLE_NAME_REMEDY)
        return table_name

    @field_validator("data_source", "data_type", "domain", "period", "interval", "file_format")
    @classmethod
    def _check_word(cls, word: str) -> str:
        if WORD.fullmatch(word) is None:
            raise ValueError(WORD_REMEDY)
        return word

    @field_validator("symbols")
    @classmethod
    def _check_symbols(cls, symbols: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [symbol for symbol in symbols if SYMBOL.fullmatch(symbol) is None]:
            raise ValueError(f"{', '.join(map(repr, wrong))}: {SYMBOL_REMEDY}")
        return symbols


def is_correlation_id(value: object) -> bool:
    """Whether it may be one, and be written to a log as it is."""
    return isinstance(value, str) and 0 < len(value) <= MAX_CORRELATION_ID and value.isprintable()
