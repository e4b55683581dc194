"""What configures a connection to NATS. Needs no NATS client installed."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import PositiveFloat, SecretStr, field_validator, model_validator

from oms_events._config import ConfigModel

_SCHEME = re.compile(r"[a-z]+://")
_SCHEMES = ("nats", "tls", "ws", "wss")
_NEXT_URL = re.compile(r",(?=\s*(?:nats|tls|ws|wss)://)")


class ConnectionState(StrEnum):
    """What happened to an own connection."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    RECONNECTED = "reconnected"
    CLOSED = "closed"


class NatsConfig(ConfigModel):
    """An own connection to NATS, which reconnects for ever and keeps no buffer of unsent messages.

    User, password and token written into the URLs are moved to their fields, so that no URL holds a secret.
    `tls` demands encryption even where the server does not; any TLS file implies it. Times are in seconds;
    `reconnect_wait` is spread by half to both sides, so that a fleet does not come back at one moment.
    """

    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    name: str = "oms-events"
    credentials_file: Path | None = None
    nkey_seed: SecretStr | None = None
    user: str | None = None
    password: SecretStr | None = None
    token: SecretStr | None = None
    tls: bool = False
    tls_handshake_first: bool = False
    tls_hostname: str | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    connect_timeout: PositiveFloat = 2.0
    reconnect_wait: PositiveFloat = 1.0
    ping_interval: PositiveFloat = 20.0

    @model_validator(mode="before")
    @classmethod
    def _move_secrets_out_of_urls(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        servers = values.get("servers")
        if isinstance(servers, str):
            servers = _split(servers)
        if not isinstance(servers, list | tuple):
            return values
        plain: list[Any] = []
        found: set[tuple[str, str | None]] = set()
        for server in servers:
            if isinstance(server, str) and "@" in server:
                # A password may hold "://" and "@": the scheme ends at the first, the login at the last.
                match = _SCHEME.match(server)
                scheme = match.group() if match else ""
                userinfo, _, address = server[len(scheme) :].rpartition("@")
                login, colon, secret = userinfo.partition(":")
                found.add((unquote(login), unquote(secret) if colon else None))
                server = f"{scheme}{address}"
            plain.append(server)
        values = {**values, "servers": tuple(plain)}
        if len(found) > 1:
            problem = "the servers' URLs name different users; use one user for all"
            raise ValueError(problem)
        for user, password in found:
            given = {"token": user} if password is None else {"user": user, "password": password}
            values = {**given, **{name: value for name, value in values.items() if value is not None}}
        return values

    @field_validator("servers")
    @classmethod
    def _check_servers(cls, servers: tuple[str, ...]) -> tuple[str, ...]:
        if not servers:
            problem = "no server; name at least one, like nats://127.0.0.1:4222"
            raise ValueError(problem)
        for server in servers:
            try:
                url = urlsplit(server if "://" in server else f"nats://{server}")
                url.port  # noqa: B018 - looks whether it is one
            except ValueError:
                # What stands in the place of a port may be the beginning of a password, and is not shown.
                problem = "a server's port is no number; write it like nats://host:4222"
                raise ValueError(problem) from None
            if url.scheme not in _SCHEMES or not url.hostname:
                problem = f"{server!r} is no NATS URL; write it like nats://host:4222 or tls://host:4222"
                raise ValueError(problem)
        return tuple(server if "://" in server else f"nats://{server}" for server in servers)

    @model_validator(mode="after")
    def _check_combinations(self) -> NatsConfig:
        ways = {
            "credentials_file": self.credentials_file,
            "nkey_seed": self.nkey_seed,
            "user": self.user,
            "token": self.token,
        }
        given = [name for name, value in ways.items() if value is not None]
        if len(given) > 1:
            problem = f"{' and '.join(given)} are different ways to log in; keep one"
            raise ValueError(problem)
        if (self.user is None) != (self.password is None):
            problem = "user and password go together; give both or none"
            raise ValueError(problem)
        if (self.cert_file is None) != (self.key_file is None):
            problem = "cert_file and key_file go together; give both or none"
            raise ValueError(problem)
        return self

    @property
    def wants_tls(self) -> bool:
        """Whether an unencrypted connection would be wrong."""
        return (
            self.tls
            or self.tls_handshake_first
            or any(server.startswith(("tls://", "wss://")) for server in self.servers)
            or any(path is not None for path in (self.ca_file, self.cert_file))
        )


def _split(servers: str) -> list[str]:
    parts: list[str] = []
    for url in _NEXT_URL.split(servers):
        login, at, addresses = url.rpartition("@")
        if "," in login:
            problem = (
                "a comma stands before an '@': write a comma in a password as %2C, and begin each server with "
                "its scheme, like nats://host:4222"
            )
            raise ValueError(problem)
        parts += f"{login}{at}{addresses}".split(",")
    return [part.strip() for part in parts if part.strip()]
