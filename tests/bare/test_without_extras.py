"""What holds when no extra is installed; run on an environment with the bare wheel. Needs no async plugin."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys

import pytest

import oms_events

OPTIONAL = ("nats", "aioboto3", "prometheus_client", "yaml", "cryptography", "click", "rich")
installed = [name for name in OPTIONAL if importlib.util.find_spec(name) is not None]


def test_importing_the_package_loads_no_optional_dependency() -> None:
    code = f"import oms_events, sys; print([name for name in {OPTIONAL!r} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_every_public_name_is_there_and_sorted() -> None:
    assert sorted(oms_events.__all__) == oms_events.__all__
    assert all(hasattr(oms_events, name) for name in oms_events.__all__)


def test_names_are_found_when_asked_for_and_only_they() -> None:
    code = (
        "import oms_events, sys\n"
        "assert 'pydantic' not in sys.modules\n"
        "assert set(oms_events.__all__) <= set(dir(oms_events))\n"
        "from oms_events import *\n"
        "from oms_events.routing.router import EventRouter as original\n"
        "assert EventRouter is original and oms_events.EventRouter is original\n"
        "assert not hasattr(oms_events, 'EventRooter')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_routing_works_without_any_extra() -> None:
    async def run() -> None:
        memory = oms_events.MemoryPublisher()
        async with oms_events.EventRouter({"mine": memory}) as router:
            event = oms_events.build_event("com.example.done", "/bare", {"a": 1})
            assert (await router.publish_event(event)).delivered
        assert [stored.get_data() for stored in memory.events] == [{"a": 1}]

    asyncio.run(run())


@pytest.mark.skipif(bool(installed), reason=f"extras are installed: {installed}; `make bare-test` runs without")
@pytest.mark.parametrize(
    ("code", "extra"),
    [
        ("create_oms_multi_platform_router(NatsConfig())", "nats"),
        ("asyncio.run(create_oms_multi_platform_router(None, EventBridgeConfig()).__aenter__())", "aws"),
        ("import oms_events.instrumentation.prometheus", "prometheus"),
        ("import oms_events.instrumentation as hooks; hooks.PrometheusHook", "prometheus"),
        ("import oms_events.eventstore as es; es.PersonalDataCipher(es.MemorySubjectKeys())", "crypto"),
        ("import oms_events.routing.rulefile as files; files.parse_rules('rules: []', 'yaml')", "yaml"),
    ],
)
def test_a_missing_extra_is_named(code: str, extra: str) -> None:
    lines = ("import asyncio", "from oms_events import *", "try:", f"    {code}")
    program = "\n".join((*lines, "except MissingExtraError as error:", "    print(error.extra)"))
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == extra
