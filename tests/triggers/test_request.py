from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from oms_events.errors import ConfigurationError
from oms_events.triggers.config import Quota, TriggerConfig, TriggerDefaults
from oms_events.triggers.guards.outbound import OUTBOUND_BATCH, OUTBOUND_QUOTA
from oms_events.triggers.request import DEFAULT_SYMBOLS, TriggerRequest
from oms_events.triggers.schema import breaker_key, breaker_of, lease_key, rate_key


def test_a_start_needs_to_say_only_what_started_it() -> None:
    assert TriggerRequest(trigger_type="schedule").document() == {
        "data_source": "yahoo_finance",
        "data_type": "prices",
        "domain": "market",
        "table_name": "prices",
        "symbols": [],
        "period": "1mo",
        "interval": "1d",
        "file_format": "json",
        "trigger_type": "schedule",
        "urgent": False,
    }


def test_what_is_written_as_json_is_read_again() -> None:
    event = TriggerRequest(
        trigger_type="manual",
        symbols=(*DEFAULT_SYMBOLS, "BRK-B", "^GSPC", "005930.KS", "EURUSD=X"),
        table_name="daily_prices",
        trigger_time="2026-01-31T22:00:00Z",
        correlation_id="dev-customer-ingestion-schedule:2026-01-31T22:00:00Z",
        urgent=True,
    )
    assert TriggerRequest(**json.loads(json.dumps(event.document()))) == event


@pytest.mark.parametrize(
    ("values", "field", "remedy"),
    [
        ({"table_name": "prices2"}, "table_name = 'prices2'", "1 to 50 letters and '_'"),
        ({"table_name": "p" * 51}, "table_name", "1 to 50 letters"),
        ({"domain": ""}, "domain = ''", "1 to 50 letters"),
        ({"data_source": "yahoo finance"}, "data_source", "letters, digits"),
        ({"symbols": ["AAPL", "A B", ""]}, "symbols: 'A B', ''", "1 to 20 letters"),
        ({"symbols": ["A"] * 101}, "symbols", "at most 100"),
        ({"trigger_type": "cron"}, "trigger_type = 'cron'", "'schedule', 'event', 's3' or 'manual'"),
        ({"symbol": "AAPL"}, "unknown field 'symbol'", "did you mean 'symbols'?"),
    ],
)
def test_a_value_that_no_request_may_have_is_refused(values: Mapping[str, Any], field: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        TriggerRequest(**{"trigger_type": "event", **values})
    assert field in str(raised.value)
    assert remedy in str(raised.value)


def test_guards_have_keys_of_their_own_for_each_of_what_they_guard() -> None:
    assert breaker_key("market", "prices") == {"pk": "market#prices"}
    assert breaker_key("market", "prices") != breaker_key("market", "news")
    assert rate_key("manual") == {"pk": "manual", "sk": "starts"}
    # Breakers and leases share a table.
    assert lease_key("market#prices") == {"pk": "#lease#market#prices"}
    assert breaker_of(breaker_key("lease", "prices")["pk"]) == ("lease", "prices")
    assert breaker_of(lease_key("market#prices")["pk"]) is None


@pytest.mark.parametrize(
    ("values", "symbols"),
    [
        ({}, DEFAULT_SYMBOLS),
        ({"environment": "dev", "defaults": {"period": "5d"}}, DEFAULT_SYMBOLS),
        ({"defaults": TriggerDefaults(period="5d")}, DEFAULT_SYMBOLS),
        ({"defaults": TriggerDefaults(symbols=())}, ()),
        ({"defaults": {"symbols": ["TSLA"]}}, ("TSLA",)),
        ({"environment": "prod"}, ()),
        ({"environment": "staging", "defaults": {"symbols": ["TSLA"]}}, ("TSLA",)),
    ],
)
def test_symbols_that_nobody_gives_are_those_of_the_environment(
    values: dict[str, Any], symbols: tuple[str, ...]
) -> None:
    config = TriggerConfig(**values)
    assert config.defaults.symbols == symbols
    assert config.defaults.period == ("5d" if "5d" in str(values) else "1mo")
    assert TriggerConfig.of(config.environment) == TriggerConfig(environment=config.environment)


@pytest.mark.parametrize("values", [{"defaults": 5}, {"defaults": None}, {"environment": ["dev"]}])
def test_what_is_no_configuration_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(values))):
        TriggerConfig(**values)


def test_starts_are_guarded_as_promised_unless_it_is_configured() -> None:
    config = TriggerConfig()
    assert config.quotas == {"manual": Quota(limit=10, window=3_600), "event": Quota(limit=100, window=60)}
    assert config.exclusive == {"schedule"}
    assert (config.breaker.failure_threshold, config.breaker.failure_window) == (5, 3_600)
    assert (Quota(limit=100, window=60), 5) == (OUTBOUND_QUOTA, OUTBOUND_BATCH)
