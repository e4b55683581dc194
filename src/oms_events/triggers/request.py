"""The request that every start becomes, whatever it came from. Pure."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from pydantic import Field, field_validator

from oms_events._config import ConfigModel

TriggerType = Literal["schedule", "event", "s3", "manual"]

DEFAULT_SYMBOLS: Final = ("AAPL", "MSFT", "GOOGL")
"""What the development environment ingests; the others load theirs."""

MAX_SYMBOLS: Final = 100

_TABLE_NAME: Final = re.compile(r"[A-Za-z_]{1,50}")
_WORD: Final = re.compile(r"[A-Za-z0-9_.-]{1,50}")
_SYMBOL: Final = re.compile(r"[A-Za-z0-9.^=_-]{1,20}")


class IngestionEvent(ConfigModel):
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
        if _TABLE_NAME.fullmatch(table_name) is None:
            raise ValueError("give 1 to 50 letters and '_'")
        return table_name

    @field_validator("data_source", "data_type", "domain", "period", "interval", "file_format")
    @classmethod
    def _check_word(cls, word: str) -> str:
        if _WORD.fullmatch(word) is None:
            raise ValueError("give 1 to 50 letters, digits, '_', '.' and '-'")
        return word

    @field_validator("symbols")
    @classmethod
    def _check_symbols(cls, symbols: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [symbol for symbol in symbols if _SYMBOL.fullmatch(symbol) is None]:
            raise ValueError(
                f"{', '.join(map(repr, wrong))}: a symbol is 1 to 20 letters, digits and any of .^=_-"
            )
        return symbols
