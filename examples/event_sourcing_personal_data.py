"""Forgetting a person whose events must stay: their data is encrypted under a key that is then deleted."""

# [start:imports]
from __future__ import annotations

import asyncio
from datetime import date
from typing import Annotated

import aioboto3
from pydantic import BaseModel

from oms_events import PersonalDataError
from oms_events.devstack import AwsEmulator
from oms_events.eventstore import (
    DynamoDBSubjectKeys,
    EventRegistry,
    EventStore,
    KmsConfig,
    KmsKeyWrapper,
    MemoryEventStore,
    MemoryReadModels,
    MemorySubjectKeys,
    Personal,
    PersonalDataCipher,
    PersonalKeysConfig,
    Projection,
    Projector,
    RecordedEvent,
)

# [end:imports]

registry = EventRegistry()


# [start:events]
class Address(BaseModel, frozen=True):
    street: Annotated[str, Personal(subject="customer_id")]
    country: str


@registry.event
class AccountOpened(BaseModel, frozen=True):
    customer_id: str
    name: Annotated[str, Personal(subject="customer_id")]
    born: Annotated[date, Personal(subject="customer_id", forgotten=date(1900, 1, 1))]
    address: Address
    plan: str


@registry.event
class PersonForgotten(BaseModel, frozen=True):
    customer_id: str


# [end:events]


# [start:projection]
class Account(BaseModel):
    name: str
    country: str


accounts = Projection("Account", Account, registry=registry)


@accounts.on(AccountOpened)
def opened(row: Account | None, event: AccountOpened, recorded: RecordedEvent) -> Account:
    return Account(name=event.name, country=event.address.country)


@accounts.on(PersonForgotten)
def forgotten(row: Account | None, event: PersonForgotten, recorded: RecordedEvent) -> Account | None:
    return row and row.model_copy(update={"name": "[forgotten]"})


# [end:projection]


# [start:people]
class Person(BaseModel):
    accounts: tuple[str, ...]


people = Projection("Person", Person, registry=registry)


@people.on(AccountOpened, key=lambda recorded: recorded.data["customer_id"])
def opened_by(row: Person | None, event: AccountOpened, recorded: RecordedEvent) -> Person:
    return Person(accounts=(*(row.accounts if row else ()), recorded.aggregate_id))


# [end:people]

ANN = AccountOpened(
    customer_id="customer-7",
    name="Ann Smith",
    born=date(1990, 2, 3),
    address=Address(street="Main Street 7", country="DE"),
    plan="basic",
)


async def show(store: EventStore, account: str) -> None:
    async for recorded in store.read(account, up_to=1):
        print(f"{account}, read:  ", recorded.domain_event)
        print(f"{account}, stored:", recorded.encoded.data["name"])


async def in_memory() -> None:
    # [start:store]
    cipher = PersonalDataCipher(MemorySubjectKeys())
    store = MemoryEventStore(registry=registry, cipher=cipher)
    # [end:store]
    await store.append("account-1", [ANN], expected_sequence=0)
    await show(store, "account-1")

    async with Projector([accounts, people], store, read_models := MemoryReadModels()) as projector:
        await projector.catch_up("account-1")
        print("row:", await read_models.row(accounts, "account-1"))

        # [start:forget]
        person = await read_models.row(people, "customer-7")
        for account in person["accounts"] if person else ():
            last = await store.last_sequence(account)
            await store.append(account, [PersonForgotten(customer_id="customer-7")], expected_sequence=last)
        await cipher.forget("customer-7")
        # [end:forget]

        await show(store, "account-1")
        await projector.catch_up("account-1")
        print("row:", await read_models.row(accounts, "account-1"))

    # [start:again]
    try:
        await store.append("account-2", [ANN], expected_sequence=0)
    except PersonalDataError as error:
        print("refused:", error)
    await cipher.allow_again("customer-7")
    await store.append("account-2", [ANN], expected_sequence=0)
    # [end:again]
    await show(store, "account-1")
    await show(store, "account-2")


async def on_aws() -> None:
    async with AwsEmulator() as aws:
        session = aioboto3.Session(aws.access_key, aws.secret_key, region_name=aws.region)
        async with session.client("kms", endpoint_url=aws.endpoint_url) as kms:
            key_id = (await kms.create_key())["KeyMetadata"]["KeyId"]
        # [start:aws]
        table = PersonalKeysConfig(table_name="personal-keys", endpoint_url=aws.endpoint_url)
        kms_key = KmsConfig(key_id=key_id, endpoint_url=aws.endpoint_url)
        # For development; in production the preset event-sourcing makes it.
        await DynamoDBSubjectKeys(table, session=session).create()
        async with (
            KmsKeyWrapper(kms_key, session=session) as wrapper,
            DynamoDBSubjectKeys(table, wrapper=wrapper, session=session) as keys,
        ):
            cipher = PersonalDataCipher(keys, key_ttl=60)
            # [end:aws]
            store = MemoryEventStore(registry=registry, cipher=cipher)
            await store.append("account-3", [ANN], expected_sequence=0)
            await show(store, "account-3")
            await cipher.forget("customer-7")
            await show(store, "account-3")


async def main() -> None:
    await in_memory()
    await on_aws()


if __name__ == "__main__":
    asyncio.run(main())
