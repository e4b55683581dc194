"""A real NATS server with JetStream, on a free loopback port, with a store of its own."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oms_events.devstack.server import LOOPBACK, LocalServer
from oms_events.errors import ConfigurationError, MissingExtraError

_PROBE_TIMEOUT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsTls:
    """Files in PEM format; with `verify`, clients must show a certificate that `ca` has signed."""

    cert: Path
    key: Path
    ca: Path | None = None
    verify: bool = False


class NatsServer(LocalServer):
    """The real NATS server with JetStream; acked messages survive `kill` and `start`, not `close`.

    Credentials are never part of `url`: give them to the client as options. `config` is text for the top
    level of the server's configuration file, `jetstream_config` for its `jetstream` block (for example
    `sync_interval: always`); `max_payload` is in bytes, the server's default is 1 MB.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        tls: NatsTls | None = None,
        max_payload: int | None = None,
        config: str = "",
        jetstream_config: str = "",
        startup_timeout: float = 15.0,
    ) -> None:
        super().__init__(name="nats-server", port=port, startup_timeout=startup_timeout)
        if (user is None) != (password is None) or (user is not None and token is not None):
            raise ConfigurationError(
                "NatsServer", ["user and password go together, and without token: give one kind of login"]
            )
        self._user = user
        self._password = password
        self._token = token
        self._tls = tls
        self._max_payload = max_payload
        self._config = config
        self._jetstream_config = jetstream_config
        self._server_name = f"devstack-{secrets.token_hex(8)}"
        self._program = ""

    @property
    def url(self) -> str:
        """Where clients connect to, without credentials."""
        return f"{'tls' if self._tls else 'nats'}://{LOOPBACK}:{self.port}"

    def environment(self) -> dict[str, str]:
        """The settings that lead a program to this server."""
        return {"OMS_NATS_URL": self.url}

    async def _prepare(self) -> None:
        self._program = _find_program()

    def _command(self, port: int, folder: Path) -> Sequence[str]:
        file = folder / "nats.conf"
        file.touch(mode=0o600)
        file.write_text(self._config_text(port, folder), encoding="utf-8")
        return [self._program, "--config", str(file)]

    def _environment(self, port: int, folder: Path) -> Mapping[str, str]:
        return {"HOME": str(folder), "TMPDIR": str(folder), "PATH": os.defpath}

    async def _answers(self, port: int) -> bool:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                reader, writer = await asyncio.open_connection(LOOPBACK, port)
                try:
                    verb, _, info = (await reader.readline()).partition(b" ")
                finally:
                    writer.close()
                    await writer.wait_closed()
        except (OSError, TimeoutError):
            return False
        if verb != b"INFO":
            return False
        facts = json.loads(info)
        return facts.get("server_name") == self._server_name and facts.get("jetstream") is True

    def _config_text(self, port: int, folder: Path) -> str:
        lines = [
            f"server_name: {_quoted(self._server_name)}",
            f"listen: {_quoted(f'{LOOPBACK}:{port}')}",
            f"jetstream {{ store_dir: {_quoted(str(folder / 'store'))}\n{self._jetstream_config}\n}}",
        ]
        if self._max_payload is not None:
            lines.append(f"max_payload: {self._max_payload}")
        if self._user is not None and self._password is not None:
            lines.append(f"authorization {{ user: {_quoted(self._user)}, password: {_quoted(self._password)} }}")
        if self._token is not None:
            lines.append(f"authorization {{ token: {_quoted(self._token)} }}")
        if self._tls is not None:
            lines.append(_tls_text(self._tls))
        lines.append(self._config)
        return "\n".join(lines) + "\n"


def _tls_text(tls: NatsTls) -> str:
    files = {"cert_file": tls.cert, "key_file": tls.key, "ca_file": tls.ca}
    settings = [f"{key}: {_quoted(str(path.absolute()))}" for key, path in files.items() if path]
    return "tls {\n" + "\n".join([*settings, f"verify: {str(tls.verify).lower()}"]) + "\n}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _find_program() -> str:
    """The program of this Python environment, else the one on the PATH."""
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
    if found is None:
        raise MissingExtraError("devstack", needed_for="the program nats-server")
    return found
