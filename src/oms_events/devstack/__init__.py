"""A real NATS server and an AWS emulator on loopback, with faults on demand: for tests, demos, development."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
from oms_events.devstack.templates import Adapted, LeftOut, adapt, is_emulator

if TYPE_CHECKING:
    from oms_events.devstack.left_out import make_left_out, remove_left_out
    from oms_events.devstack.taken_names import refuse_taken_names

__all__ = [
    "Adapted",
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
    "LeftOut",
    "LoseAnswer",
    "NatsServer",
    "NatsTls",
    "PartialFailure",
    "Reset",
    "ServerError",
    "Throttle",
    "adapt",
    "free_port",
    "is_emulator",
    "make_left_out",
    "refuse_taken_names",
    "remove_left_out",
    "run_in_thread",
]


def __getattr__(name: str) -> Any:
    # They need the package's way to AWS, which would cost every test run of every user a part of a second.
    if name in ("make_left_out", "remove_left_out"):
        from oms_events.devstack import left_out

        return getattr(left_out, name)
    if name == "refuse_taken_names":
        from oms_events.devstack.taken_names import refuse_taken_names

        return refuse_taken_names
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
