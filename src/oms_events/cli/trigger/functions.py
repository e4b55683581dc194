"""Calls of a deployed function."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from oms_events._aws.config import AwsConfig
from oms_events._aws.control import open_control
from oms_events.triggers.settings import TriggerSettings


class Answer(NamedTuple):
    """What a start was answered with, as JSON; `failed` when the function itself failed."""

    document: Mapping[str, Any]
    failed: bool = False


async def invoke(
    settings: TriggerSettings, function: str, payload: Any, *, is_async: bool, timeout: float
) -> Answer:
    """Calls a function with a payload; asynchronously it is only taken.

    Lost answers are asked for again, so that the function may run twice: the same correlation id lets its pipeline
    answer the second as a duplicate. Raises `ProvisioningError`, among them `AccessError`.
    """
    config = AwsConfig(**{**settings.aws("lambda"), "read_timeout": timeout})
    async with open_control(config, "lambda") as client:
        answer = await client.call(
            "Invoke",
            FunctionName=function,
            InvocationType="Event" if is_async else "RequestResponse",
            Payload=json.dumps(payload).encode(),
        )
        text = await answer["Payload"].read() if "Payload" in answer else b""
    if is_async:
        return Answer({"statusCode": answer["StatusCode"], "status": "accepted"})
    return read_answer(text, error=answer.get("FunctionError"))


def read_answer(text: bytes, *, error: str | None = None) -> Answer:
    """What a function answered, of ours or not: its document, and what is in its `body`."""
    said = _parsed(text)
    if error:
        return Answer({"function_error": error, **_fields(said)}, failed=True)
    body = _parsed(said["body"]) if isinstance(said, Mapping) and isinstance(said.get("body"), str) else None
    if isinstance(body, Mapping):
        return Answer({"statusCode": said.get("statusCode"), **body})
    return Answer(_fields(said))


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.decode(errors="replace") if isinstance(text, bytes) else text


def _fields(said: Any) -> Mapping[str, Any]:
    return said if isinstance(said, Mapping) else {"answer": said}
