"""An AWS emulator on a free loopback port: EventBridge, SQS, DynamoDB and the rest, without an account."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from oms_events.devstack.environments import default_cache_folder, ensure_environment, log_notice
from oms_events.devstack.processes import DevstackError
from oms_events.devstack.server import LOOPBACK, LocalServer

_PACKAGE = "ministack"
_VERSION = "1.5.33"
_PROBE_TIMEOUT = 2.0
_RESET_TIMEOUT = 30.0


class AwsEmulator(LocalServer):
    """The AWS emulator `ministack`, in an environment of its own that is made at the first use.

    It forgets everything at `reset`, `stop` and `kill`, checks no signatures, and never fails by itself: put
    a FaultProxy in front of it for that. `notify` gets one line before and one after the environment is made
    (default: a log record); `settings` are more environment variables for it, such as `{"AUTH": "true"}`.
    """

    access_key = "test"
    secret_key = "test"  # noqa: S105 - the emulator takes any

    def __init__(
        self,
        *,
        port: int | None = None,
        region: str = "us-east-1",
        settings: Mapping[str, str] | None = None,
        notify: Callable[[str], None] = log_notice,
        cache_folder: Path | None = None,
        startup_timeout: float = 30.0,
    ) -> None:
        super().__init__(name=_PACKAGE, port=port, startup_timeout=startup_timeout)
        self.region = region
        self._settings = dict(settings or {})
        self._notify = notify
        self._cache_folder = cache_folder
        self._python = ""
        self._identity = secrets.token_hex(8)

    @property
    def endpoint_url(self) -> str:
        """What AWS clients take as `endpoint_url`."""
        return f"http://{LOOPBACK}:{self.port}"

    def environment(self) -> dict[str, str]:
        """The settings that lead AWS clients to this emulator."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    async def reset(self) -> None:
        """Removes every resource of every service."""
        self._live()
        try:
            status, _ = await asyncio.to_thread(
                _call, "POST", self.port, "/_ministack/reset", timeout=_RESET_TIMEOUT
            )
        except (OSError, http.client.HTTPException) as error:
            raise DevstackError(f"{_PACKAGE} did not answer the reset: {error!r}") from error
        if status != http.HTTPStatus.OK:
            raise DevstackError(f"{_PACKAGE} answered the reset with status {status}")

    async def _prepare(self) -> None:
        python = await ensure_environment(
            _PACKAGE,
            _VERSION,
            cache_folder=self._cache_folder or default_cache_folder(),
            notify=self._notify,
        )
        self._python = str(python)

    def _command(self, port: int, folder: Path) -> Sequence[str]:
        return [self._python, "-s", "-m", _PACKAGE]

    def _environment(self, port: int, folder: Path) -> Mapping[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C.UTF-8",
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "STATE_DIR": str(folder / "state"),
            "S3_DATA_DIR": str(folder / "s3"),
            "LOG_LEVEL": "WARNING",
            "MINISTACK_REGION": self.region,
            # Both would listen on fixed ports, and the second at every start.
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
            **self._settings,
            # It would bind to every interface.
            "BIND_HOST": LOOPBACK,
            "GATEWAY_PORT": str(port),
            # The one free text that its health answer repeats: so we know that the one who answers is ours.
            "MINISTACK_EDITION": self._identity,
        }

    async def _answers(self, port: int) -> bool:
        try:
            status, body = await asyncio.to_thread(
                _call, "GET", port, "/_ministack/health", timeout=_PROBE_TIMEOUT
            )
            return status == http.HTTPStatus.OK and json.loads(body).get("edition") == self._identity
        except (OSError, http.client.HTTPException, ValueError):
            return False


def _call(method: str, port: int, path: str, *, timeout: float) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
