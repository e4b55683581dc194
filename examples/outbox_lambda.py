"""The relay of the outbox as a Lambda function: the code that the option `relay` of the preset `oms` asks for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from oms_events import (
    EventRouter,
    Outbox,
    build_event,
    create_oms_multi_platform_router,
    create_streams_handler,
)
from oms_events.devstack import AwsEmulator, run_in_thread
from oms_events.provisioning import AwsConfig, OmsPreset, deploy, synthesize
from oms_events.settings import Settings


# [start:relay]
@asynccontextmanager
async def open_relay() -> AsyncIterator[tuple[Outbox, EventRouter]]:
    settings = Settings.from_environment()
    router = create_oms_multi_platform_router(eventbridge_config=settings.eventbridge, add_default_rules=False)
    async with settings.create_outbox() as outbox, router:
        yield outbox, router


handler = create_streams_handler(open_relay)
# [end:relay]


async def write_an_event() -> None:
    async with Settings.from_environment().create_outbox() as outbox:
        await outbox.add(build_event("com.foundry.oms.branch.created", "/oms/main", {}, partitionkey="main"))


def main() -> None:
    with run_in_thread(AwsEmulator()) as emulator:
        os.environ.update(emulator.environment())
        # Lambda gets the last two from the stack.
        os.environ.update(OMS_EVENTBRIDGE_BUS_NAME="oms-events", OMS_OUTBOX_TABLE="oms-events-outbox")
        preset = OmsPreset(enable_archive=False, enable_alarms=False)
        asyncio.run(deploy(synthesize(preset.stack()), AwsConfig(endpoint_url=emulator.endpoint_url)))
        asyncio.run(write_an_event())
        print("a sweep:", handler({"source": "aws.events"}, None))
        handler.close()


if __name__ == "__main__":
    main()
