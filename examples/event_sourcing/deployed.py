"""The same system as Lambda functions: zips the handlers, deploys the preset on the embedded emulator, checks it.

    python examples/event_sourcing/deployed.py

On AWS the steps are lambda_package.py, an upload to S3, `oms-events infra apply`, and `check.py --functions dev`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import aioboto3
import check

from oms_events.devstack import AwsEmulator, adapt, make_left_out, run_in_thread
from oms_events.provisioning import AwsConfig, CodeSpec, EventSourcingPreset, OmsRelay, deploy, synthesize

BUCKET: Final = "deployments"
KEY: Final = "handlers-1.zip"

HERE: Final = Path(__file__).parent
MODULES: Final = (
    "domain.py", "projections.py",
    "command_handler.py", "projection_handler.py", "query_handler.py", "relay_handler.py",
)  # fmt: skip


def build(output: Path) -> Path:
    """The functions' zip, for the Python that runs this."""
    program = HERE.parent / "lambda_package.py"
    modules = [str(HERE / module) for module in MODULES]
    subprocess.run([sys.executable, str(program), *modules, "--local", "--output", str(output)], check=True)
    return output


async def deploy_system(code: Path) -> None:
    # Endpoint, region and keys are found as AWS tools find them: in the environment.
    async with aioboto3.Session().client("s3") as s3:
        await s3.create_bucket(Bucket=BUCKET)
        await s3.upload_file(str(code), BUCKET, KEY)
    # [start:preset]
    code_in_s3 = CodeSpec(s3_bucket=BUCKET, s3_key=KEY)
    preset = EventSourcingPreset(
        code=code_in_s3,
        enable_outbox=True,
        outbox_relay=OmsRelay(code=code_in_s3, handler="relay_handler.handler"),
    )
    template = synthesize(preset.stack())
    # [end:preset]
    # What the emulator's CloudFormation does not take is made by its services' own calls.
    adapted = adapt(template.document)
    await deploy(replace(template, document=adapted.document), AwsConfig())
    await make_left_out(adapted, template.stack_name, AwsConfig())


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, run_in_thread(AwsEmulator()) as emulator:
        os.environ.update(emulator.environment())
        code = build(Path(folder) / "handlers.zip")
        asyncio.run(deploy_system(code))
        return asyncio.run(check.main(["--functions", "dev"]))


if __name__ == "__main__":
    sys.exit(main())
