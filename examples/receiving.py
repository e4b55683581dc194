"""Events of a JetStream stream for a handler, and for a read model; what is no event is told apart."""

# [start:imports]
from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pydantic import BaseModel

from oms_events import (
    EncodedEvent,
    EventRouter,
    JetStreamOptions,
    MemoryOutbox,
    NatsConfig,
    OutboxProcessor,
    RoutingRule,
    StreamPolicy,
    StreamSpec,
)
from oms_events.devstack import NatsServer
from oms_events.eventstore import (
    MemoryEventStore,
    MemoryReadModels,
    Projection,
    Projector,
    RecordedEvent,
    domain_event,
    received_events_handler,
)
from oms_events.instrumentation import Detail, Projected
from oms_events.publishers.jetstream import JetStreamPublisher
from oms_events.receiving import Dropped, JetStreamReceiver, ReceiverConfig

# [end:imports]


@domain_event
class OrderPlaced(BaseModel, frozen=True):
    customer: str
    total: int


class Customer(BaseModel, frozen=True):
    orders: int = 0
    spent: int = 0


CUSTOMERS = Projection("Customers", Customer)


@CUSTOMERS.on(OrderPlaced, key=lambda recorded: recorded.data["customer"])
def placed(row: Customer | None, event: OrderPlaced, recorded: RecordedEvent) -> Customer:
    row = row or Customer()
    return Customer(orders=row.orders + 1, spent=row.spent + event.total)


ORDERS = 3


mailed: list[str] = []
all_mailed = asyncio.Event()


async def send_mail(event: EncodedEvent) -> Exception | None:
    mailed.append(str(event.attributes["subject"]))
    if len(mailed) == ORDERS:
        all_mailed.set()
    return None


# [start:handler]
async def handle(events: Sequence[EncodedEvent]) -> Sequence[Exception | None]:
    return [await send_mail(event) for event in events]  # None: handled


def keep(dropped: Dropped) -> None:
    print("dropped:", dropped.error)


# [end:handler]


async def mail(nats_config: NatsConfig) -> None:
    # [start:receiver]
    config = ReceiverConfig(stream="ORDERS", durable="mailer", subjects=("orders.>",))
    async with JetStreamReceiver(nats_config, config, handle, on_dropped=keep):
        await all_mailed.wait()
    # [end:receiver]
    print("mails about", sorted(mailed))


async def project(nats_config: NatsConfig, store: MemoryEventStore) -> None:
    read_models = MemoryReadModels()
    projected = asyncio.Event()
    count = 0

    def look(detail: Detail) -> None:
        nonlocal count
        count += detail.events if isinstance(detail, Projected) else 0
        if count == ORDERS:
            projected.set()

    projector = Projector([CUSTOMERS], store, read_models, hooks=[look])
    # [start:projection]
    config = ReceiverConfig(stream="ORDERS", durable="customers", subjects=("orders.>",))
    async with projector, JetStreamReceiver(nats_config, config, received_events_handler(projector)):
        await projected.wait()
    # [end:projection]
    print("Ada:", await read_models.row(CUSTOMERS, "Ada"))


async def main() -> None:
    async with NatsServer() as server:
        nats_config = NatsConfig(servers=(server.url,))
        options = JetStreamOptions(
            stream=StreamSpec(name="ORDERS", subjects=("orders.>",)),
            policy=StreamPolicy.CREATE,
            subject="orders.{type}",
        )
        rule = RoutingRule(name="orders", event_type_pattern=".*", platforms=["nats"], strategy="all")
        outbox = MemoryOutbox()
        store = MemoryEventStore(outbox=outbox)
        async with EventRouter({"nats": JetStreamPublisher(nats_config, options=options)}, [rule]) as router:
            for number in range(1, ORDERS + 1):
                event = OrderPlaced(customer="Ada", total=10 * number)
                await store.append(f"order-{number}", [event], expected_sequence=0)
            await OutboxProcessor(outbox, router).run_once()
        await mail(nats_config)
        await project(nats_config, store)


if __name__ == "__main__":
    asyncio.run(main())
