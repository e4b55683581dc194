"""How encrypted data looks in JSON, so that it can be read back without the model. Pure."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from oms_events.errors import PersonalDataError
from oms_events.events import build_event, encode

MARK: Final = "$personal"
"""The one member of an object that stands for encrypted data."""

_MARK_BYTES: Final = b'"$personal"'
_NESTED: Final = (dict, list)
_SUBJECT: Final = "s"
_VERSION: Final = "k"
_CONTENT: Final = "c"
_OTHERWISE: Final = "otherwise"

Replace = Callable[["Sealed"], Any]
_ReplaceInside = Callable[[dict[str, Any], tuple[str, ...]], Any]


class Sealed(NamedTuple):
    """Encrypted data: whose it is, under which version of their key, and what is read without the key."""

    subject: str
    version: int
    content: bytes
    otherwise: Any
    where: str = ""


def to_json(sealed: Sealed) -> dict[str, Any]:
    """As it stands in a document."""
    return {
        MARK: {
            _SUBJECT: sealed.subject,
            _VERSION: sealed.version,
            _CONTENT: b64encode(sealed.content).decode(),
            _OTHERWISE: sealed.otherwise,
        }
    }


def json_bytes(data: Any) -> bytes:
    """Data as JSON, as events are written. Raises `InvalidEventError`."""
    return encode(build_event("-", "-", data)).payload


def may_have_sealed(document: bytes) -> bool:
    """Whether it is worth to look into a JSON document."""
    return _MARK_BYTES in document


def sealed_in(document: Any) -> Iterator[Sealed]:
    """All that is encrypted in a JSON value. Raises `PersonalDataError` for what only looks like it."""
    found: list[Sealed] = []

    def note(sealed: Sealed) -> None:
        found.append(sealed)

    replaced(document, note)
    return iter(found)


def replaced(document: Any, replace: Replace) -> Any:
    """A JSON value with something else where it is encrypted; the same object when nothing is.

    Raises `PersonalDataError` for what only looks encrypted.
    """
    return _walked(document, lambda inside, path: replace(_sealed(inside, ".".join(path))))


def masked(document: Any, text: str = "[encrypted]") -> Any:
    """A JSON value to be shown where nobody has the keys: with `text` where it is encrypted, damaged or not."""
    return _walked(document, lambda inside, path: text)


def refuse_marks(data: Any) -> None:
    """Raises `PersonalDataError` for data that could be taken for encrypted data once it is stored.

    Somebody who can write data of their own could else have the data of others decrypted with it.
    """
    waiting = [data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if MARK in value:
                raise PersonalDataError(
                    f"a member named {MARK!r} is how encrypted data looks; give it another name"
                )
            waiting += [each for each in value.values() if isinstance(each, _NESTED)]
        elif isinstance(value, list):
            waiting += [each for each in value if isinstance(each, _NESTED)]


def _walked(document: Any, replace: _ReplaceInside) -> Any:
    try:
        return _replaced(document, replace, ())
    except RecursionError:
        raise PersonalDataError("the data has lists or objects in each other without end") from None


def _replaced(value: Any, replace: _ReplaceInside, path: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(inside := value.get(MARK), dict):
            return replace(inside, path)
        return _changed(value, value.items(), replace, path)
    if isinstance(value, list):
        return _changed(value, enumerate(value), replace, path)
    return value


def _changed(value: Any, items: Any, replace: _ReplaceInside, path: tuple[str, ...]) -> Any:
    changes = {}
    for name, before in items:
        if isinstance(before, dict | list):
            after = _replaced(before, replace, (*path, str(name)))
            if after is not before:
                changes[name] = after
    if not changes:
        return value
    if isinstance(value, dict):
        return {**value, **changes}
    return [changes.get(index, before) for index, before in enumerate(value)]


def _sealed(inside: dict[str, Any], where: str) -> Sealed:
    try:
        subject, version, content = inside[_SUBJECT], inside[_VERSION], b64decode(inside[_CONTENT], validate=True)
        if isinstance(subject, str) and isinstance(version, int) and version > 0:
            return Sealed(subject, version, content, inside[_OTHERWISE], where)
    except (KeyError, TypeError, ValueError):
        pass
    raise PersonalDataError(
        f"{where or 'data'}: the encrypted data is damaged, or of a newer version of this code"
    )
