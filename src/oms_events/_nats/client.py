"""What is taken from nats-py."""

from __future__ import annotations

from oms_events.errors import MissingExtraError

try:
    from nats import errors
    from nats.aio.client import Client, RawCredentials
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.aio.transport import TcpTransport
    from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser
except ImportError as error:
    raise MissingExtraError("nats", needed_for="NATS") from error

__all__ = [
    "AWAITING_CONTROL_LINE",
    "Client",
    "Msg",
    "Parser",
    "RawCredentials",
    "Subscription",
    "TcpTransport",
    "errors",
]
