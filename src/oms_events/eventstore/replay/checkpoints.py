"""How far a replay has come: the port of checkpoints, in a file or in memory."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from oms_events.errors import ReplayError
from oms_events.eventstore.replay.window import Position


class ReplayState(BaseModel):
    """What a checkpoint says: which replay it is of, and up to where each of its streams is settled.

    `store` is the name of the table, `table_id` its id where that was known (see `DynamoTable.identity`).
    `selection` is as it was asked for, `start` and `end` are what its times meant when the replay began.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    store: str
    table_id: str | None = None
    name: str
    selection: Mapping[str, Any]
    start: datetime | None
    end: datetime | None
    segments: int | None = None
    positions: Mapping[str, Position] = {}
    complete: bool = False


class ReplayCheckpoint(Protocol):
    """Where one replay keeps its state, so that it can be gone on with."""

    async def load(self) -> ReplayState | None:
        """What was saved last; None when nothing was. Raises `ReplayError` for what cannot be read."""
        ...

    async def save(self, state: ReplayState) -> None:
        """Keeps it in place of what was there, whole or not at all. Raises `ReplayError`."""
        ...


class MemoryReplayCheckpoint:
    """A checkpoint in this process."""

    def __init__(self) -> None:
        self.state: ReplayState | None = None

    async def load(self) -> ReplayState | None:
        return self.state

    async def save(self, state: ReplayState) -> None:
        self.state = state


class FileReplayCheckpoint:
    """A checkpoint in a file, which is replaced as a whole. One replay at a time may use it.

    What is written goes first to `.NAME.tmp` beside it, which a process that was killed may leave there; the next
    one takes its place.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._saves = 0
        self._written = 0

    @property
    def has_saved(self) -> bool:
        """Whether a save of this object worked."""
        return self._written > 0

    async def load(self) -> ReplayState | None:
        return await asyncio.to_thread(self._read)

    async def save(self, state: ReplayState) -> None:
        """As the port says. Cancelled, it may still be written."""
        self._saves += 1
        await asyncio.to_thread(self._write, state, self._saves)

    def _read(self) -> ReplayState | None:
        try:
            return ReplayState.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ReplayError(f"checkpoint {self.path} cannot be read: {error.strerror or error}") from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise ReplayError(
                f"checkpoint {self.path} is none of a replay ({where}: {first['msg']}); name another file, or "
                "remove this one to begin anew"
            ) from None

    def _write(self, state: ReplayState, number: int) -> None:
        with self._lock:
            # A save that was cancelled goes on in its thread, and may come after the next one.
            if number < self._written:
                return
            try:
                _replace(self.path, state.model_dump_json().encode())
            except OSError as error:
                raise ReplayError(
                    f"checkpoint {self.path} cannot be written: {error.strerror or error}; name another file"
                ) from error
            self._written = number


def _replace(path: Path, content: bytes) -> None:
    # One name for all: of those who were killed meanwhile no more than one file is left.
    new = path.with_name(f".{path.name}.tmp")
    new.unlink(missing_ok=True)
    # Made here and for its owner alone, so that what it leads to is nobody else's.
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
