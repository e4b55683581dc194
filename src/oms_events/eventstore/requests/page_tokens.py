"""Tokens of pages: where the next one begins, as text that its reader gives back unread. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final, TypeVar

import orjson

from oms_events.errors import RequestError
from oms_events.eventstore.requests.requests import RequestModel, read_request

Position = TypeVar("Position", bound=RequestModel)

INVALID_TOKEN: Final = "INVALID_TOKEN"  # noqa: S105 - a code
_MAX: Final = 8192
"""Characters of a token: the longest position, a time and an aggregate's id, is well below."""
_SEAL: Final = 6
"""Bytes."""


def write_token(query: Mapping[str, Any], position: RequestModel) -> str:
    """The token of a position in a query's answer; `query` is what the request said, but for the page."""
    body = orjson.dumps([_digest(query), position.model_dump(mode="json", by_alias=True)])
    return base64.urlsafe_b64encode(_seal(body) + body).decode().rstrip("=")


def read_token(token: str, query: Mapping[str, Any], position: type[Position]) -> Position:
    """The position in a token of the same query. Raises `RequestError` with the code INVALID_TOKEN.

    The seal is no secret: it shows what was cut off or mixed up. Who forges a token gets no further than with a
    query of their own.
    """
    try:
        if len(token) > _MAX:
            raise ValueError("too long")
        sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        body = sealed[_SEAL:]
        if sealed[:_SEAL] != _seal(body):
            raise ValueError("damaged")
        digest, values = orjson.loads(body)
        found = read_request(position, values)
    except (ValueError, TypeError, AttributeError):
        raise _refused("is no token of a query's answer, or a damaged one") from None
    if digest != _digest(query):
        raise _refused("belongs to another query; send it with the request that it is the answer of")
    if isinstance(found, list):
        raise _refused("is no token of a query's answer, or a damaged one")
    return found


def _seal(body: bytes) -> bytes:
    return blake2b(body, digest_size=_SEAL, person=b"page").digest()


def _digest(query: Mapping[str, Any]) -> str:
    return blake2b(orjson.dumps(query, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()


def _refused(why: str) -> RequestError:
    text = f"nextToken {why}; leave it out to begin with the first page"
    return RequestError(text, field="nextToken", code=INVALID_TOKEN)
