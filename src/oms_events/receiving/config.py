"""What configures a receiver. Needs no NATS client installed."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    StrictBool,
    StringConstraints,
    field_validator,
    model_validator,
)

from oms_events._config import ConfigModel
from oms_events._nats.subjects import subject_problem

_Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\s.*>/\\\x00-\x1f\x7f]+$")]


class ReceiverConfig(ConfigModel):
    """A durable pull consumer, and how a receiver takes messages from it. Times are in seconds."""

    stream: _Name
    """The stream's name; it must exist."""
    durable: _Name
    """The consumer's name: receivers with the same one share its messages, and go on where it was."""
    subjects: tuple[str, ...] = ()
    """The subjects to receive, with wildcards; all of the stream's when empty."""
    manage: StrictBool = True
    """Whether opening makes the consumer, from the stream's first message on, or changes it to agree.

    When it is deleted meanwhile, it is made anew. Without, it must be there, and its settings count.
    """
    batch: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Events that the handler gets at once, at most; up to as many more wait in memory."""
    max_ack_pending: PositiveInt = 1000
    """Unacknowledged messages at most: over all receivers, and with those that wait for a retry."""
    ack_wait: Annotated[float, Field(ge=0.1, le=86_400)] = 30.0
    """After so long without a sign of life from its receiver a message goes to another; receivers give them."""
    retry_initial: PositiveFloat = 1.0
    """How long a failed message waits before it comes again; twice as long after each further failure."""
    retry_maximum: PositiveFloat = 60.0
    """It never waits longer than that."""
    max_deliveries: PositiveInt | None = None
    """A message that fails at this delivery is dropped, and said to be; without, it comes until it is handled.

    JetStream's own `max_deliver` gives messages up without a word: opening switches it off, where it may manage.
    """
    heartbeat: Annotated[float, Field(ge=0.05, le=15)] = 2.0
    """The server's signs of life; after more than two without one the receiver asks anew."""
    stop_timeout: Annotated[float, Field(ge=0, le=3600)] = 10.0
    """How long closing waits for the handler before it cancels it."""
    api_prefix: str = "$JS.API"
    """What the subjects of JetStream's API begin with; another one for a JetStream domain."""
    request_timeout: PositiveFloat = 2.0
    """How long an answer of JetStream's API may take."""

    @field_validator("subjects")
    @classmethod
    def _check_subjects(cls, subjects: tuple[str, ...]) -> tuple[str, ...]:
        for subject in subjects:
            if (problem := subject_problem(subject)) is not None:
                raise ValueError(problem)
        return subjects

    @field_validator("api_prefix")
    @classmethod
    def _check_prefix(cls, prefix: str) -> str:
        if (problem := subject_problem(prefix)) is not None:
            raise ValueError(problem)
        return prefix

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_ack_pending < self.batch:
            raise ValueError(
                f"max_ack_pending = {self.max_ack_pending} is less than batch = {self.batch}, which would never "
                "be full: raise it, or lower batch"
            )
        if self.retry_maximum < self.retry_initial:
            raise ValueError(
                f"retry_maximum = {self.retry_maximum} is less than retry_initial = {self.retry_initial}; raise it"
            )
        return self
