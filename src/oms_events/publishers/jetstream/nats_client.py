"""The one door to nats-py."""

from __future__ import annotations

from oms_events.errors import MissingExtraError

try:
    from nats import errors
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.aio.transport import TcpTransport
except ImportError as error:
    raise MissingExtraError("nats", needed_for="JetStreamPublisher") from error

__all__ = ["Client", "Msg", "Subscription", "TcpTransport", "errors"]
