"""A consumer that charges each order once, however often its event arrives. Runs against the embedded emulator."""

# [start:imports]
from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass

from cloudevents.core.v1.event import CloudEvent

from oms_events import PayloadMismatchError, RunInProgressError, build_event, encode
from oms_events.devstack import AwsEmulator
from oms_events.idempotency import (
    CachedIdempotencyStore,
    DynamoDBIdempotencyStore,
    IdempotencyConfig,
    IdempotencyOptions,
    IdempotencyStore,
    IdempotentRun,
    Serializer,
    create_idempotency_table,
    idempotent,
)

# [end:imports]


def placed(amount: int, *, event_id: str) -> CloudEvent:
    return build_event("shop.order.placed", "/shop/web", {"order": {"id": "A-1", "amount": amount}}, id=event_id)


# [start:event]
async def by_event(store: IdempotencyStore) -> None:
    @idempotent(store, prefix="charge")
    async def charge(event: CloudEvent) -> str:
        print("charging", encode(event).data["order"]["amount"])
        return "receipt 1"

    print(await charge(placed(5, event_id="1")))
    print(await charge(placed(5, event_id="1")), "again")
    try:
        await charge(placed(7, event_id="1"))
    except PayloadMismatchError as error:
        print(error)


# [end:event]


# [start:key]
@dataclass
class Receipt:
    number: int


async def by_key(store: IdempotencyStore) -> None:
    @idempotent(
        store,
        prefix="ship",
        key="event.data.order.id",
        payload=lambda event, carrier: [event.get_data()["order"], carrier],
        options=IdempotencyOptions(on_concurrent="wait", wait_timeout=5.0),
        serializer=Serializer(dump=asdict, load=lambda value: Receipt(**value)),
    )
    async def ship(event: CloudEvent, carrier: str) -> Receipt:
        print("shipping by", carrier)
        return Receipt(7)

    # Two events about one order, at the same time: one ships, the other waits for its result.
    print(*await asyncio.gather(*(ship(placed(5, event_id=f"e{n}"), "post") for n in range(2))))


# [end:key]


# [start:block]
async def with_a_block(store: IdempotencyStore) -> None:
    event = placed(5, event_id="2")
    for _ in range(2):
        async with IdempotentRun(store, event, prefix="mail") as run:
            if not run.replayed:
                run.result = "sent"
        print("mail", run.result, "replayed" if run.replayed else "now")


# [end:block]


# [start:busy]
async def while_another_is_at_work(store: IdempotencyStore) -> None:
    event = placed(5, event_id="3")
    async with IdempotentRun(store, event, prefix="invoice"):
        try:
            async with IdempotentRun(store, event, prefix="invoice"):
                print("never printed")
        except RunInProgressError as error:
            print("busy:", error.key, "for", error.expires_in <= 61)


# [end:busy]


# [start:failure]
async def after_a_failure(store: IdempotencyStore) -> None:
    tries = 0

    @idempotent(store, key="order_id", prefix="reserve")
    async def reserve(order_id: str) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ConnectionError("the warehouse does not answer")

    for _ in range(3):
        try:
            await reserve("A-1")
        except ConnectionError as error:
            print("failed, will be delivered again:", error)
    print("reserved after", tries, "tries")


# [end:failure]


async def main() -> None:
    async with AwsEmulator() as aws:
        # [start:store]
        config = IdempotencyConfig(
            table_name="shop-idempotency",
            aws_region=aws.region,
            endpoint_url=aws.endpoint_url,
            aws_access_key_id=aws.access_key,
            aws_secret_access_key=aws.secret_key,
        )
        await create_idempotency_table(config)
        async with DynamoDBIdempotencyStore(config) as table:
            store = CachedIdempotencyStore(table, max_items=1000)
            # [end:store]
            await by_event(store)
            await by_key(store)
            await with_a_block(store)
            await while_another_is_at_work(store)
            await after_a_failure(store)


if __name__ == "__main__":
    asyncio.run(main())
