"""Serves metrics over HTTP, for processes that have no web server of their own (extra `prometheus`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from oms_events.errors import ConfigurationError, MissingExtraError
from oms_events.instrumentation.hooks import Hook
from oms_events.instrumentation.prometheus import PrometheusHook

try:
    from prometheus_client import CollectorRegistry, start_http_server
except ImportError as error:
    raise MissingExtraError("prometheus", needed_for="the metrics server") from error


@contextmanager
def served_metrics(*, port: int, host: str = "127.0.0.1") -> Iterator[tuple[Hook, int]]:
    """A hook whose metrics are served from a thread for the length of a `with`, and their port (0 takes any).

    There is no encryption and no login: whoever reaches the port reads all of it. Raises `ConfigurationError` when
    the address cannot be had.
    """
    registry = CollectorRegistry()
    hook = PrometheusHook(registry)
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        problem = f"metrics cannot be served on {host}:{port}: {error}; choose another port or host"
        raise ConfigurationError("metrics", [problem]) from error
    try:
        yield hook, server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
