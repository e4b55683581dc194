"""One contract for every store."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from oms_events.idempotency import (
    CachedIdempotencyStore,
    DynamoDBIdempotencyStore,
    IdempotencyConfig,
    IdempotencyStore,
    MemoryIdempotencyStore,
    create_idempotency_table,
)
from oms_events.testing.idempotency_contract import IdempotencyStoreContract
from tests.idempotency.conftest import MakeConfig


@pytest.fixture(scope="session")
async def other_table(make_config: MakeConfig) -> IdempotencyConfig:
    config = make_config(hash_key="id", ttl_attribute="expires")
    await create_idempotency_table(config)
    return config


class TestMemory(IdempotencyStoreContract):
    @pytest.fixture
    def store(self) -> IdempotencyStore:
        return MemoryIdempotencyStore()


class TestDynamoDB(IdempotencyStoreContract):
    @pytest.fixture
    def store(self, dynamodb: DynamoDBIdempotencyStore) -> IdempotencyStore:
        return dynamodb


class TestDynamoDBWithOtherNames(IdempotencyStoreContract):
    @pytest.fixture
    async def store(self, other_table: IdempotencyConfig) -> AsyncIterator[IdempotencyStore]:
        async with DynamoDBIdempotencyStore(other_table) as store:
            yield store


class TestCachedMemory(IdempotencyStoreContract):
    @pytest.fixture
    def store(self) -> IdempotencyStore:
        return CachedIdempotencyStore(MemoryIdempotencyStore())


class TestCachedDynamoDB(IdempotencyStoreContract):
    @pytest.fixture
    def store(self, dynamodb: DynamoDBIdempotencyStore) -> IdempotencyStore:
        return CachedIdempotencyStore(dynamodb)
