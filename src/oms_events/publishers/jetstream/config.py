"""What configures the JetStream publisher. Needs no NATS client installed."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, field_validator, model_validator

from oms_events._config import ConfigModel
from oms_events.publishers.jetstream.subjects import SubjectTemplate, subject_problem

_STREAM_NAME = re.compile(r"[^\s.*>/\\\x00-\x1f\x7f]{1,255}")
_SCHEME = re.compile(r"[a-z]+://")
_SCHEMES = ("nats", "tls", "ws", "wss")
_NEXT_URL = re.compile(r",(?=\s*(?:nats|tls|ws|wss)://)")


class ContentMode(StrEnum):
    """How a CloudEvent lies in a NATS message: attributes as headers, or all of it as one JSON document."""

    BINARY = "binary"
    STRUCTURED = "structured"


class StreamPolicy(StrEnum):
    """What opening the publisher does about the stream.

    `verify`: a stream must exist and cover the subjects. `create`: made when it is missing, must agree when
    it exists. `update`: made, or changed to agree; subjects are added and never taken away. `none`: nothing;
    the acknowledgement of each message is the only proof.
    """

    VERIFY = "verify"
    CREATE = "create"
    UPDATE = "update"
    NONE = "none"


class ConnectionState(StrEnum):
    """What happened to an own connection."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    RECONNECTED = "reconnected"
    CLOSED = "closed"


class Retention(StrEnum):
    """When the stream lets go of a message."""

    LIMITS = "limits"
    INTEREST = "interest"
    WORKQUEUE = "workqueue"


class Storage(StrEnum):
    """Where the stream keeps messages."""

    FILE = "file"
    MEMORY = "memory"


class Discard(StrEnum):
    """What a full stream does: drop its oldest message, or refuse the new one (a transient failure)."""

    OLD = "old"
    NEW = "new"


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


class StreamSpec(ConfigModel):
    """A stream as it should be. Fields that are not given are left to the server, or as they are.

    Times in seconds, sizes in bytes; None for a limit is no limit. JetStream's own default of
    `duplicate_window`, the time in which it drops a second copy of an event, is 120 s.
    """

    name: str
    subjects: Annotated[tuple[str, ...], Field(min_length=1)]
    description: str | None = None
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    max_age: PositiveFloat | None = None
    max_bytes: PositiveInt | None = None
    max_msgs: PositiveInt | None = None
    max_msgs_per_subject: PositiveInt | None = None
    max_msg_size: PositiveInt | None = None
    retention: Retention = Retention.LIMITS
    storage: Storage = Storage.FILE
    discard: Discard = Discard.OLD
    duplicate_window: PositiveFloat = 120.0
    allow_direct: bool = True
    allow_msg_ttl: bool = False
    allow_atomic: bool = False
    deny_delete: bool = False
    deny_purge: bool = False

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not _STREAM_NAME.fullmatch(name):
            problem = "a stream's name has 1 to 255 characters, no space, dot, '*', '>' or slash"
            raise ValueError(problem)
        return name

    @field_validator("subjects")
    @classmethod
    def _check_subjects(cls, subjects: tuple[str, ...]) -> tuple[str, ...]:
        return _checked(subjects)

    @model_validator(mode="after")
    def _check_window(self) -> StreamSpec:
        if (
            self.max_age is not None
            and "duplicate_window" in self.model_fields_set
            and self.duplicate_window > self.max_age
        ):
            problem = (
                f"duplicate_window = {self.duplicate_window} is longer than max_age = {self.max_age}; "
                "JetStream refuses that: shorten the window"
            )
            raise ValueError(problem)
        return self


class JetStreamOptions(ConfigModel):
    """How the JetStream publisher works.

    `subject` is the template of `SubjectTemplate`, `strip_prefix` what is cut off event types. `stream` is
    the name of a stream or its whole specification; `verify_subjects` are the subjects that a stream must
    cover when the publisher opens. `max_pending` messages at most are unacknowledged at any moment, over all
    concurrent calls. No ack within `ack_timeout` seconds is an unknown outcome: a cluster's change of leader
    takes 5 to 8 s, so at the default such a change shows as unknown, and the retry as a duplicate or a first
    copy. `request_timeout` bounds each call to the JetStream API. `fast_path` lets the publisher write joined
    frames to the client's transport where the client allows it; without, it publishes one by one.
    """

    subject: str = "{type}"
    strip_prefix: str = "com.foundry."
    max_subject_length: Annotated[int, Field(ge=16, le=2048)] = 512
    mode: ContentMode = ContentMode.BINARY
    stream: StreamSpec | str | None = None
    policy: StreamPolicy = StreamPolicy.VERIFY
    verify_subjects: tuple[str, ...] = ()
    api_prefix: str = "$JS.API"
    max_pending: Annotated[int, Field(ge=1, le=65_536)] = 2048
    ack_timeout: PositiveFloat = 5.0
    request_timeout: PositiveFloat = 2.0
    fast_path: bool = True

    @field_validator("verify_subjects")
    @classmethod
    def _check_subjects(cls, subjects: tuple[str, ...]) -> tuple[str, ...]:
        return _checked(subjects)

    @field_validator("api_prefix")
    @classmethod
    def _check_prefix(cls, prefix: str) -> str:
        return _checked((prefix,))[0]

    @model_validator(mode="after")
    def _check_combinations(self) -> JetStreamOptions:
        self.subject_template()
        if self.policy in (StreamPolicy.CREATE, StreamPolicy.UPDATE) and not isinstance(self.stream, StreamSpec):
            problem = f"policy = {self.policy} needs stream = StreamSpec(...), which says what to make"
            raise ValueError(problem)
        return self

    def subject_template(self) -> SubjectTemplate:
        """The compiled template."""
        return SubjectTemplate(self.subject, strip_prefix=self.strip_prefix, max_length=self.max_subject_length)

    @property
    def stream_name(self) -> str | None:
        """The name of the stream, where one is configured."""
        return self.stream.name if isinstance(self.stream, StreamSpec) else self.stream


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


def _checked(subjects: tuple[str, ...]) -> tuple[str, ...]:
    for subject in subjects:
        problem = subject_problem(subject)
        if problem:
            raise ValueError(problem)
    return subjects
