"""Requests to the JetStream API."""

from __future__ import annotations

from typing import Any, Final

import orjson

from oms_events._nats.client import Client, errors
from oms_events._nats.refusals import error_of
from oms_events.errors import PlatformDeniedError, TransientError

STREAM_NOT_FOUND: Final = 10059


class ApiRefusedError(Exception):
    """The API answered with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error.get("description", ""))
        self.error = error
        self.number = int(error.get("err_code", 0))


class ApiForbiddenError(Exception):
    """We may not ask this."""


class JetStreamApi:
    """Requests to the JetStream API through a connected client."""

    def __init__(self, client: Client, *, prefix: str, timeout: float) -> None:
        self._client = client
        self._prefix = prefix
        self._timeout = timeout

    async def request(self, operation: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Raises `ApiRefusedError`, `ApiForbiddenError` or a `PublishError`."""
        subject = f"{self._prefix}.{operation}"
        # A client that is not connected would buffer the request.
        if not self._client.is_connected:
            raise TransientError("the NATS client is not connected", code="not_connected")
        try:
            reply = await self._client.request(
                subject, orjson.dumps(body) if body is not None else b"", timeout=self._timeout
            )
            answer: dict[str, Any] = orjson.loads(reply.data)
        except errors.NoRespondersError as error:
            raise PlatformDeniedError(
                "JetStream does not answer on this server or account; enable it, or check api_prefix = "
                f"{self._prefix!r}"
            ) from error
        except errors.TimeoutError as error:
            # The server tells of a missing permission beside the connection, and never answers.
            if denied_subject(self._client.last_error) == subject.lower():
                raise ApiForbiddenError(subject) from error
            raise TransientError(f"JetStream did not answer {operation} within {self._timeout} s") from error
        except (errors.Error, OSError, ValueError) as error:
            raise TransientError(f"JetStream could not be asked for {operation}: {error}") from error
        if "error" in answer:
            raise ApiRefusedError(answer["error"])
        return answer

    async def stream(self, name: str) -> dict[str, Any] | None:
        """What the server knows of a stream; None when there is none."""
        try:
            return await self.request(f"STREAM.INFO.{name}")
        except ApiRefusedError as refused:
            if refused.number == STREAM_NOT_FOUND:
                return None
            raise error_of(refused.error, f"stream {name!r} cannot be looked up") from refused

    async def streams(self, subject: str) -> list[dict[str, Any]]:
        """The streams that a subject overlaps."""
        try:
            answer = await self.request("STREAM.LIST", {"subject": subject})
        except ApiRefusedError as refused:
            raise error_of(refused.error, "streams cannot be listed") from refused
        return answer.get("streams") or []


def denied_subject(error: Exception | None) -> str | None:
    """The subject, in lower case, that a permissions violation of the server names; the client lowers it."""
    text = str(error).lower() if error is not None else ""
    _, found, rest = text.partition('permissions violation for publish to "')
    return rest.partition('"')[0] if found else None
