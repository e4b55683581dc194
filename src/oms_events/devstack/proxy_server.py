"""The HTTP side of the fault proxy; the only file of the devstack that needs aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import struct
import urllib.parse
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from xml.sax.saxutils import escape

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web
from multidict import CIMultiDict
from yarl import URL

from oms_events.devstack.faults import (
    PARTLY,
    SEND_MESSAGES,
    Call,
    Delay,
    Denied,
    Fault,
    FaultPlan,
    Hang,
    LoseAnswer,
    PartialFailure,
    Reset,
    ServerError,
    Throttle,
)
from oms_events.devstack.server import LOOPBACK

_SHUTDOWN_TIMEOUT = 1.0
_NO_LINGER = struct.pack("ii", 1, 0)
_HOP_BY_HOP = frozenset(
    {"connection", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length"}
)


class ProxyServer:
    """Serves on a free loopback port; `record` gets every call when its fate is settled."""

    def __init__(self, upstream: str, plan: FaultPlan, record: Callable[[Call], None]) -> None:
        self._upstream = upstream
        self._plan = plan
        self._record = record
        self._hanging: set[asyncio.Event] = set()
        self._session: ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app, access_log=None, auto_decompress=False, shutdown_timeout=_SHUTDOWN_TIMEOUT
        )
        try:
            await self._runner.setup()
            site = web.TCPSite(self._runner, LOOPBACK, 0)
            await site.start()
            self.url = f"http://{LOOPBACK}:{self._runner.addresses[0][1]}"
            self._session = ClientSession(
                connector=TCPConnector(limit=0),
                timeout=ClientTimeout(total=None),
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        self.release()
        try:
            if self._runner is not None:
                await self._runner.cleanup()
        finally:
            if self._session is not None:
                await self._session.close()

    def release(self) -> None:
        for event in self._hanging:
            event.set()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        operation = _operation(request, body)
        entries = _entries(body) if operation in PARTLY else []
        fault = self._plan.next(operation)

        def settled(status: int | None) -> None:
            self._record(Call(operation, len(entries), len(body), fault, status, body))

        if isinstance(fault, Hang):
            settled(None)
            await self._hang(fault.seconds)
            return _drop(request)
        answer = await self._answer(request, body, operation, entries, fault)
        settled(None if answer is None else answer.status)
        if answer is not None:
            return answer
        return _drop(request, orderly=isinstance(fault, Reset | LoseAnswer) and fault.orderly)

    async def _answer(
        self, request: web.Request, body: bytes, operation: str, entries: list[Any], fault: Fault | None
    ) -> web.Response | None:
        """The answer to give; None to drop the connection without one."""
        match fault:
            case Reset():
                return None
            case Throttle(code, message):
                return _refusal(request, HTTPStatus.BAD_REQUEST, code, message)
            case Denied(code, message, status):
                return _refusal(request, status, code, message)
            case ServerError(status, code, message):
                return _refusal(request, status, code, message)
            case PartialFailure():
                return await self._partly(request, body, operation, entries, fault)
            case LoseAnswer():
                await self._forward(request, body)
                return None
            case Delay(seconds):
                await self._hang(seconds)
        return await self._forward(request, body)

    async def _hang(self, seconds: float | None) -> None:
        event = asyncio.Event()
        self._hanging.add(event)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await event.wait()
        finally:
            self._hanging.discard(event)

    async def _forward(self, request: web.Request, body: bytes) -> web.Response | None:
        if self._session is None:
            return None
        # The Host stays that of the client: its signature covers it, and answers repeat it in their URLs.
        headers = _end_to_end(request.headers)
        url = URL(self._upstream + request.raw_path, encoded=True)
        try:
            async with self._session.request(
                request.method,
                url,
                headers=headers,
                data=io.BytesIO(body) if body else None,
                allow_redirects=False,
            ) as answer:
                content = await answer.read()
                kept = _end_to_end(answer.headers)
                if request.method == "HEAD" and "Content-Length" in answer.headers:
                    kept["Content-Length"] = answer.headers["Content-Length"]
                return web.Response(status=answer.status, reason=answer.reason, headers=kept, body=content)
        except ClientError:
            # No service there, or it broke off: the client sees what it would see without the proxy.
            return None

    async def _partly(
        self, request: web.Request, body: bytes, operation: str, entries: list[Any], fault: PartialFailure
    ) -> web.Response | None:
        failing = fault.failing(len(entries))
        if not failing:
            return await self._forward(request, body)
        passed = [entry for index, entry in enumerate(entries) if index not in failing]
        content: dict[str, Any] = {}
        if passed:
            answer = await self._forward(request, json.dumps(json.loads(body) | {"Entries": passed}).encode())
            if answer is None or answer.status != HTTPStatus.OK:
                return answer
            content = json.loads(answer.body if isinstance(answer.body, bytes) else b"{}")
        if operation == SEND_MESSAGES:
            told = {"Code": fault.code, "Message": fault.message, "SenderFault": False}
            refusals = [{"Id": entries[index]["Id"], **told} for index in sorted(failing)]
            merged = {
                "Successful": content.get("Successful", []),
                "Failed": [*content.get("Failed", []), *refusals],
            }
            return _json_answer(request, HTTPStatus.OK, merged)
        remaining = iter(content.get("Entries", ()))
        refused = {"ErrorCode": fault.code, "ErrorMessage": fault.message}
        results = [refused if index in failing else next(remaining) for index in range(len(entries))]
        failed = len(failing) + content.get("FailedEntryCount", 0)
        return _json_answer(request, HTTPStatus.OK, {"FailedEntryCount": failed, "Entries": results})


def _operation(request: web.Request, body: bytes) -> str:
    if target := request.headers.get("X-Amz-Target"):
        return target.rpartition(".")[2]
    query = request.rel_url.raw_query_string
    if request.content_type == "application/x-www-form-urlencoded":
        query = body.decode(errors="replace")
    action = urllib.parse.parse_qs(query).get("Action")
    return action[0] if action else f"{request.method} {request.rel_url.raw_path}"


def _entries(body: bytes) -> list[Any]:
    try:
        entries = json.loads(body)["Entries"]
    except (ValueError, KeyError, TypeError):
        return []
    return entries if isinstance(entries, list) else []


def _end_to_end(headers: Any) -> CIMultiDict[str]:
    return CIMultiDict((key, value) for key, value in headers.items() if key.lower() not in _HOP_BY_HOP)


def _refusal(request: web.Request, status: int, code: str, message: str) -> web.Response:
    if "X-Amz-Target" in request.headers:
        return _json_answer(request, status, {"__type": code, "message": message})
    fault_of = "Receiver" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "Sender"
    details = f"<Type>{fault_of}</Type><Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    text = f"<ErrorResponse><Error>{details}</Error><RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"
    return web.Response(status=status, text=text, content_type="text/xml", headers={"x-amzn-ErrorType": code})


def _json_answer(request: web.Request, status: int, content: dict[str, Any]) -> web.Response:
    headers = {"Content-Type": request.content_type, "x-amzn-RequestId": str(uuid.uuid4())}
    return web.Response(status=status, body=json.dumps(content).encode(), headers=headers)


def _drop(request: web.Request, *, orderly: bool = False) -> web.Response:
    """Ends the connection, with a reset unless `orderly`; the response that it gives never leaves."""
    transport = request.transport
    if transport is not None:
        if not orderly:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        transport.abort()
    return web.Response()
