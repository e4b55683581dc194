"""What holds of the AWS side when no extra is installed."""

from __future__ import annotations

import subprocess
import sys

from oms_events import provisioning

OPTIONAL = ("nats", "aioboto3", "botocore", "prometheus_client", "yaml", "click", "rich")


def test_describing_and_synthesizing_loads_no_optional_dependency() -> None:
    code = (
        "import sys\n"
        "from oms_events.provisioning import *\n"
        "body = synthesize(StackSpec(name='orders', queues=[QueueSpec(name='orders')])).body\n"
        "assert 'AWS::SQS::Queue' in body\n"
        f"print([name for name in {OPTIONAL!r} if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_every_public_name_is_there_and_sorted() -> None:
    assert sorted(provisioning.__all__) == provisioning.__all__
    assert set(provisioning.__all__) <= set(dir(provisioning))
    assert all(hasattr(provisioning, name) for name in provisioning.__all__)
    assert not hasattr(provisioning, "undeploy")
