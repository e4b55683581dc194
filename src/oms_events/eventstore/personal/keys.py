"""The keys of people: a port, and one implementation in memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple, Protocol

from pydantic import SecretBytes

from oms_events.errors import PersonalDataError

KEY_BYTES: Final = 32
"""Of AES-256."""

MAX_SUBJECT_BYTES: Final = 2048
"""Of a subject in UTF-8: a hash key takes no more."""

RandomBytes = Callable[[int], bytes]


class SubjectKey(NamedTuple):
    """A person's key. Versions count from 1; without `secret` the person was forgotten, 0 before the first key."""

    version: int
    secret: SecretBytes | None

    @property
    def is_deleted(self) -> bool:
        """Whether the person was forgotten."""
        return self.secret is None


class SubjectKeys(Protocol):
    """Where the keys of people are kept. Safe to call concurrently, from several processes.

    All methods may raise a `StorageError`; they may be called again after one. Cancelled, a change may or may
    not have been made.
    """

    async def get(self, subjects: Collection[str]) -> Mapping[str, SubjectKey]:
        """The keys of those who have one or had one, strongly consistent; the others are left out."""
        ...

    async def get_or_create(self, subject: str) -> SubjectKey:
        """The person's key; a new one for somebody who never had one. All who ask get the same.

        Of somebody who was forgotten it gives the mark of that, and no new key.
        """
        ...

    async def renew(self, subject: str) -> SubjectKey:
        """As `get_or_create`, and a new key, of the next version, for somebody who was forgotten."""
        ...

    async def delete(self, subject: str) -> None:
        """Deletes the key and leaves a mark, also for somebody who never had one. Twice is as once."""
        ...


class KeyWrapper(Protocol):
    """Encrypts people's keys before they are stored, as KMS does. Safe to call concurrently.

    Both methods raise a `StorageError`, and `PersonalDataError` for what cannot be unwrapped.
    """

    async def wrap(self, key: bytes, *, subject: str) -> bytes:
        """The key, so that only `unwrap` with the same subject reads it."""
        ...

    async def unwrap(self, wrapped: bytes, *, subject: str) -> bytes: ...


class MemorySubjectKeys:
    """Keys in one process, for tests: with it all personal data ends."""

    def __init__(self, *, random_bytes: RandomBytes = os.urandom) -> None:
        self._random_bytes = random_bytes
        self._keys: dict[str, SubjectKey] = {}

    async def get(self, subjects: Collection[str]) -> Mapping[str, SubjectKey]:
        await asyncio.sleep(0)
        return {subject: self._keys[subject] for subject in subjects if subject in self._keys}

    async def get_or_create(self, subject: str) -> SubjectKey:
        check_subject(subject)
        await asyncio.sleep(0)
        if subject not in self._keys:
            self._keys[subject] = self._new(1)
        return self._keys[subject]

    async def renew(self, subject: str) -> SubjectKey:
        key = await self.get_or_create(subject)
        if key.is_deleted:
            key = self._keys[subject] = self._new(key.version + 1)
        return key

    async def delete(self, subject: str) -> None:
        check_subject(subject)
        await asyncio.sleep(0)
        known = self._keys.get(subject)
        self._keys[subject] = SubjectKey(known.version if known else 0, None)

    def _new(self, version: int) -> SubjectKey:
        return SubjectKey(version, SecretBytes(self._random_bytes(KEY_BYTES)))


def check_subject(subject: object) -> None:
    """Raises `PersonalDataError` for what no key can be stored under."""
    if not isinstance(subject, str) or not subject:
        raise PersonalDataError(f"subject = {subject!r}: give the id of a person, as text")
    try:
        size = len(subject.encode())
    except UnicodeEncodeError:
        raise PersonalDataError("the subject has a lone surrogate, which UTF-8 lacks") from None
    if size > MAX_SUBJECT_BYTES:
        text = f"the subject has {size} bytes of UTF-8; at most {MAX_SUBJECT_BYTES} fit in a key"
        raise PersonalDataError(text, subject=subject)
