"""A real NATS server and an AWS emulator on loopback, with faults on demand: for tests, demos, development."""

from __future__ import annotations

from oms_events.devstack.aws import AwsEmulator
from oms_events.devstack.background import run_in_thread
from oms_events.devstack.faults import (
    Call,
    Delay,
    Denied,
    Fault,
    Forward,
    Hang,
    LoseAnswer,
    PartialFailure,
    Reset,
    ServerError,
    Throttle,
)
from oms_events.devstack.nats import NatsServer, NatsTls
from oms_events.devstack.processes import DevstackError
from oms_events.devstack.proxy import FaultProxy
from oms_events.devstack.server import free_port
from oms_events.devstack.stack import DevStack

__all__ = [
    "AwsEmulator",
    "Call",
    "Delay",
    "Denied",
    "DevStack",
    "DevstackError",
    "Fault",
    "FaultProxy",
    "Forward",
    "Hang",
    "LoseAnswer",
    "NatsServer",
    "NatsTls",
    "PartialFailure",
    "Reset",
    "ServerError",
    "Throttle",
    "free_port",
    "run_in_thread",
]
