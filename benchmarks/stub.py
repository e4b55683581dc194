"""A local EventBridge that answers at once, in a process of its own: what is left is the client's cost."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_TARGET = re.compile(rb"x-amz-target: *\w+\.(\w+)", re.IGNORECASE)


class Stub(asyncio.Protocol):
    """Answers DescribeEventBus and PutEvents over HTTP/1.1 with as little work as possible."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._received = bytearray()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (head := self._received.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._received, 0, head)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self._received) < end:
                return
            target = _TARGET.search(self._received, 0, head)
            body = self.answer(target[1].decode() if target else "", bytes(self._received[head + 4 : end]))
            del self._received[:end]
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\n"
                b"x-amzn-RequestId: 11710aed\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )

    def answer(self, operation: str, request: bytes) -> bytes:
        if operation != "PutEvents":
            return b'{"Name":"bench","Arn":"arn"}'
        mark = b'{"EventId":"11710aed-b79e-4468-a20b-bb3c0c3b4860"}'
        # Inside a Detail the quotes are escaped, so this counts entries only.
        marks = b",".join([mark] * request.count(b'"DetailType":'))
        return b'{"FailedEntryCount":0,"Entries":[' + marks + b"]}"


async def serve(protocol: type[Stub]) -> None:
    """Serves on a free port, and prints which, until the process is ended."""
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def running_stub(module: str = "benchmarks.stub") -> Iterator[str]:
    """Its endpoint URL, while it runs."""
    command = [sys.executable, "-m", module]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = process.stdout.readline().strip() if process.stdout else ""
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


if __name__ == "__main__":
    asyncio.run(serve(Stub))
