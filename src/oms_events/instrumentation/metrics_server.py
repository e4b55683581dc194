"""Serves Prometheus metrics over HTTP, for processes that have no web server (extra `prometheus`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from oms_events.errors import ConfigurationError, MissingExtraError

try:
    from prometheus_client import CollectorRegistry, start_http_server
except ImportError as error:
    raise MissingExtraError("prometheus", needed_for="the metrics server") from error


@contextmanager
def serve_metrics(registry: CollectorRegistry, *, port: int, host: str = "127.0.0.1") -> Iterator[int]:
    """Serves a registry's metrics from a thread, for the length of a `with`; gives the port, which may be 0 for any.

    There is no encryption and no login: whoever reaches the port reads all of it. Raises `ConfigurationError` when
    the address cannot be had.
    """
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        problem = f"metrics cannot be served on {host}:{port}: {error}; choose another port or host"
        raise ConfigurationError("metrics", [problem]) from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
