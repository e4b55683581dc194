"""Personal data, encrypted field by field under a key per person: deleting the key forgets the person."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import BaseModel, ValidationError

from oms_events._aio import Clock, SystemClock
from oms_events.errors import ConfigurationError, MissingExtraError, PersonalDataError, PersonForgottenError
from oms_events.events import load_json
from oms_events.eventstore.personal.cache import KeyCache
from oms_events.eventstore.personal.cipher import IfForgotten
from oms_events.eventstore.personal.keys import KEY_BYTES, RandomBytes, SubjectKey, SubjectKeys, check_subject
from oms_events.eventstore.personal.sealed import (
    Sealed,
    json_bytes,
    may_have_sealed,
    refuse_marks,
    replaced,
    sealed_in,
    to_json,
)
from oms_events.eventstore.personal.walk import Found, rewritten

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE: Final = 12
"""Bytes: the 96 bits for which GCM is made (NIST SP 800-38D, 8.2)."""
_BLOCK: Final = 32
"""To multiples of so many bytes what is encrypted is filled up: its length shall not tell yes from no."""


class _Lock(NamedTuple):
    """A person's key, ready for use; without `aead` the person was forgotten."""

    version: int
    aead: AESGCM | None


class PersonalDataCipher:
    """Encrypts fields that are marked `Personal`, with AES-256-GCM under a key for each person.

    Once `forget` has deleted a key, all that was encrypted under it, wherever it was copied to, is read as the
    replacement that its mark names. Keys are kept in this process for `key_ttl` seconds, at most `max_keys` of
    them: so long other processes go on reading after `forget`, and what they still write of that person is lost
    at once. It encrypts on the event loop: a field takes some microseconds, 100 KB a tenth of a millisecond.

    Raises `MissingExtraError` without the extra `crypto`, and `ConfigurationError`.
    """

    def __init__(
        self,
        keys: SubjectKeys,
        *,
        key_ttl: float = 60.0,
        max_keys: int = 10_000,
        clock: Clock | None = None,
        random_bytes: RandomBytes = os.urandom,
    ) -> None:
        problems = []
        if not (math.isfinite(key_ttl) and key_ttl >= 0):
            problems.append(f"key_ttl = {key_ttl}: give seconds, 0 to keep no keys")
        if max_keys < 1:
            problems.append(f"max_keys = {max_keys}: must be at least 1")
        if problems:
            raise ConfigurationError(type(self).__name__, problems)
        self._aead = _load_aead()
        self._keys = keys
        self._random_bytes = random_bytes
        self._cache: KeyCache[_Lock] = KeyCache(
            ttl=key_ttl, size=max_keys, monotonic=(clock or SystemClock()).monotonic
        )

    # ------------------------------------------------------------------ fields

    async def protect(
        self, model: BaseModel, data: dict[str, Any], *, subject: str, if_forgotten: IfForgotten = "refuse"
    ) -> dict[str, Any]:
        """The model's data with its personal fields encrypted; see `FieldCipher.protect`.

        Raises `PersonForgottenError` for new data of a forgotten person, `PersonalDataError` for data that could
        not be read any more after forgetting, and for data that looks like encrypted data; `ConfigurationError`
        for marks in error.
        """
        refuse_marks(data)
        subjects: set[str] = set()

        def note(found: Found) -> Any:
            subjects.add(found.subject(subject))
            return found.otherwise

        later = rewritten(model, data, note)
        if not subjects:
            return data
        _check_readable(model, data, later)
        locks = await self._locks_to_write(subjects)
        may_replace = if_forgotten == "replace"
        return rewritten(
            model, data, lambda found: self._sealed(found, found.subject(subject), locks, may_replace=may_replace)
        )

    async def reveal(self, payloads: Sequence[bytes]) -> Sequence[bytes]:
        """JSON documents in clear text; see `FieldCipher.reveal`. Asks for all the keys that it lacks together.

        Raises `PersonalDataError`, with the `index` of the document, for encrypted data that was changed or moved,
        and for a person whose key is not there although nobody deleted it: these may be the wrong keys.
        """
        documents = {
            index: _located(index, _parsed, text) for index, text in enumerate(payloads) if may_have_sealed(text)
        }
        if not documents:
            return payloads
        versions: dict[str, int] = {}
        first: dict[str | None, int] = {}
        for index, document in documents.items():
            for sealed in _located(index, sealed_in, document):
                first.setdefault(sealed.subject, index)
                versions[sealed.subject] = max(sealed.version, versions.get(sealed.subject, 0))
        try:
            locks = await self._locks_to_read(versions)
        except PersonalDataError as error:
            error.index = first.get(error.subject)
            raise
        revealed = list(payloads)
        for index, document in documents.items():
            clear = _located(index, replaced, document, lambda sealed: self._clear(sealed, locks))
            if clear is not document:
                revealed[index] = json_bytes(clear)
        return revealed

    # ------------------------------------------------------------------ people

    async def forget(self, subject: str) -> None:
        """Deletes a person's key, for good. Doing it again is harmless; new data of the person is refused.

        Here it takes effect at once, in other processes within their `key_ttl`. Raises a `StorageError`: then, and
        cancelled, the key may or may not be deleted: do it again.
        """
        check_subject(subject)
        try:
            await self._keys.delete(subject)
        finally:
            self._cache.evict(subject)

    async def allow_again(self, subject: str) -> None:
        """Gives a forgotten person who comes back a new key; what was forgotten stays so.

        Not sooner than `key_ttl` after `forget`: processes that have not heard of it yet still write with the old
        key. Raises a `StorageError`; doing it again is harmless.
        """
        check_subject(subject)
        try:
            await self._keys.renew(subject)
        finally:
            self._cache.evict(subject)

    # ------------------------------------------------------------------ keys

    async def _locks_to_write(self, subjects: Iterable[str]) -> Mapping[str, _Lock]:
        locks = {}
        for subject in subjects:
            lock = self._cache.get(subject)
            if lock is None or lock.aead is None:
                check_subject(subject)
                with self._cache.filling() as put:
                    lock = self._lock(subject, await self._keys.get_or_create(subject))
                    put(subject, lock)
            locks[subject] = lock
        return locks

    async def _locks_to_read(self, versions: Mapping[str, int]) -> Mapping[str, _Lock]:
        """The keys of people who have data of these versions, and perhaps older ones."""
        known = {subject: self._cache.get(subject) for subject in versions}
        # An older key than the data's: somebody came back since.
        locks = {name: lock for name, lock in known.items() if lock is not None and lock.version >= versions[name]}
        if missing := [subject for subject in versions if subject not in locks]:
            with self._cache.filling() as put:
                for subject, key in (await self._keys.get(missing)).items():
                    locks[subject] = self._lock(subject, key)
                    put(subject, locks[subject])
        return locks

    def _lock(self, subject: str, key: SubjectKey) -> _Lock:
        if key.secret is None:
            return _Lock(key.version, None)
        secret = key.secret.get_secret_value()
        if len(secret) != KEY_BYTES:
            text = (
                f"the key of subject {subject!r} has {len(secret)} bytes instead of {KEY_BYTES}; was it stored "
                "with another wrapper, or without one?"
            )
            raise PersonalDataError(text, subject=subject)
        return _Lock(key.version, self._aead(secret))

    def _sealed(self, found: Found, subject: str, locks: Mapping[str, _Lock], *, may_replace: bool) -> Any:
        lock = locks[subject]
        if lock.aead is None:
            if may_replace or found.value == found.otherwise:
                # Equal: read after the person was forgotten, and now written again.
                return found.otherwise
            text = (
                f"{found.where}: the person {subject!r} was forgotten, and no new data is taken of them; "
                "`allow_again` permits it"
            )
            raise PersonForgottenError(text, subject=subject)
        nonce, clear = self._random_bytes(_NONCE), json_bytes(found.value)
        clear += b" " * (-len(clear) % _BLOCK)
        content = nonce + lock.aead.encrypt(nonce, clear, _bound(subject, lock.version))
        return to_json(Sealed(subject, lock.version, content, found.otherwise))

    def _clear(self, sealed: Sealed, locks: Mapping[str, _Lock]) -> Any:
        lock = locks.get(sealed.subject)
        where = f"{sealed.where or 'data'} of subject {sealed.subject!r}"
        if lock is None or (lock.aead is not None and lock.version < sealed.version):
            text = (
                f"{where}: its key is not there, and it was not deleted either; are these the keys of another "
                "system, or of an older backup? If the person is to be forgotten, say so with `forget`"
            )
            raise PersonalDataError(text, subject=sealed.subject)
        if lock.aead is None or lock.version > sealed.version:
            return sealed.otherwise
        nonce, content = sealed.content[:_NONCE], sealed.content[_NONCE:]
        try:
            return load_json(lock.aead.decrypt(nonce, content, _bound(sealed.subject, sealed.version)))
        except Exception:
            # Nothing of the cause: it may hold what was encrypted.
            text = f"{where}: the encrypted data was changed, or moved here from elsewhere"
            raise PersonalDataError(text, subject=sealed.subject) from None


def _load_aead() -> type[AESGCM]:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ModuleNotFoundError as error:
        raise MissingExtraError("crypto", needed_for="personal data") from error
    return AESGCM


def _bound(subject: str, version: int) -> bytes:
    """What is encrypted of one person cannot be passed off as another's.

    Neither event nor field is in it: upcasters, snapshots and what platforms make of an event move fields.
    """
    return f"oms-events personal data 1\n{version}\n{subject}".encode()


def _check_readable(model: BaseModel, data: dict[str, Any], later: dict[str, Any]) -> None:
    """Raises `PersonalDataError` for what would be unreadable once its people are forgotten."""
    why = _misfit(model, later)
    if why is not None and _misfit(model, data) is None:
        text = (
            f"{type(model).__name__} could not be read any more once the person is forgotten: {why}; give the "
            "field another `Personal(forgotten=...)`"
        )
        raise PersonalDataError(text)


def _misfit(model: BaseModel, data: dict[str, Any]) -> str | None:
    try:
        type(model).model_validate_json(json_bytes(data))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'data'}: {first['msg']}"
    except Exception as error:
        return f"its validation failed with {type(error).__name__}"
    return None


def _located(index: int, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except PersonalDataError as error:
        error.index = index
        raise


def _parsed(payload: bytes) -> Any:
    try:
        return load_json(payload)
    except ValueError as error:
        raise PersonalDataError(f"the data is no JSON: {error}") from None
