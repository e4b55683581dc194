"""What configures the JetStream publisher. Needs no NATS client installed."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from oms_events._config import ConfigModel
from oms_events._nats.subjects import subject_problem
from oms_events.publishers.jetstream.subjects import SubjectTemplate

_STREAM_NAME = re.compile(r"[^\s.*>/\\\x00-\x1f\x7f]{1,255}")


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


def _checked(subjects: tuple[str, ...]) -> tuple[str, ...]:
    for subject in subjects:
        problem = subject_problem(subject)
        if problem:
            raise ValueError(problem)
    return subjects
