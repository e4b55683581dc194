"""A router from one file, with environment variables over it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from oms_events import ConfigurationError, EnhancedEventService
from oms_events.devstack import NatsServer
from oms_events.settings import Settings

HERE = Path(__file__).parent


# [start:bad]
def all_problems_at_once() -> None:
    variables = {"OMS_NATS_URL": "http://nats:4222", "OMS_ENABLE_EVENTBRIDGE": "maybe"}
    try:
        Settings.from_environment(variables)
    except ConfigurationError as error:
        for problem in error.problems:
            print(problem)


# [end:bad]


async def main() -> None:
    all_problems_at_once()
    async with NatsServer() as server:
        environment = {"OMS_NATS_URL": server.url, "OMS_ENABLE_EVENTBRIDGE": "false"}
        # [start:file]
        settings = Settings.from_file(HERE / "oms-events.toml", env=environment)
        async with settings.create_router() as router, EnhancedEventService(router) as service:
            event = service.create_branch_event(operation="create", branch_name="feature/login")
            results = await service.publish_event(event, immediate=True)
            print(results)
        # [end:file]


if __name__ == "__main__":
    asyncio.run(main())
