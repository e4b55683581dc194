"""Symbols out of the Parameter Store: their forms, the cache, and what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from oms_events._aws.config import AwsConfig
from oms_events.devstack import Delay, Denied, FaultProxy, LoseAnswer, ServerError, Throttle
from oms_events.errors import (
    ConfigurationError,
    StorageDeniedError,
    StorageRejectedError,
    StorageUnavailableError,
)
from oms_events.resilience.backoff import RetryConfig
from oms_events.testing import ManualClock
from oms_events.triggers.request import TriggerRequest
from oms_events.triggers.symbols import ParameterStoreSymbols, StaticSymbols, read_symbols
from tests.outbox.support import Settings, session_of
from tests.triggers.sending.conftest import aws

__all__ = ["aws"]

REQUEST = TriggerRequest(trigger_type="schedule")
RETRY = RetryConfig(max_attempts=3, initial=0.001, maximum=0.01)
PutSymbols = Callable[..., Awaitable[str]]


@pytest.fixture(scope="module")
async def ssm(aws: Settings) -> AsyncIterator[Any]:
    async with session_of(aws).client("ssm", endpoint_url=aws["endpoint_url"]) as client:
        yield client


@pytest.fixture
def put(ssm: Any) -> PutSymbols:
    async def put(value: str, *, name: str | None = None, kind: str = "String") -> str:
        name = name or f"/symbols/{uuid4().hex[:12]}"
        await ssm.put_parameter(Name=name, Value=value, Type=kind, Overwrite=True)
        return name

    return put


@pytest.fixture
def behind(aws: Settings, oms_fault_proxy: FaultProxy) -> AwsConfig:
    """The way through the fault proxy."""
    return AwsConfig(**{**aws, "endpoint_url": oms_fault_proxy.endpoint_url})


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ('["AAPL", "BRK.B", "AAPL", " MSFT ", ""]', ("AAPL", "BRK.B", "MSFT")),
        (" AAPL, MSFT,,AAPL ", ("AAPL", "MSFT")),
        ("AAPL\nMSFT\r\n\n  GOOGL,NVDA", ("AAPL", "MSFT", "GOOGL", "NVDA")),
        ("[]", ()),
        (" ", ()),
    ],
)
def test_symbols_may_be_a_json_list_or_text(text: str, symbols: tuple[str, ...]) -> None:
    assert read_symbols(text, name="p") == symbols


@pytest.mark.parametrize("text", ['["AAPL"', '{"symbols": ["AAPL"]}', "[1]", '"AAPL"', "[" * 100_000])
def test_what_has_no_such_form_is_told_with_the_parameters_name(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"parameter /p: it is .*JSON.*write a JSON list of texts"):
        read_symbols(text, name="/p")


@pytest.mark.parametrize("kind", ["String", "StringList", "SecureString"])
async def test_parameters_of_every_type_are_read(aws: Settings, ssm: Any, put: PutSymbols, kind: str) -> None:
    name = await put("AAPL,MSFT", kind=kind)
    async with ParameterStoreSymbols(name, AwsConfig(**aws), client=ssm) as symbols:
        assert await symbols(REQUEST) == ("AAPL", "MSFT")


async def test_starts_share_a_call_and_its_answer_for_a_while(
    behind: AwsConfig, put: PutSymbols, oms_fault_proxy: FaultProxy
) -> None:
    clock, name = ManualClock(), await put("AAPL")
    async with ParameterStoreSymbols(name, behind, cache_for=300, clock=clock) as symbols:
        oms_fault_proxy.script(Delay(0.05))
        first, *others = (asyncio.create_task(symbols(REQUEST)) for _ in range(10))
        await oms_fault_proxy.wait_for_calls(0)
        await asyncio.sleep(0)
        # Who goes does not take the others' answer along.
        first.cancel()
        assert set(await asyncio.gather(*others)) == {("AAPL",)}
        assert first.cancelled()
        await put("MSFT", name=name)
        await clock.advance(299)
        assert await symbols(REQUEST) == ("AAPL",)
        assert len(oms_fault_proxy.calls) == 1
        await clock.advance(1)
        assert await symbols(REQUEST) == ("MSFT",)
        assert len(oms_fault_proxy.calls) == 2


async def test_what_is_old_is_used_only_if_that_is_allowed(
    behind: AwsConfig, put: PutSymbols, oms_fault_proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    clock, name = ManualClock(), await put("AAPL")
    once = RetryConfig(max_attempts=1)
    strict = ParameterStoreSymbols(name, behind, cache_for=10, clock=clock, retry=once)
    lenient = ParameterStoreSymbols(name, behind, cache_for=10, stale_for=20, clock=clock, retry=once)
    async with strict, lenient:
        for symbols in (strict, lenient):
            assert await symbols(REQUEST) == ("AAPL",)
        oms_fault_proxy.always(ServerError())
        await clock.advance(10)
        with pytest.raises(StorageUnavailableError, match="the Parameter Store GetParameter"):
            await strict(REQUEST)
        await clock.advance(19)
        assert await lenient(REQUEST) == ("AAPL",)
        assert f"symbols of parameter {name} are 29 s old" in caplog.text
        await clock.advance(1)
        with pytest.raises(StorageUnavailableError):
            await lenient(REQUEST)
        oms_fault_proxy.clear()
        assert await strict(REQUEST) == await lenient(REQUEST) == ("AAPL",)


@pytest.mark.parametrize("fault", [Throttle(), LoseAnswer(), ServerError()])
async def test_calls_are_tried_again_and_then_given_up(
    behind: AwsConfig, put: PutSymbols, oms_fault_proxy: FaultProxy, fault: Any
) -> None:
    name = await put("AAPL")
    async with ParameterStoreSymbols(name, behind, cache_for=0, retry=RETRY) as symbols:
        oms_fault_proxy.script(fault, fault)
        assert await symbols(REQUEST) == ("AAPL",)
        oms_fault_proxy.always(fault)
        with pytest.raises(StorageUnavailableError):
            await symbols(REQUEST)
    assert len(oms_fault_proxy.calls) == 6


async def test_what_stays_wrong_is_told_at_once(
    behind: AwsConfig, put: PutSymbols, oms_fault_proxy: FaultProxy
) -> None:
    async with ParameterStoreSymbols("/nobody", behind, retry=RETRY) as symbols:
        with pytest.raises(StorageDeniedError, match="no such parameter: create it, or check its name"):
            await symbols(REQUEST)
        oms_fault_proxy.always(Denied())
        with pytest.raises(StorageDeniedError, match="allow ssm:GetParameter on the parameter"):
            await symbols(REQUEST)
        oms_fault_proxy.always(Denied(code="InvalidKeyId"))
        with pytest.raises(StorageDeniedError, match="allow kms:Decrypt on the parameter's key"):
            await symbols(REQUEST)
        oms_fault_proxy.always(Denied(code="ValidationException"))
        with pytest.raises(StorageRejectedError):
            await symbols(REQUEST)
    assert len(oms_fault_proxy.calls) == 4


async def test_it_opens_by_itself_and_after_it_was_closed_only_when_it_is_told_to(
    behind: AwsConfig, put: PutSymbols, oms_fault_proxy: FaultProxy
) -> None:
    symbols = ParameterStoreSymbols(await put("AAPL"), behind, cache_for=0)
    assert await symbols(REQUEST) == ("AAPL",)
    oms_fault_proxy.script(Delay(5))
    waiting = asyncio.create_task(symbols(REQUEST))
    await asyncio.sleep(0.05)
    for _ in range(2):
        await symbols.close()
        with pytest.raises(StorageUnavailableError, match="was closed"):
            await symbols(REQUEST)
    with pytest.raises(StorageUnavailableError, match="was closed"):
        await waiting
    await symbols.open()
    assert await symbols(REQUEST) == ("AAPL",)
    await symbols.close()


async def test_symbols_may_be_given() -> None:
    assert await StaticSymbols(["AAPL", "MSFT"])(REQUEST) == ("AAPL", "MSFT")
    with pytest.raises(ConfigurationError, match="give a list"):
        StaticSymbols("AAPL")
    with pytest.raises(ConfigurationError, match="give a name"):
        ParameterStoreSymbols("", AwsConfig())
