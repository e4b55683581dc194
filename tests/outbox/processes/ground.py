"""What a test and its worker processes have in common: the tables, the stream, the folder with their journals."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from oms_events import (
    BreakerConfig,
    DestinationConfig,
    EventRouter,
    JetStreamOptions,
    NatsConfig,
    RetryConfig,
    RouterConfig,
    RoutingRule,
)
from oms_events.outbox.config import OutboxConfig, ProcessorConfig
from oms_events.publishers.jetstream import JetStreamPublisher
from tests.outbox.processes.recorder import Recorder

SOURCE: Final = "/processes"
TYPE: Final = "item.added"
TAKEN: Final = {"pk": "taken", "sk": "taken"}
"""The business item that is there from the beginning: what must not find it is refused."""
PLATFORMS: Final = ("nats", "recorder")
# A platform that refuses now and then, as the recorder does, shall not be taken for one that is down.
_PATIENT: Final = BreakerConfig(failure_threshold=1000, failure_rate=None)


@dataclass(frozen=True, slots=True)
class Ground:
    """Where everything is. `faults` is the share of events that the recorder fails or leaves without an answer."""

    aws: dict[str, Any]
    table: str
    items: str
    nats_url: str
    stream: str
    folder: str
    lease: float = 1.5
    heartbeat: float = 0.3
    lease_margin: float = 0.2
    buckets: int = 8
    faults: float = 0.0

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))

    @property
    def acceptances(self) -> Path:
        """The file in which the recorder has what it accepted, in order, of all processes."""
        return Path(self.folder, "acceptances")

    def journal(self, name: str) -> Journal:
        return Journal(Path(self.folder, f"{name}.journal"))

    def journals(self) -> Iterator[tuple[str, list[list[str]]]]:
        """The lines of each process's journal, as fields."""
        for path in sorted(Path(self.folder).glob("*.journal")):
            yield path.stem, [line.split("\t") for line in path.read_text().splitlines()]

    @property
    def outbox(self) -> OutboxConfig:
        return OutboxConfig(**{**self.aws, "table_name": self.table, "buckets": self.buckets})

    @property
    def processor(self) -> ProcessorConfig:
        return ProcessorConfig(
            lease=self.lease,
            heartbeat=self.heartbeat,
            lease_margin=self.lease_margin,
            poll_floor=0.1,
            poll_ceiling=0.5,
            sweep_interval=1.0,
            retry_initial=0.05,
            retry_maximum=0.5,
            publish_timeout=1.0,
            measure_interval=5.0,
            stop_timeout=10.0,
        )

    def router(self, *, seed: str) -> EventRouter:
        """A router that sends everything to the real JetStream, and to the recorder."""
        nats = JetStreamPublisher(
            NatsConfig(servers=(self.nats_url,), reconnect_wait=0.2),
            options=JetStreamOptions(stream=self.stream, subject=f"{self.stream}.{{type}}"),
        )
        rule = RoutingRule(event_type_pattern=".*", platforms=PLATFORMS, strategy="all", name="all")
        destination = DestinationConfig(retry=RetryConfig(max_attempts=1), breaker=_PATIENT)
        return EventRouter(
            {"nats": nats, "recorder": Recorder(self.acceptances, faults=self.faults, seed=seed)},
            [rule],
            config=RouterConfig(destination=destination),
        )


class Journal:
    """Lines that a process writes and that are there even if it is killed right afterwards."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, *fields: str) -> None:
        os.write(self._file, ("\t".join(fields) + "\n").encode())

    def close(self) -> None:
        os.close(self._file)
