"""Under the roles of the preset `event-sourcing`: who may use, make and delete the keys of people."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from oms_events.devstack import AwsEmulator
from oms_events.errors import StorageDeniedError
from oms_events.eventstore.config import PersonalKeysConfig
from oms_events.eventstore.personal.dynamodb import DynamoDBSubjectKeys
from oms_events.eventstore.personal.keys import SubjectKey
from oms_events.provisioning.presets.event_sourcing import EventSourcingPreset
from oms_events.provisioning.synthesis import synthesize
from oms_events.testing.subject_keys_contract import SubjectKeysContract
from tests.provisioning.embedded import deployed
from tests.provisioning.permissions import Call, Role, enforcing_emulator

TABLE = "personal-keys-dev"
ANN = {"Subject": {"S": "ann"}}


@pytest.fixture(scope="module")
def emulator() -> Iterator[AwsEmulator]:
    with enforcing_emulator() as started:
        yield started


@pytest_asyncio.fixture(scope="module")
async def roles(emulator: AwsEmulator) -> AsyncIterator[dict[str, Role]]:
    async with deployed(synthesize(EventSourcingPreset(enable_personal_data=True).stack()), emulator):
        yield {
            kind: Role(emulator, f"arn:aws:iam::000000000000:role/{kind}-handler-dev-role")
            for kind in ("command", "projection", "query")
        }


def keys_of(role: Role) -> DynamoDBSubjectKeys:
    return DynamoDBSubjectKeys(PersonalKeysConfig(table_name=TABLE, **role.settings))


class TestKeysAsTheCommandHandler(SubjectKeysContract):
    @pytest.fixture
    async def keys(self, roles: dict[str, Role]) -> AsyncIterator[DynamoDBSubjectKeys]:
        async with keys_of(roles["command"]) as keys:
            yield keys


@pytest.mark.parametrize("kind", ["projection", "query"])
async def test_who_only_reads_makes_and_deletes_nothing(roles: dict[str, Role], kind: str) -> None:
    async with keys_of(roles["command"]) as writing, keys_of(roles[kind]) as reading:
        await writing.get_or_create("ann")
        key = (await reading.get(["ann"]))["ann"]
        assert key.secret is not None
        for act in (reading.get_or_create("bob"), reading.delete("ann")):
            with pytest.raises(StorageDeniedError, match="allow dynamodb:"):
                await act
        await writing.delete("ann")
        assert await reading.get(["ann"]) == {"ann": SubjectKey(key.version, None)}
        await writing.renew("ann")


@pytest.mark.parametrize("kind", ["command", "projection", "query"])
async def test_nobody_may_list_or_remove_keys(roles: dict[str, Role], kind: str) -> None:
    for operation, more in (("Scan", {}), ("DeleteItem", {"Key": ANN}), ("DeleteTable", {})):
        assert await roles[kind].is_refused(Call("dynamodb", operation, {"TableName": TABLE, **more}))
