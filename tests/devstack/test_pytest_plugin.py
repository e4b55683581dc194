from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from oms_events.devstack import AwsEmulator, FaultProxy, NatsServer

SUITE = """
import asyncio, os
import nats, pytest

@pytest.mark.asyncio
async def test_own_loop(oms_nats_server, oms_aws_emulator, oms_fault_proxy):
    client = await nats.connect(oms_nats_server.url)
    await client.close()
    await oms_aws_emulator.reset()
    with pytest.raises(Exception, match="0 of 1"):
        await oms_fault_proxy.wait_for_calls(1, timeout=0.01)

def test_without_a_loop(oms_nats_server, oms_fault_proxy):
    asyncio.run(oms_nats_server.kill())
    asyncio.run(oms_nats_server.start())
    assert oms_fault_proxy.endpoint_url.startswith("http://127.0.0.1:")
"""


@pytest.mark.parametrize("mode", ["auto", "strict"])
async def test_fixtures_work_in_a_users_suite(tmp_path: Path, mode: str) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"),
        *(
            "-o",
            f"asyncio_mode={mode}",
            "-o",
            "asyncio_default_fixture_loop_scope=function",
            "-c",
            "/dev/null",
            "--rootdir",
            str(tmp_path),
            str(tmp_path),
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert "2 passed" in output.decode(), output.decode()
    assert process.returncode == 0


async def test_plugin_loads_nothing_but_pytest_and_the_standard_library() -> None:
    script = (
        "import pytest, sys; before = set(sys.modules)\n"
        "import oms_events.devstack.pytest_plugin\n"
        "new = set(sys.modules) - before\n"
        "print(sorted({name.partition('.')[0] for name in new} - set(sys.stdlib_module_names)))\n"
        "print(sorted(name for name in new if name.startswith('oms_events.') and '.devstack' not in name))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert output.decode().splitlines() == ["['oms_events']", "['oms_events.errors']"]


async def test_servers_are_shared_and_faults_are_not(
    oms_nats_server: NatsServer, oms_aws_emulator: AwsEmulator, oms_fault_proxy: FaultProxy
) -> None:
    assert oms_nats_server.running
    assert oms_aws_emulator.running
    assert oms_fault_proxy.calls == ()
