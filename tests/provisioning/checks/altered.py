"""The emulator with answers that it never gives by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import ClientSession, web

Alter = Callable[[bytes, bytes], bytes | None]
"""Makes an answer of request and answer; None denies it."""


@asynccontextmanager
async def altered(upstream: str, operation: str, alter: Alter) -> AsyncIterator[str]:
    """The emulator, whose answers to one operation are made of request and answer: states that it never has."""

    async def forward(request: web.Request) -> web.Response:
        body = await request.read()
        async with client.request(
            request.method, f"{upstream}{request.path_qs}", headers=request.headers, data=body
        ) as answer:
            content = await answer.read()
            told = f"{request.headers.get('X-Amz-Target', '')} {request.path} {body.decode()}"
            changed = alter(body, content) if operation in told else content
            if changed is None:
                denied = {"__type": "AccessDeniedException", "message": "not authorized"}
                return web.json_response(denied, status=400)
            return web.Response(status=answer.status, content_type=answer.content_type, body=changed)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(application)
    await runner.setup()
    async with ClientSession() as client:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            host, port = runner.addresses[0][:2]
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()


def saying(old: str, new: str) -> Alter:
    def alter(_: bytes, answer: bytes) -> bytes:
        assert old.encode() in answer, answer
        return answer.replace(old.encode(), new.encode())

    return alter
