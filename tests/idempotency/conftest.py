from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from oms_events.devstack import AwsEmulator
from oms_events.idempotency import DynamoDBIdempotencyStore, IdempotencyConfig, create_idempotency_table

pytest.register_assert_rewrite("oms_events.testing.idempotency_contract")

MakeConfig = Callable[..., IdempotencyConfig]


def emulator_access(emulator: AwsEmulator) -> dict[str, Any]:
    """The fields that lead to the emulator."""
    return {
        "endpoint_url": emulator.endpoint_url,
        "aws_region": emulator.region,
        "aws_access_key_id": emulator.access_key,
        "aws_secret_access_key": emulator.secret_key,
    }


@pytest.fixture(scope="session")
def make_config(request: pytest.FixtureRequest) -> MakeConfig:
    """Makes a configuration for a table, by default of a new name; the environment may name another endpoint."""
    endpoint = os.environ.get("OMS_TEST_AWS_ENDPOINT")
    access = (
        {"endpoint_url": endpoint} if endpoint else emulator_access(request.getfixturevalue("oms_aws_emulator"))
    )

    def make(**fields: Any) -> IdempotencyConfig:
        return IdempotencyConfig(**{"table_name": f"idempotency-{uuid.uuid4().hex[:12]}", **access, **fields})

    return make


@pytest.fixture(scope="module")
async def table(make_config: MakeConfig) -> IdempotencyConfig:
    """A table for all tests: each uses keys of its own."""
    config = make_config()
    await create_idempotency_table(config)
    return config


@pytest.fixture(scope="module")
async def emulated_table(make_config: MakeConfig, oms_aws_emulator: AwsEmulator) -> IdempotencyConfig:
    """A table in the emulator, in front of which is the fault proxy."""
    config = make_config(**emulator_access(oms_aws_emulator))
    await create_idempotency_table(config)
    return config


@pytest.fixture
async def dynamodb(table: IdempotencyConfig) -> AsyncIterator[DynamoDBIdempotencyStore]:
    async with DynamoDBIdempotencyStore(table) as store:
        yield store
