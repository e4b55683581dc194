"""Pytest fixtures for everybody who installs the package: a real NATS server, an AWS emulator, its faults.

The servers are started when a test first asks for them and live as long as the test session. They run off
the test's event loop, so any mode and loop scope of any async plugin is fine, and their methods may be used
from the test's own loop. A test that stops or kills a server makes one of its own, or starts it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

# The contracts' assertions explain themselves as those of the user's own test files do.
pytest.register_assert_rewrite(
    "oms_events.testing.contract",
    "oms_events.testing.event_store_contract",
    "oms_events.testing.idempotency_contract",
    "oms_events.testing.leases_contract",
    "oms_events.testing.outbox_contract",
    "oms_events.testing.rate_limiter_contract",
    "oms_events.testing.snapshot_store_contract",
    "oms_events.testing.subject_keys_contract",
    "oms_events.testing.trigger_breaker_contract",
    "oms_events.testing.trigger_queues_contract",
)

if TYPE_CHECKING:
    from oms_events.devstack.aws import AwsEmulator
    from oms_events.devstack.nats import NatsServer
    from oms_events.devstack.proxy import FaultProxy


@pytest.fixture(scope="session")
def oms_nats_server() -> Iterator[NatsServer]:
    """A real NATS server with JetStream on a free loopback port (connect to `.url`)."""
    from oms_events.devstack.background import run_in_thread
    from oms_events.devstack.nats import NatsServer

    with run_in_thread(NatsServer()) as server:
        yield server


@pytest.fixture(scope="session")
def oms_aws_emulator() -> Iterator[AwsEmulator]:
    """An AWS emulator on a free loopback port (`.endpoint_url`, `.region`, `.access_key`, `.secret_key`)."""
    from oms_events.devstack.aws import AwsEmulator
    from oms_events.devstack.background import run_in_thread

    with run_in_thread(AwsEmulator()) as emulator:
        yield emulator


@pytest.fixture
def oms_fault_proxy(oms_aws_emulator: AwsEmulator) -> Iterator[FaultProxy]:
    """A fault-injecting proxy of this test's own in front of the AWS emulator (use its `.endpoint_url`)."""
    from oms_events.devstack.background import run_in_thread
    from oms_events.devstack.proxy import FaultProxy

    with run_in_thread(FaultProxy(oms_aws_emulator.endpoint_url)) as proxy:
        yield proxy
