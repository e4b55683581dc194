from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import nats
import pytest

from oms_events.devstack.nats import NatsServer
from oms_events.errors import ConfigurationError
from oms_events.oms.builders import create_branch_event, create_schema_change_event
from oms_events.oms.environment import router_from_environment
from oms_events.oms.service import EnhancedEventService
from oms_events.publishing import Outcome

CREATED = {"operation": "create", "resource_type": "object_type", "resource_id": "User", "branch": "main"}


async def test_a_service_without_arguments_publishes_to_what_the_environment_names() -> None:
    async with asyncio.timeout(30), NatsServer(user="ann", password="s3cret") as server:
        client = await nats.connect(server.url, user="ann", password="s3cret")
        await client.jetstream().add_stream(name="OMS", subjects=["oms.>"])
        env = {**os.environ, "OMS_NATS_URL": server.url, "OMS_NATS_USER": "ann", "OMS_NATS_PASSWORD": "s3cret"}
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, error = await program.communicate()
        assert (program.returncode, out.decode().split()) == (0, ["True"]), error.decode()
        message = await client.jetstream().get_msg("OMS", 1)
        assert message.subject == "oms.branch.merged"
        assert message.headers is not None
        assert message.headers["ce-branch"] == "dev"
        await client.close()


PROGRAM = """
import asyncio
from oms_events.oms.service import EnhancedEventService

async def main():
    async with EnhancedEventService() as service:
        event = service.create_branch_event(operation="merged", branch_name="dev", target_branch="main")
        print((await service.publish_event(event)).delivered)

asyncio.run(main())
"""


async def test_rules_of_the_file_stand_beside_the_default_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("[[rules]]\nname = 'mine'\nevent_type_pattern = '.*\\.schema\\..*'\nplatforms = ['nats']\n")
    env = {"OMS_NATS_URL": "nats://127.0.0.1:1", "OMS_RULES_FILE": str(path)}
    async with asyncio.timeout(30), router_from_environment(env) as router:
        assert [rule.name for rule in router.routing_rules] == [
            "mine", "oms-schema", "oms-branches", "oms-actions", "oms-system", "oms-default",
        ]  # fmt: skip
        assert router.explain(create_schema_change_event(**CREATED)).rule == "mine"


async def test_a_platform_that_is_down_is_a_result_of_publishing_and_no_error() -> None:
    env = {"OMS_NATS_URL": "nats://127.0.0.1:1"}
    async with (
        asyncio.timeout(30),
        EnhancedEventService(router_factory=lambda: router_from_environment(env)) as service,
    ):
        event = create_branch_event(operation="created", branch_name="dev")
        results = await service.publish_event(event, timeout=0.5)
        assert results is not None
        assert not results.delivered
        assert results["nats"].outcome in (Outcome.FAILED, Outcome.SKIPPED)


async def test_an_environment_without_platforms_says_what_to_set() -> None:
    async with EnhancedEventService(router_factory=lambda: router_from_environment({})) as service:
        with pytest.raises(ConfigurationError, match="set OMS_NATS_URL or OMS_EVENTBRIDGE_BUS_NAME"):
            await service.publish_event(create_branch_event(operation="created", branch_name="dev"))


async def test_problems_of_the_environment_are_told_together() -> None:
    env = {"OMS_ENABLE_NATS": "sometimes", "OMS_EVENTBRIDGE_BUS_NAME": "no bus"}
    with pytest.raises(ConfigurationError) as caught:
        async with router_from_environment(env):
            pass
    assert len(caught.value.problems) == 2
    assert caught.value.problems[0].startswith("OMS_ENABLE_NATS = 'sometimes'")
    assert caught.value.problems[1].startswith("OMS_EVENTBRIDGE_BUS_NAME: ")
