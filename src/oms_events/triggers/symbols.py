"""Where the symbols of a start come from that names none."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from oms_events._aio import Clock, LoopBound, SystemClock, cancel_and_wait
from oms_events._aws.config import AwsConfig
from oms_events._aws.service import ServiceClient
from oms_events._aws.storage import PARAMETER_STORE
from oms_events.errors import ConfigurationError, StorageUnavailableError
from oms_events.resilience.backoff import RetryConfig
from oms_events.triggers.request import TriggerRequest

if TYPE_CHECKING:
    import aioboto3

_log = logging.getLogger("oms_events")

SymbolSource = Callable[[TriggerRequest], Awaitable[Sequence[str]]]
"""Gives the symbols of a start, which are checked afterwards; any async function of yours is one."""

_CONNECTIONS: Final = 2
_RETRY: Final = RetryConfig(max_attempts=4, initial=0.1, maximum=2.0)
_REMEDY: Final = "write a JSON list of texts, or texts with commas or line ends between them"


class StaticSymbols:
    """The same symbols for every start."""

    def __init__(self, symbols: Sequence[str]) -> None:
        if isinstance(symbols, str):
            raise ConfigurationError("StaticSymbols", [f"symbols = {symbols!r}: give a list of texts"])
        self._symbols = tuple(symbols)

    async def __call__(self, request: TriggerRequest) -> Sequence[str]:
        """The symbols."""
        return self._symbols


class _Loaded(NamedTuple):
    symbols: tuple[str, ...]
    at: float


class ParameterStoreSymbols:
    """The symbols in a parameter of AWS Systems Manager, the same for every start.

    The parameter's value is a JSON list, or symbols with commas or line ends between them; a `SecureString` is
    decrypted. It is read again `cache_for` seconds later; starts at the same time share one call. When it cannot
    be read, what was read before is used for `stale_for` seconds more: not at all, unless that is given. Needs
    `ssm:GetParameter`, and `kms:Decrypt` for a `SecureString` with a key of yours. Give a `session` (aioboto3) or
    a `client` (its `ssm` client) to use your own; neither is ever closed. Opens at the first start, or as
    `async with`.
    """

    def __init__(
        self,
        name: str,
        config: AwsConfig | None = None,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
        cache_for: float = 300.0,
        stale_for: float = 0.0,
        retry: RetryConfig = _RETRY,
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        if not name or cache_for < 0 or stale_for < 0:
            given = f"name = {name!r}, cache_for = {cache_for}, stale_for = {stale_for}"
            raise ConfigurationError("ParameterStoreSymbols", [f"{given}: give a name, and no less than 0"])
        self._name = name
        self._config = config or AwsConfig()
        self._session = session
        self._borrowed = client
        self._cache_for = cache_for
        self._stale_for = stale_for
        self._retry = retry
        self._clock = clock or SystemClock()
        self._draw = draw
        self._opening = LoopBound(asyncio.Lock)
        self._ssm: ServiceClient | None = None
        self._is_closed = False
        self._loaded: _Loaded | None = None
        self._loading: asyncio.Task[_Loaded] | None = None

    async def open(self) -> None:
        """Makes the client; idempotent, also after `close`. It does not look at the parameter.

        Raises `ConfigurationError` for a region, profile or file that is missing, `MissingExtraError` without
        aioboto3, and a `StorageError` when credentials cannot be had.
        """
        self._is_closed = False
        async with self._opening():
            if self._ssm is None:
                self._ssm = await PARAMETER_STORE.open(
                    self._config, connections=_CONNECTIONS, session=self._session, client=self._borrowed
                )

    async def close(self) -> None:
        """Closes what was opened here; idempotent. Starts that wait for symbols fail, and so do later ones."""
        self._is_closed = True
        loading, self._loading = self._loading, None
        await cancel_and_wait(loading)
        async with self._opening():
            ssm, self._ssm = self._ssm, None
            if ssm is not None:
                await ssm.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def __call__(self, request: TriggerRequest) -> Sequence[str]:
        """The symbols; none when the parameter is empty.

        Raises a `StorageError` when the parameter cannot be read, and `ConfigurationError` when it has no symbols'
        form.
        """
        known = self._loaded
        if known is not None and self._age(known) < self._cache_for:
            return known.symbols
        try:
            return (await self._load_once()).symbols
        except Exception as error:
            if known is None or self._age(known) >= self._cache_for + self._stale_for:
                raise
            _log.warning("symbols of parameter %s are %.0f s old: %r", self._name, self._age(known), error)
            return known.symbols

    def _age(self, loaded: _Loaded) -> float:
        return self._clock.monotonic() - loaded.at

    async def _load_once(self) -> _Loaded:
        """Loads, or waits for the one that does: a caller who goes does not take the others' answer along."""
        loading = self._loading
        if loading is None or loading.done():
            loading = self._loading = asyncio.create_task(self._load(), name=f"symbols {self._name}")
            loading.add_done_callback(_looked_at)
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            if loading.cancelled():
                raise StorageUnavailableError("the connection to the Parameter Store was closed") from None
            raise

    async def _load(self) -> _Loaded:
        at = self._clock.monotonic()
        self._loaded = loaded = _Loaded(read_symbols(await self._value(), name=self._name), at)
        return loaded

    async def _value(self) -> str:
        attempt = 0
        while True:
            attempt += 1
            if self._ssm is None and not self._is_closed:
                await self.open()
            if (ssm := self._ssm) is None:
                raise StorageUnavailableError("the connection to the Parameter Store was closed")
            try:
                answer = await ssm.call("GetParameter", {"Name": self._name, "WithDecryption": True})
            except StorageUnavailableError as error:
                if attempt >= self._retry.max_attempts or self._is_closed:
                    raise
                pause = max(self._retry.delay(attempt, self._draw), error.retry_after or 0.0)
                await self._clock.sleep(pause)
            else:
                return str(answer["Parameter"]["Value"])


def read_symbols(text: str, *, name: str) -> tuple[str, ...]:
    """The symbols in a parameter's text, each once, in order. Raises `ConfigurationError` that names it."""
    stripped = text.strip()
    if not stripped.startswith(("[", "{", '"')):
        found = [part.strip() for line in stripped.splitlines() for part in line.split(",")]
        return tuple(dict.fromkeys(part for part in found if part))
    try:
        listed = json.loads(stripped)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"parameter {name}", [f"it is no JSON: {error}; {_REMEDY}"]) from error
    if not isinstance(listed, list) or not all(isinstance(part, str) for part in listed):
        raise ConfigurationError(f"parameter {name}", [f"it is JSON, but no list of texts; {_REMEDY}"])
    return tuple(dict.fromkeys(part.strip() for part in listed if part.strip()))


def _looked_at(task: asyncio.Task[_Loaded]) -> None:
    # All who waited may have been cancelled; asyncio would complain of an error that nobody has seen.
    if not task.cancelled():
        task.exception()
